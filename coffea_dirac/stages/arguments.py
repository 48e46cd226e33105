"""What the fingerprint of a call comes from: H(template of the stage, its arguments).

A handle among the arguments enters by its own fingerprint and ``events`` by the identity of the data: so a fingerprint
is known before anything is read or computed.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from coffea_dirac.inputs.files import File
from coffea_dirac.stages.handles import Handle


class Template(NamedTuple):
    """What all calls of a stage have in common: its digest, and the files that its strings name, with digests."""

    digest: str
    named_files: Mapping[str, str]


class Source(Protocol):
    """The data of one work item, as an argument of stages."""

    @property
    def identity(self) -> str:
        """What enters fingerprints."""
        ...

    def is_whole(self, value: object) -> bool:
        """Whether `value` is the data as it was handed to ``process``."""
        ...

    def has_made(self, factory: object) -> bool:
        """Whether the data are the events of `factory`."""
        ...

    def events(self) -> Any:
        """Return the data, opening the file at the first call."""
        ...


class Finder(Protocol):
    """Tells which data arrays are, or were taken out of, outside of a work item."""

    def source(self, value: Any) -> Source | None:
        """Return the data that `value` is all of, None if it is not."""
        ...

    def origin(self, factory: Any) -> str:
        """Return what identifies the events that `factory` makes, empty if that is not known."""
        ...


@dataclass
class Arguments:
    """The arguments of one call: as values with handles inside, and as the text that enters the fingerprint.

    `parts` are texts and handles in turn; `changeable` are values that could be changed before they are used, with the
    name of their argument and the digest they had.
    """

    values: dict[str, Any] = field(default_factory=dict)
    parts: list[Any] = field(default_factory=list)
    strings: set[str] = field(default_factory=set)
    changeable: list[tuple[str, Any, str]] = field(default_factory=list)
    has_source: bool = False

    @functools.cached_property
    def parents(self) -> list[Handle]:
        """The handles among the arguments, each once; asked for when all parts are there."""
        return list(dict.fromkeys(part for part in self.parts if type(part) is Handle))

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Short digests of the arguments that are neither data nor results, by name; a file's has its name."""
        found: dict[str, list[str]] = {}
        others, name = set[str](), ""
        for part in self.parts:
            if type(part) is Handle or part.startswith("source "):
                others.add(name)
            elif part.endswith("="):
                name = part[:-1]
            elif name:
                found.setdefault(name, []).append(part)
        return {
            name: _file_name(self.values[name]) + _short_digest("".join(parts))
            for name, parts in found.items()
            if name not in others
        }

    def text(self, digest_of: Callable[[Handle], str]) -> str:
        """Return the text that stands for the arguments, with each handle replaced by its digest."""
        return "".join(part if type(part) is str else f"@{digest_of(part)};" for part in self.parts)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _file_name(value: Any) -> str:
    return f"{os.path.basename(value.path)} " if type(value) is File else ""  # noqa: PTH119 - of a text


def fingerprint_of(template: Template, arguments: Arguments) -> str:
    """Return the fingerprint of a call: H(template of the stage, its arguments)."""
    text = f"stage 1 {template.digest} {arguments.text(_fingerprint)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _fingerprint(handle: Handle) -> str:
    return handle.fingerprint
