"""The same analysis again, unchanged, in a new process: DiracExecutor against coffea's SimpleCheckpointer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Point, Range, Spent, ratios, seconds, take_turns, wall
from benchmarks.session import Said, Session, run
from benchmarks.small import write_fileset

FILES, ITEMS, CHUNKSIZE, ROUNDS = 10, 1_000, 10, 3
TARGET_S, TARGET_RATIO = 1.5, 20.0
OURS, THEIRS = "DiracExecutor, warm", "SimpleCheckpointer, warm"


def lines(*, files: int = FILES, items: int = ITEMS, chunksize: int = CHUNKSIZE, rounds: int = ROUNDS) -> list[Line]:
    """Measure and return the table's lines."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        fileset = write_fileset(data, files=files, events=items * chunksize)
        both = _Both(fileset, chunksize, Path(folder))
        both.fill()
        known = both.measure(files * items, rounds, knows_metadata=True)
        unknown = both.measure(files * items, rounds, knows_metadata=False)
        one_file = both.of_first_file().measure(items, 1, knows_metadata=True)
    points = [Point(name, files * items, wall(spent)) for name, spent in known.items()]
    points += [Point(name, items, wall(spent)) for name, spent in one_file.items()]
    what = f"warm run of {files * items:,} work items in {files} files, new process, file metadata"
    faster = 1 / ratios(known[OURS], known[THEIRS]).median
    holds = wall(known[OURS]) <= TARGET_S and faster >= TARGET_RATIO
    target = f"at most {TARGET_S} s, {TARGET_RATIO:.0f} times faster"
    return [
        Line(f"{what} known", *_cells(known, rounds), target, holds, points),
        Line(f"{what} unknown", *_cells(unknown, rounds), "-", True),
    ]


def _cells(found: dict[str, list[Spent]], rounds: int) -> tuple[str, str, str]:
    ours, theirs = found[OURS], found[THEIRS]
    faster = Range.of([b.wall_s / a.wall_s for a, b in zip(ours, theirs, strict=True)])
    return seconds(ours), f"{seconds(theirs)} SimpleCheckpointer", f"{faster} times faster; {rounds} rounds"


class _Both:
    """Both peers over one fileset, each with its own folder of results."""

    def __init__(self, fileset: dict[str, Any], chunksize: int, folder: Path) -> None:
        self._fileset, self._chunksize, self._folder = fileset, chunksize, folder
        self._totals: set[float] = set()

    def of_first_file(self) -> _Both:
        """Return the same for the first file only."""
        fileset = {name: {**dataset, "files": dataset["files"][:1]} for name, dataset in self._fileset.items()}
        return _Both(fileset, self._chunksize, self._folder)

    def fill(self) -> None:
        """Make the results that are loaded later."""
        self._ours(0)()
        self._theirs(knows_metadata=False)()

    def measure(self, n_items: int, rounds: int, *, knows_metadata: bool) -> dict[str, list[Spent]]:
        """Return what both spend when every result is there."""

        def ours() -> Spent:
            if not knows_metadata:
                (self._folder / "cache" / "files.sqlite3").unlink()
            return self._ours(n_items)().spent

        theirs = self._theirs(knows_metadata=knows_metadata)
        return take_turns({OURS: ours, THEIRS: lambda: theirs().spent}, rounds=rounds, first_counts=True)

    def _ours(self, hits: int) -> Callable[[], Said]:
        session = Session(self._fileset, self._chunksize, cache=str(self._folder / "cache"), only_loads=True)
        return lambda: self._said(session, hits)

    def _theirs(self, *, knows_metadata: bool) -> Callable[[], Said]:
        checkpoints = str(self._folder / "checkpoints")
        session = Session(
            self._fileset, self._chunksize, checkpoints=checkpoints, knows_metadata=knows_metadata, only_loads=True
        )
        return lambda: self._said(session, 0)

    def _said(self, session: Session, hits: int) -> Said:
        said = run(session)
        if said is None or said.hits != hits:
            raise RuntimeError(f"{hits} work items should have been loaded: {said}")
        self._totals.add(said.total)
        if max(self._totals) - min(self._totals) > 1e-9 * max(self._totals):
            raise RuntimeError(f"the executors disagree: {sorted(self._totals)}")
        return said
