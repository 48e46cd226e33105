"""What a key costs: the fingerprint of a large processor, once in a run, and one hash for each further work item."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks.pairs import Line

PROCESSES, ITEMS = 7, 20_000
TARGET_MS, TARGET_US = 50.0, 20.0


def first_and_again() -> tuple[float, float]:
    """Return the milliseconds of the first fingerprint of the AGC processor in this process, and of later ones."""
    from coffea.nanoevents import NanoAODSchema

    from agc_example.analysis import TtbarAnalysis
    from coffea_dirac.calls import ProcessingCall
    from coffea_dirac.worker.task import template_of

    arguments = {"format": "root", "schema": NanoAODSchema, "uproot_options": {}, "iteritems_options": {}}
    call = ProcessingCall(len, processor=TtbarAnalysis(use_ml=True), arguments=arguments)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        template_of(call)
        seconds.append(time.perf_counter() - started)
    return seconds[0] * 1e3, median(seconds[1:]) * 1e3


def item_key_us(items: int = ITEMS) -> float:
    """Return the microseconds that the key of one further work item takes."""
    from coffea_dirac.running.plan import item_key

    template, identity = "a" * 64, "b" * 64
    started = time.perf_counter()
    for n in range(items):
        item_key(template, identity, "Events", n, n + 1, None)
    return (time.perf_counter() - started) / items * 1e6


def lines(*, processes: int = PROCESSES, items: int = ITEMS) -> list[Line]:
    """Measure, the processor in fresh processes, and return the table's lines."""
    program = "from benchmarks.fingerprint import first_and_again; print(*first_and_again())"
    found = []
    for _ in range(processes):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
        found.append([float(word) for word in done.stdout.split()[-2:]])
    first, again = (median(column) for column in zip(*found, strict=True))
    each = median(item_key_us(items) for _ in range(5))
    what = "fingerprint of the AGC processor with its ML, schema and options"
    return [
        Line(
            f"{what}, first in a process",
            f"{first:.0f} ms",
            "-",
            f"{processes} processes",
            f"under {TARGET_MS:.0f} ms",
            first < TARGET_MS,
        ),
        Line(f"{what}, again", f"{again:.0f} ms", "-", f"{processes} processes", "-", True),
        Line(
            "key of each further work item",
            f"{each:.1f} µs",
            "-",
            f"{items:,} keys, 5 times",
            f"under {TARGET_US:.0f} µs",
            each < TARGET_US,
        ),
    ]
