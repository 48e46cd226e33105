"""Work items that ran out of memory: two halves take the place of one, in this run only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from coffea_dirac.redact import without_secrets

SMALLEST_PART = 1 / 64


class Halves:
    """Which work items stand for parts of others.

    Parameters
    ----------
    items : sequence of WorkItem
        All work items by position, also those that come later.

    Examples
    --------
    >>> from coffea.processor.executor import WorkItem
    >>> items = [WorkItem("ttbar", "a.root", "Events", 0, 10, b"")]
    >>> halves = Halves(items)
    >>> items += halves.of(0)
    >>> [(half.entrystart, half.entrystop) for half in items[1:]]
    [(0, 5), (5, 10)]
    >>> halves.stand_for(0, [1, 2])
    >>> halves.whole(2), halves.are_missing(0, waiting={2}), halves.are_missing(0, waiting={7})
    (0, True, False)
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self._part_of: dict[int, int] = {}

    def of(self, position: int) -> list[Any]:
        """Return the halves of a work item, none if it is too small for that."""
        item, whole = self._items[position], self._items[self.whole(position)]
        if len(item) < 2 or len(item) <= SMALLEST_PART * len(whole):
            return []
        middle = (item.entrystart + item.entrystop) // 2
        return [replace(item, entrystop=middle), replace(item, entrystart=middle)]

    def stand_for(self, position: int, parts: Iterable[int]) -> None:
        """Enter that work items stand for another one."""
        self._part_of.update(dict.fromkeys(parts, position))

    def whole(self, position: int) -> int:
        """Return the work item that a position is a part of."""
        while position in self._part_of:
            position = self._part_of[position]
        return position

    def are_missing(self, whole: int, *, waiting: Collection[int]) -> bool:
        """Whether parts of a work item are among those that wait."""
        return bool(self._part_of) and any(p in self._part_of and self.whole(p) == whole for p in waiting)

    def note(self, position: int, why: str) -> str:
        """Return what the report says of a work item that is processed in halves."""
        item = self._items[position]
        return (
            f"{without_secrets(item.filename)}, entries {item.entrystart} to {item.entrystop} ({item.dataset}): {why}, "
            "so it was processed in halves; it is not kept in this run, nor what was merged from it. A smaller "
            "chunksize helps."
        )
