"""From nothing to a result: a script with one small file, in a fresh process each time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import Line, Range, Spent, Stopwatch, seconds, take_turns
from benchmarks.small import write_fileset

EVENTS, ROUNDS = 20_000, 7
TARGET_S = 1.0
SCRIPT = """
from benchmarks.small import run_once
{imports}

if __name__ == "__main__":
    spent, out = run_once({executor}, {fileset!r}, chunksize=100_000)
    assert out["events"] == {events}, out
"""
OURS = "DiracExecutor(status=False)"
THEIRS = "processor.FuturesExecutor(workers=2, status=False)"


def measure(*, events: int = EVENTS, rounds: int = ROUNDS) -> dict[str, list[Spent]]:
    """Return what whole processes spend, with DiracExecutor and an empty cache, and with FuturesExecutor."""
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
        return take_turns(
            {"ours": lambda: _spent(scripts["ours"]), "theirs": lambda: _spent(scripts["theirs"])}, rounds=rounds
        )


def _spent(script: Path) -> Spent:
    with tempfile.TemporaryDirectory() as cache:
        root = str(Path(__file__).parent.parent)
        environment = {
            **os.environ,
            "COFFEA_DIRAC_CACHE": cache,
            "COFFEA_DIRAC_WORKERS": "2",
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }
        watch = Stopwatch()
        subprocess.run(
            [sys.executable, str(script)], env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL
        )
        return watch.spent()


def lines(**sizes: int) -> list[Line]:
    """Measure and return the table's line."""
    found = measure(**sizes)
    more = Range.of([a.wall_s - b.wall_s for a, b in zip(found["ours"], found["theirs"], strict=True)])
    return [
        Line(
            "a script with one small file, whole process, empty cache, 2 workers of this machine",
            seconds(found["ours"]),
            f"{seconds(found['theirs'])} FuturesExecutor",
            f"difference {more} s; {len(found['ours'])} rounds",
            f"at most {TARGET_S:.0f} s more",
            more.median <= TARGET_S,
        )
    ]
