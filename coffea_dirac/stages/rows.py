"""Which of the records of a key holds now: what user code read while it was made must be as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from coffea_dirac.inputs.discovery import Checker
from coffea_dirac.interfaces import Discovered, Json, Row


class _HasInputs(Protocol):
    @property
    def inputs(self) -> tuple[Discovered, ...]: ...


Found = TypeVar("Found", bound=_HasInputs)


def full_key(row: Row, digests: dict[tuple[Discovered, ...], str]) -> str:
    """Return what identifies a result: its key and the inputs that were discovered while it was computed.

    Parameters
    ----------
    digests : dict
        Digests of inputs already seen: the rows of one pack share them.
    """
    inputs = digests.get(row.inputs)
    if inputs is None:
        text = "\0".join("\0".join(i) for i in row.inputs)
        digests[row.inputs] = inputs = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return hashlib.sha256(f"full key 1 {row.key} {inputs}".encode()).hexdigest()


def choose(
    rows: Sequence[Found], checker: Checker, metadata: Callable[[str], str], named_files: Mapping[str, str]
) -> tuple[Found | None, Mapping[str, Json] | None]:
    """Return the row whose discovered inputs hold now, or None and the first reason why none does.

    A file that a string in the code names counts even if the record was made before that file existed.
    """
    reason: Mapping[str, Json] | None = None
    for row in reversed(rows):
        change = checker.first_change(row.inputs, metadata) or _new_file(row.inputs, named_files)
        if change is None:
            return row, None
        reason = reason or change
    return None, reason


def _new_file(inputs: Sequence[Discovered], named_files: Mapping[str, str]) -> Mapping[str, Json] | None:
    if not named_files:
        return None
    known = {i.name for i in inputs if i.kind in ("file", "written")}
    for name in named_files:
        if name not in known:
            return {"reason": "new content", "where": name}
    return None
