"""One call of ``process`` without data for many work items: the others have the same handles, on other data.

That holds as long as all that ``process`` asked of its work item is the same: the metadata it read, and the number of
entries if it wanted to know that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coffea_dirac.stages.arguments import Arguments, fingerprint_of
from coffea_dirac.stages.handles import Handle

# Of each dataset so many are remembered: where each work item needs one of its own, none helps.
MOST_SHAPES = 4
UNFINGERPRINTABLE = "unfingerprintable"


@dataclass(frozen=True)
class Shape:
    """What a call of ``process`` made of one work item.

    Parameters
    ----------
    source : str
        What identifies its data.
    metadata : mapping
        Digests of the metadata that were read, by name.
    n_entries : int or None
        Its entries, if they were asked for.
    roots : tuple of Handle
        What was returned.
    """

    source: str
    metadata: Mapping[str, str]
    n_entries: int | None
    roots: tuple[Handle, ...]

    @functools.cached_property
    def _handles(self) -> list[Handle]:
        return in_order(self.roots)

    def fits(self, metadata: Callable[[str], str], n_entries: int) -> bool:
        """Whether ``process`` would make the same of a work item with such metadata (name -> digest) and entries."""
        if self.n_entries not in (None, n_entries):
            return False
        return all(digest != UNFINGERPRINTABLE and metadata(name) == digest for name, digest in self.metadata.items())

    def roots_of(self, source: str) -> list[Handle]:
        """Return what would be returned of a work item with other data."""
        made: dict[Handle, Handle] = {}
        # As data, and as the plain text that names the files of a work item.
        part_of = {f"source {self.source};": f"source {source};", f"str {self.source!r};": f"str {source!r};"}
        for handle in self._handles:
            made[handle] = _on_other_data(handle, made, part_of)
        return [made[root] for root in self.roots]


def in_order(roots: Iterable[Handle]) -> list[Handle]:
    """Return handles and all they come from, each after those that it takes."""
    found: dict[Handle, None] = {}
    stack = [(root, False) for root in roots]
    while stack:
        handle, has_parents = stack.pop()
        if has_parents:
            found[handle] = None
        elif handle not in found:
            stack.append((handle, True))
            stack.extend((parent, False) for parent in handle.arguments.parents)
    return list(found)


def _on_other_data(handle: Handle, made: Mapping[Handle, Handle], part_of: Mapping[str, str]) -> Handle:
    old = handle.arguments
    parts: list[Any] = [made[part] if type(part) is Handle else part_of.get(part, part) for part in old.parts]
    arguments = Arguments(old.values, parts, old.strings, old.changeable, old.has_source)
    # Of what is neither data nor a result.
    vars(arguments)["digests"] = old.digests
    fingerprint = fingerprint_of(handle.template, arguments)
    return Handle(handle._graph, handle.stage, handle.template, arguments, fingerprint, handle.number)


class Shapes:
    """The last shapes of each group of work items."""

    def __init__(self) -> None:
        self._known: dict[str, list[Shape]] = {}
        self.n_calls = 0
        """How many shapes were made."""

    def find(self, group: str, metadata: Callable[[str], str], n_entries: int) -> Shape | None:
        """Return the shape that fits a work item, None if ``process`` has to be called for it."""
        for shape in reversed(self._known.get(group, ())):
            if shape.fits(metadata, n_entries):
                return shape
        return None

    def add(self, group: str, shape: Shape) -> None:
        """Remember a shape."""
        self.n_calls += 1
        known: Sequence[Shape] = self._known.get(group, ())
        self._known[group] = [*known[1 - MOST_SHAPES :], shape]
