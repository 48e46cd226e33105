"""What is kept and sound of the keys of a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from coffea_dirac.graph.nodes import Key
from coffea_dirac.graph.plan import Found, reached
from coffea_dirac.graph.prints import Prints
from coffea_dirac.inputs.discovery import Checker
from coffea_dirac.interfaces import Discovered, Json, Row
from coffea_dirac.stages.rows import choose

# So much of what is to be loaded is held from the look-up on; the rest is read again where it is needed.
HELD_BYTES, HELD_EACH_BYTES, READ_BYTES = 256 << 20, 1 << 20, 64 << 20


class Kept(Protocol):
    """What a `StageCache` does for a look-up."""

    def look_up(self, keys: Iterable[str]) -> dict[str, list[Row]]: ...  # noqa: D102 - as StageCache has it
    def read(self, rows: Sequence[Row]) -> dict[Row, bytes]: ...  # noqa: D102


class LookUp:
    """Finds results for one plan, and reads and verifies each: a worker could not compute it after all.

    Parameters
    ----------
    kept : Kept
        The cache.

    Attributes
    ----------
    reasons : dict of str to mapping
        Fingerprint -> why what is kept under it is of no use.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept, self._checker, self._held_bytes = kept, Checker(), 0
        self.reasons: dict[str, Mapping[str, Json]] = {}

    def row(self, fingerprint: str) -> Row | None:
        """Return the row of a fingerprint that holds now."""
        return self._rows([fingerprint]).get(fingerprint)

    def __call__(self, wanted: Mapping[Key, str]) -> dict[Key, Found]:
        """Return what is kept and sound of some keys."""
        rows = self._rows(dict.fromkeys(wanted.values()))
        sound = self._verified(list(rows.values()))
        self.reasons.update({f: {"reason": "unreadable"} for f, row in rows.items() if row not in sound})
        return {key: sound[rows[f]] for key, f in wanted.items() if f in rows and rows[f] in sound}

    def _rows(self, fingerprints: Iterable[str]) -> dict[str, Row]:
        found = {}
        for fingerprint, candidates in self._kept.look_up(fingerprints).items():
            row, why = choose(candidates, self._checker, lambda name: "absent", {})
            if row is not None:
                found[fingerprint] = row
            elif why is not None:
                self.reasons[fingerprint] = why
        return found

    def _verified(self, rows: list[Row]) -> dict[Row, Found]:
        found: dict[Row, Found] = {}
        part, size = list[Row](), 0
        for i, row in enumerate(rows):
            part.append(row)
            size += row.length
            if size < READ_BYTES and i + 1 < len(rows):
                continue
            for one, payload in self._kept.read(part).items():
                found[one] = Found(one, payload if self._holds(len(payload)) else None)
            part, size = [], 0
        return found

    def _holds(self, size: int) -> bool:
        if size > HELD_EACH_BYTES or self._held_bytes + size > HELD_BYTES:
            return False
        self._held_bytes += size
        return True


class Outside:
    """A look-up that minds results which a cluster holds: what they came from is known only of those that are kept.

    What uses a result that is not kept yet is not loaded.  What uses a kept one is loaded if it was made knowing all
    that was discovered when that one was made.

    Parameters
    ----------
    prints : Prints
        Of the graph that uses such results.
    look_up : LookUp
        Finds what is kept.
    plain : collection of Key
        Values that were given to the cluster as they are: they come from nothing.
    """

    def __init__(self, prints: Prints, look_up: LookUp, plain: Collection[Key]) -> None:
        self._prints, self._look_up, self._plain = prints, look_up, plain
        self._rows: dict[Key, Row | None] = {}

    def __call__(self, wanted: Mapping[Key, str]) -> dict[Key, Found]:
        """Return what is kept and sound of some keys."""
        found = self._look_up(wanted)
        rows = self.rows()
        doubtful = {key for key, row in rows.items() if row is None or row.inputs}
        if not doubtful:
            return found
        return {key: one for key, one in found.items() if self._is_safe(key, one, doubtful)}

    def _is_safe(self, key: Key, found: Found, doubtful: set[Key]) -> bool:
        needed = [self._rows[k] for k in reached(self._prints.view, key, doubtful)]
        return all(row is not None and set(row.inputs) <= set(found.row.inputs) for row in needed)

    def rows(self) -> Mapping[Key, Row | None]:
        """Return the rows of the results from outside that have been met, None for those that are not kept."""
        for key in self._prints.outside.difference(self._rows, self._plain):
            self._rows[key] = self._look_up.row(self._prints.known[key])
        return self._rows

    def inputs(self) -> dict[Key, tuple[Discovered, ...]]:
        """Return what was discovered when they were made."""
        return {key: row.inputs for key, row in self.rows().items() if row is not None and row.inputs}
