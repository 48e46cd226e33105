"""Where the time of a cold run goes: the AGC analysis in this process, processor time by layer.

Usage: ``python -m benchmarks.where [events in a work item] [--ml]``.  The layers are timed by a clock around the
functions that enter them, each without the layers inside it; a profiler would make the many small calls of a processor
look larger than they are.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

FILES, EVENTS, CHUNKSIZE = 1, 60_000, 15_000
REST = "all else: bundles, ledger, report, the Runner"
LAYERS: Mapping[str, tuple[str, ...]] = {
    # Not around the analysis itself: its fingerprint would be another one.
    "user code, and the watch over what it reads": (
        "coffea_dirac.stages.staged:StagedProcessor.process",
        "coffea_dirac.stages.staged:StagedProcessor.process_without_data",
    ),
    "reading columns (uproot)": ("coffea.nanoevents.mapping.uproot:UprootSourceMapping.extract_column",),
    "opening files, once for each bundle": ("coffea_dirac.worker.reading:Reader._opened",),
    "making events (NanoEvents)": ("coffea_dirac.worker.reading:Reader.open",),
    "digests of what user code has read": ("coffea_dirac.worker.work:_all_inputs",),
    "results to bytes (codecs)": ("coffea_dirac.codecs:encode",),
    "records to packs": (
        "coffea_dirac.worker.shelf:Shelf.keep",
        "coffea_dirac.worker.shelf:Shelf.close",
        "coffea_dirac.stages.evaluation:Evaluator._keep",
    ),
    "merging, bytes to results included": (
        "coffea_dirac.worker.fold:merge_group",
        "coffea_dirac.running.merging:Merging.result",
    ),
    "plan: identities, fingerprint, look-up": ("coffea_dirac.running.run:make_plan",),
    "checking the fingerprint at the worker": ("coffea_dirac.worker.task:Tasks.get",),
}
"""What enters each layer."""


class Clock:
    """Processor seconds by layer, each without the layers inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside = [REST]
        self._since = time.process_time()

    def switch(self) -> None:
        """Give the time since the last switch to the layer that we are in."""
        now = time.process_time()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    @contextmanager
    def layer(self, name: str) -> Iterator[None]:
        """Be in a layer for a while."""
        self.switch()
        self._inside.append(name)
        try:
            yield
        finally:
            self.switch()
            self._inside.pop()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is timed as a part of a layer."""

        def timed(*args: Any, **options: Any) -> Any:
            with self.layer(name):
                return function(*args, **options)

        return timed


def measure(fileset: Any, *, chunksize: int, ml: bool) -> tuple[dict[str, float], int]:
    """Return the processor seconds of each layer of one cold run, and how many work items it had."""
    from coffea import processor
    from coffea.nanoevents import NanoAODSchema

    from agc_example.analysis import TtbarAnalysis
    from coffea_dirac import DiracExecutor

    NanoAODSchema.warn_missing_crossrefs = False
    with tempfile.TemporaryDirectory() as cache, ExitStack() as timed:
        executor = DiracExecutor(cache=cache, inline=True, status=False)
        run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=chunksize)
        clock = Clock()
        for name, places in LAYERS.items():
            for place in places:
                timed.enter_context(_timed(clock, name, place))
        run(fileset, TtbarAnalysis(use_ml=ml), treename="Events")
        clock.switch()
    assert executor.report is not None, "it has run"
    return {name: clock.seconds[name] for name in (*LAYERS, REST)}, executor.report.work_items["misses"]


def _timed(clock: Clock, name: str, place: str) -> Any:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return mock.patch.object(owner, last, clock.around(name, getattr(owner, last)))


def table(seconds: Mapping[str, float], n_items: int) -> str:
    """Return the layers as a table of seconds, shares and milliseconds for each work item.

    Examples
    --------
    >>> print(table({"user code": 3.0, "all else": 1.0}, 10))
    | layer | CPU, s | share | ms for each work item |
    |---|---:|---:|---:|
    | user code | 3.00 | 75.0 % | 300.0 |
    | all else | 1.00 | 25.0 % | 100.0 |
    | **all** | 4.00 | 100 % | 400.0 |
    """
    total = sum(seconds.values())
    head = ["| layer | CPU, s | share | ms for each work item |", "|---|---:|---:|---:|"]
    rows = [f"| {k} | {s:.2f} | {s / total:.1%} | {s / n_items * 1e3:.1f} |" for k, s in seconds.items()]
    rows = [row.replace("% |", " % |") for row in rows]
    return "\n".join([*head, *rows, f"| **all** | {total:.2f} | 100 % | {total / n_items * 1e3:.1f} |"])


def main() -> None:
    """Measure twice, since the first run imports and compiles, and print the second."""
    from agc_example.generate import generate
    from agc_example.inputs import fileset_from

    asked = argparse.ArgumentParser(description="Where the time of a cold AGC run goes.")
    asked.add_argument("chunksize", nargs="?", type=int, default=CHUNKSIZE)
    asked.add_argument("--ml", action="store_true")
    asked.add_argument("--events", type=int, default=EVENTS)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fileset = fileset_from(generate(Path(folder), files=FILES, events=options.events))
        for _ in range(2):
            seconds, n_items = measure(fileset, chunksize=options.chunksize, ml=options.ml)
    print(f"{n_items} work items of {options.chunksize:,} events, ml={options.ml}\n\n{table(seconds, n_items)}")


if __name__ == "__main__":
    main()
