"""Running again after a crash: the submitter is killed (``kill -9``) when 60 % of the work items are done.

Both runs start workers first, which takes as long for either and is shown beside them.  The analysis is so large that
the 40 % which are left take several times as long as that: of one that ends in seconds nobody would miss the rest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Spent, cpu_ratios, ratios, seconds, take_turns
from benchmarks.session import Said, Session, run
from benchmarks.small import write_fileset

FILES, ITEMS, CHUNKSIZE, ROUNDS = 20, 300, 100, 2
DIE_AT, TARGET = 0.6, 0.45


def lines(*, files: int = FILES, items: int = ITEMS, chunksize: int = CHUNKSIZE, rounds: int = ROUNDS) -> list[Line]:
    """Measure whole runs and runs after a crash, each in a new process, and return the table's line."""
    hits = []
    with tempfile.TemporaryDirectory() as folder:
        fileset = write_fileset(Path(folder), files=files, events=items * chunksize)

        def cold() -> Spent:
            return _finished(fileset, chunksize).spent

        def resumed() -> Spent:
            said = _finished(fileset, chunksize, die_at=DIE_AT)
            hits.append(said.hits)
            return said.spent

        def started() -> Spent:
            first = {name: {**dataset, "files": dataset["files"][:1]} for name, dataset in fileset.items()}
            # One work item for each worker.
            return _finished(first, items * chunksize // 2).spent

        measures = {"resumed": resumed, "cold": cold, "started": started}
        found = take_turns(measures, rounds=rounds, first_counts=True)
    against = ratios(found["resumed"], found["cold"])
    cpu = cpu_ratios(found["resumed"], found["cold"])
    n = files * items
    return [
        Line(
            f"{n:,} small work items again after kill -9 of the submitter at {DIE_AT:.0%}, new process, 2 workers",
            seconds(found["resumed"]),
            f"{seconds(found['cold'])} cold, {seconds(found['started'])} with two work items",
            f"ratio {against}, of CPU {cpu}; {min(hits) / n:.0%} were kept or more; {rounds} rounds",
            f"at most {TARGET}",
            against.median <= TARGET,
        )
    ]


def _finished(fileset: dict[str, Any], chunksize: int, *, die_at: float = 0.0) -> Said:
    with tempfile.TemporaryDirectory() as cache:
        if die_at and run(Session(fileset, chunksize, cache=cache, die_at=die_at)) is not None:
            raise RuntimeError("the first run should have been killed and came to its end")
        said = run(Session(fileset, chunksize, cache=cache))
        if said is None or (said.hits > 0) != (die_at > 0):
            raise RuntimeError(f"not the run that was asked for: {said}")
        return said
