"""From nothing to a result: a script with one small file, in a fresh process each time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.pairs import Line, Pairs, interleave
from benchmarks.small import write_fileset

EVENTS, PAIRS = 20_000, 7
TARGET_S = 1.0
SCRIPT = """
from benchmarks.cold import run_once
{imports}

if __name__ == "__main__":
    seconds, out = run_once({executor}, {fileset!r}, chunksize=100_000)
    assert out["events"] == {events}, out
"""
OURS = "DiracExecutor(status=False)"
THEIRS = "processor.FuturesExecutor(workers=2, status=False)"


def measure(*, events: int = EVENTS, pairs: int = PAIRS) -> Pairs:
    """Return the seconds that whole processes take, with DiracExecutor (cold cache) as A and FuturesExecutor as B."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fileset = write_fileset(folder, files=1, events=events)
        scripts = {}
        for key, executor, imports in (
            ("ours", OURS, "from coffea_dirac import DiracExecutor"),
            ("theirs", THEIRS, "from coffea import processor"),
        ):
            scripts[key] = folder / f"{key}.py"
            scripts[key].write_text(SCRIPT.format(imports=imports, executor=executor, fileset=fileset, events=events))
        return interleave(lambda: _seconds(scripts["ours"]), lambda: _seconds(scripts["theirs"]), pairs=pairs)


def _seconds(script: Path) -> float:
    with tempfile.TemporaryDirectory() as cache:
        root = str(Path(__file__).parent.parent)
        environment = {
            **os.environ,
            "COFFEA_DIRAC_CACHE": cache,
            "COFFEA_DIRAC_WORKERS": "2",
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, str(script)], env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - started


def lines(**sizes: int) -> list[Line]:
    """Measure and return the table's line."""
    found = measure(**sizes)
    return [
        Line(
            "a script with one small file, whole process, empty cache, 2 workers of this machine",
            f"{median(found.a):.2f} s",
            f"{median(found.b):.2f} s (FuturesExecutor)",
            f"difference {found.difference_s:+.2f} s ({len(found.a)} pairs)",
            f"at most {TARGET_S:.0f} s more",
            found.difference_s <= TARGET_S,
        )
    ]
