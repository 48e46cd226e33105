"""Cold runs of many small work items: DiracExecutor against coffea's DaskExecutor, on the same two workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Point, Spent, cpu_ratios, ratios, seconds, take_turns, wall
from benchmarks.small import run_once, write_fileset

CHUNKSIZE = 100
SIZES = ((1, 200, 4), (10, 200, 2))
"""Files, work items in each, and rounds."""
TARGET = 0.8


def measure(client: Any, *, files: int, items: int, rounds: int, chunksize: int = CHUNKSIZE) -> dict[str, list[Spent]]:
    """Return what each executor spent; each run of DiracExecutor begins with an empty cache.

    Raises
    ------
    RuntimeError
        The executors disagree, or something was loaded.
    """
    from coffea import processor

    from coffea_dirac import DiracExecutor

    results = []

    def ours() -> Spent:
        with tempfile.TemporaryDirectory() as cache:
            executor = DiracExecutor(client=client, cache=cache, status=False)
            spent, out = run_once(executor, fileset, chunksize=chunksize)
        if executor.report is None or executor.report.work_items != {"hits": 0, "misses": files * items}:
            raise RuntimeError(f"this run should have been cold: {executor.report}")
        results.append(out["pt"].sum().value)
        return spent

    def peer(executor: Callable[[], Any]) -> Callable[[], Spent]:
        def run() -> Spent:
            spent, out = run_once(executor(), fileset, chunksize=chunksize)
            results.append(out["pt"].sum().value)
            return spent

        return run

    measures = {
        "DiracExecutor": ours,
        "DaskExecutor": peer(lambda: processor.DaskExecutor(client=client, status=False)),
        "FuturesExecutor": peer(lambda: processor.FuturesExecutor(workers=2, status=False)),
    }
    with tempfile.TemporaryDirectory() as folder:
        fileset = write_fileset(Path(folder), files=files, events=items * chunksize)
        # The second size finds workers that have imported everything.
        found = take_turns(measures, rounds=rounds, first_counts=files > 1)
    if max(results) - min(results) > 1e-9 * max(results):
        raise RuntimeError(f"the executors disagree: {sorted(set(results))}")
    return found


def lines(*, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> list[Line]:
    """Measure and return the table's lines."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return [line for size in sizes for line in _lines(client, *size)]


def _lines(client: Any, files: int, items: int, rounds: int) -> list[Line]:
    found = measure(client, files=files, items=items, rounds=rounds)
    ours = found["DiracExecutor"]
    what = f"cold run of {files * items:,} small work items in {files} file{'s' * (files > 1)}, 2 workers"
    points = [Point(f"{name}, cold", files * items, wall(spent)) for name, spent in found.items()]
    lines = []
    for name in ("DaskExecutor", "FuturesExecutor"):
        against = ratios(ours, found[name])
        target, holds = (f"at most {TARGET}", against.median <= TARGET) if name == "DaskExecutor" else ("-", True)
        compared = f"ratio {against}, of CPU {cpu_ratios(ours, found[name])}; {rounds} rounds"
        lines.append(Line(what, seconds(ours), f"{seconds(found[name])} {name}", compared, target, holds, points))
        points = []
    return lines
