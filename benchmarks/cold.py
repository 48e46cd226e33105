"""A cold run of many small work items: DiracExecutor against coffea's DaskExecutor, on the same two workers."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pairs import Line, Pairs, interleave
from benchmarks.small import TREE, JetAnalysis, Schema, write_fileset

FILES, EVENTS, CHUNKSIZE, PAIRS = 10, 20_000, 1_000, 9
TARGET = 1.0


def run_once(executor: Any, fileset: Any, *, chunksize: int) -> tuple[float, Any]:
    """Return the seconds of one Runner call, and its result."""
    from coffea import processor

    run = processor.Runner(executor=executor, schema=Schema, chunksize=chunksize)
    started = time.perf_counter()
    out = run(fileset, JetAnalysis(), treename=TREE)
    return time.perf_counter() - started, out


def measure(*, files: int = FILES, events: int = EVENTS, chunksize: int = CHUNKSIZE, pairs: int = PAIRS) -> Pairs:
    """Return the seconds of both executors, DiracExecutor as A; each of its runs begins with an empty cache.

    Raises
    ------
    RuntimeError
        The two disagree, or something was loaded.
    """
    from coffea import processor
    from distributed import Client, LocalCluster

    from coffea_dirac import DiracExecutor

    results = []

    def ours() -> float:
        with tempfile.TemporaryDirectory() as cache:
            executor = DiracExecutor(client=client, cache=cache, status=False)
            seconds, out = run_once(executor, fileset, chunksize=chunksize)
        if executor.report is None or executor.report.work_items["hits"]:
            raise RuntimeError(f"this run should have been cold: {executor.report}")
        results.append(out["pt"].sum().value)
        return seconds

    def theirs() -> float:
        seconds, out = run_once(processor.DaskExecutor(client=client, status=False), fileset, chunksize=chunksize)
        results.append(out["pt"].sum().value)
        return seconds

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        fileset = write_fileset(Path(folder), files=files, events=events)
        found = interleave(ours, theirs, pairs=pairs)
    if len(set(results)) != 1:
        raise RuntimeError(f"the executors disagree: {sorted(set(results))}")
    return found


def lines(**sizes: int) -> list[Line]:
    """Measure and return the table's line."""
    found = measure(**sizes)
    items = sizes.get("files", FILES) * -(-sizes.get("events", EVENTS) // sizes.get("chunksize", CHUNKSIZE))
    spread = f"{min(found.ratios):.2f} to {max(found.ratios):.2f}, {len(found.a)} pairs"
    return [
        Line(
            f"cold run of {items} small work items, 2 workers of one LocalCluster",
            f"{median(found.a):.2f} s",
            f"{median(found.b):.2f} s (DaskExecutor)",
            f"ratio {found.ratio:.2f} ({spread})",
            f"at most {TARGET:.1f}",
            found.ratio <= TARGET,
        )
    ]
