"""Planning only: what a run knows of very many work items before it computes the first; nothing is processed."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Point

SIZES = (250_000, 500_000, 1_000_000)
ITEMS_PER_FILE, FILES_PER_DATASET, ENTRIES = 1_000, 100, 100
TARGET_GB, TARGET_LINEAR = 2.0, 1.25


def work_items(n: int) -> Iterator[Any]:
    """Yield `n` synthetic work items, as the Runner makes them: those of a file share its metadata."""
    from coffea.processor.executor import WorkItem

    for start in range(0, n, ITEMS_PER_FILE):
        file = start // ITEMS_PER_FILE
        dataset, uuid, metadata = f"dataset_{file // FILES_PER_DATASET}", file.to_bytes(16, "big"), {"xsec": 2.5}
        name = f"root://store.example.org//jets/nano_{file}.root"
        for i in range(min(ITEMS_PER_FILE, n - start)):
            yield WorkItem(dataset, name, "Events", i * ENTRIES, (i + 1) * ENTRIES, uuid, metadata)


class KnownFiles:
    """Stands in for the file metadata memo: answers for files that do not exist."""

    def identify_all(self, wanted: Collection[tuple[str, str]], how: Any) -> dict[tuple[str, str], Any]:
        """Return an identity for each file and tree."""
        from coffea_dirac.inputs.identity import FileIdentity

        entries = ITEMS_PER_FILE * ENTRIES
        return {name: FileIdentity(hashlib.sha256(name[0].encode()).hexdigest(), entries) for name in wanted}


def plan(n: int) -> dict[str, float]:
    """Plan `n` work items in this process; return the seconds and the most memory it has used, in GB."""
    from benchmarks.small import JetAnalysis, Schema
    from coffea_dirac.cache import StageCache
    from coffea_dirac.calls import ProcessingCall
    from coffea_dirac.report import Report
    from coffea_dirac.running.computing import Computing
    from coffea_dirac.running.merging import Merging
    from coffea_dirac.running.plan import Run, make_plan
    from coffea_dirac.running.run import expect, make_task
    from coffea_dirac.running.workers import Workers

    items = list(work_items(n))
    arguments = {"format": "root", "schema": Schema, "uproot_options": {}, "iteritems_options": {}}
    call = ProcessingCall(len, processor=JetAnalysis(), arguments=arguments)
    with tempfile.TemporaryDirectory() as folder:
        started, report = time.perf_counter(), Report()
        cache = StageCache(Path(folder) / "cache")
        session = cache.begin()
        run = Run(Workers(None, None, None, inline=True), cache, KnownFiles(), set())  # type: ignore[arg-type]
        expect(report, items, {})
        found = make_plan(run, call, items)
        task = make_task(run, call, found, session)
        merging = Merging(found, task, cache, report)
        computing = Computing(run, found, merging, task, report, lambda n: None)
        computing.add(merging.survey())
        seconds = time.perf_counter() - started
        cache.end()
    if len(computing.waiting) != n or len(set(found.keys)) != n:
        raise RuntimeError(f"{n} work items should wait, each with a key of its own: {len(computing.waiting)} do")
    return {"seconds": seconds, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def lines(*, sizes: tuple[int, ...] = SIZES) -> list[Line]:
    """Measure each size in a new process and return the table's line."""
    found = {}
    for n in sizes:
        program = f"import json; from benchmarks.million import plan; print(json.dumps(plan({n})))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
        found[n] = json.loads(done.stdout.splitlines()[-1])
    first, last = min(sizes), max(sizes)
    per_item = {n: f"{one['seconds'] / n * 1e6:.1f} µs" for n, one in found.items()}
    growth = (found[last]["seconds"] / last) / (found[first]["seconds"] / first)
    holds = found[last]["gb"] < TARGET_GB and growth <= TARGET_LINEAR
    return [
        Line(
            f"planning of {last:,} work items: keys, look-ups, merge tree; nothing is processed",
            f"{found[last]['seconds']:.1f} s, peak memory {found[last]['gb']:.2f} GB",
            "-",
            "for each item " + ", ".join(f"{cost} of {n:,}" for n, cost in per_item.items()),
            f"under {TARGET_GB:.0f} GB, linear (at most {TARGET_LINEAR} times more for each item)",
            holds,
            [Point("DiracExecutor, planning only", n, one["seconds"]) for n, one in found.items()],
        )
    ]
