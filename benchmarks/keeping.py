"""What keeping costs: cold runs of the AGC ttbar analysis with a cache and without, on the same workers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Spent, Stopwatch, cpu_ratios, ratios, seconds, take_turns

FILES, EVENTS, CHUNKSIZE, ROUNDS = 1, 60_000, 15_000, 4
TARGET = 1.03


def lines(*, files: int = FILES, events: int = EVENTS, chunksize: int = CHUNKSIZE, rounds: int = ROUNDS) -> list[Line]:
    """Measure and return the table's line."""
    from agc_example.generate import generate
    from agc_example.inputs import fileset_from

    totals = []
    with tempfile.TemporaryDirectory() as folder:
        fileset = fileset_from(generate(Path(folder), files=files, events=events))

        def kept() -> Spent:
            with tempfile.TemporaryDirectory() as cache:
                return _analyse(fileset, cache, chunksize, totals)

        measures = {"kept": kept, "not kept": lambda: _analyse(fileset, None, chunksize, totals)}
        found = take_turns(measures, rounds=rounds)
    if len(set(totals)) != 1:
        raise RuntimeError(f"the runs disagree: {sorted(set(totals))}")
    against, cpu = ratios(found["kept"], found["not kept"]), cpu_ratios(found["kept"], found["not kept"])
    n_items = sum(len(dataset["files"]) for dataset in fileset.values()) * -(-events // chunksize)
    return [
        Line(
            f"cold AGC run, {n_items} work items, results kept or not, 2 workers",
            seconds(found["kept"]),
            f"{seconds(found['not kept'])} DiracExecutor(cache=None)",
            f"ratio {against}, of CPU {cpu}; {rounds} rounds",
            f"at most {TARGET}",
            against.median <= TARGET,
        )
    ]


def _analyse(fileset: dict[str, Any], cache: str | None, chunksize: int, totals: list[float]) -> Spent:
    """Run the analysis; a folder to keep results in must be empty."""
    from coffea import processor
    from coffea.nanoevents import NanoAODSchema

    from agc_example.analysis import TtbarAnalysis
    from coffea_dirac import DiracExecutor

    NanoAODSchema.warn_missing_crossrefs = False
    executor = DiracExecutor(cache=cache, workers=2, status=False)
    run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=chunksize)
    watch = Stopwatch()
    out = run(fileset, TtbarAnalysis(), treename="Events")
    spent = watch.spent()
    if executor.report is None or executor.report.work_items["hits"]:
        raise RuntimeError(f"this run should have been cold: {executor.report}")
    totals.append(float(sum(out["events"].values())))
    return spent
