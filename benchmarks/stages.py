"""What stages cost and save: one call, and the ttbar analysis after the usual edits against itself without cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from agc_example import original
from agc_example.edits import EDITS, Edit, copy_of_package
from agc_example.generate import generate
from benchmarks.pairs import Line

CALLS, TARGET_US = 20_000, 50.0
# One work item for each file, as large as coffea makes them by itself.
EVENTS = CHUNKSIZE = 100_000
ROUNDS = 3
TARGET_COLD = 0.4
"""A cold run that keeps everything takes at most so much of the AGC's own class without cache."""
TARGETS = {
    "nothing": 0.03,
    "comment": 0.06,
    "binning": 0.08,
    "weight systematic": 0.12,
    "observable": 0.15,
    "model file": 0.2,
    "add a kinematic variation": 0.35,
    "undo": 0.03,
}
"""Edit -> at most so much of the processor time of the edited code without cache."""
DRIVER = """
import json, sys, time
from pathlib import Path
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from agc_example.analysis import TtbarAnalysis
from agc_example.inputs import fileset_from
from coffea_dirac import DiracExecutor
NanoAODSchema.warn_missing_crossrefs = False
inputs, cache, chunksize = sys.argv[1:]
executor = DiracExecutor(cache=cache or None, inline=True, status=False)
run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=int(chunksize), metadata_cache={})
fileset, analysis = fileset_from(Path(inputs)), TtbarAnalysis(use_ml=True)
started = time.process_time()
out = run(fileset, analysis, treename="Events")
print("CPU", time.process_time() - started, sum(out["events"].values()))
"""


ORIGINAL = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from agc_class import TtbarAnalysis
from agc_example.inputs import CROSS_SECTIONS, fileset_from
NanoAODSchema.warn_missing_crossrefs = False
executor = processor.IterativeExecutor(status=False)
run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=int(sys.argv[2]), metadata_cache={})
fileset = fileset_from(Path(sys.argv[1]))
for dataset in fileset.values():
    dataset["metadata"]["xsec"] = CROSS_SECTIONS[dataset["metadata"]["process"]]
analysis = TtbarAnalysis(use_inference=True, use_triton=False)
started = time.process_time()
out = run(fileset, analysis, treename="Events")
print("CPU", time.process_time() - started, sum(out["nevents"].values()))
"""


def call_us(calls: int) -> float:
    """Return the processor time of one call of a stage, microseconds; of its two arguments one is a handle."""
    from coffea_dirac import StageCache, stage

    @stage
    def add(x: object, y: int) -> object:
        return (x, y)

    with tempfile.TemporaryDirectory() as folder, StageCache(folder):
        first = add(0, 0)
        started = time.process_time()
        for n in range(calls):
            add(first, n)
        return (time.process_time() - started) / calls * 1e6


def cpu_s(folder: Path, inputs: Path, cache: Path | None, chunksize: int) -> float:
    """Return the processor time of the Runner's call in a new process, with the copy of the analysis in `folder`."""
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, str(inputs), str(cache or ""), str(chunksize)]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", "AGC_EXECUTIONS": os.devnull}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.rpartition("CPU ")[2].split()[0])


def original_cpu_s(inputs: Path, chunksize: int) -> float | None:
    """Return the processor time of the Runner's call with the AGC's own class; None without a checkout of it."""
    place = original.folder()
    if place is None:
        return None
    original.write_module(place / "ttbar_analysis_pipeline.py")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{place}{os.pathsep}{Path.cwd()}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", ORIGINAL, str(inputs), str(chunksize)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.rpartition("CPU ")[2].split()[0])


def against_original(ours: Sequence[float], inputs: Path, chunksize: int, what: str) -> Line:
    """Return the line that compares a cold run with the AGC's own class on the same files."""
    theirs = original_cpu_s(inputs, chunksize)
    seconds = f"{median(ours):.2f} s"
    if theirs is None:
        return Line(what, seconds, "not measured: AGC_ORIGINAL names no checkout", "-", "-", True)
    compared, holds = _ratios(ours, [theirs] * len(ours), TARGET_COLD)
    return Line(what, seconds, f"{theirs:.2f} s, the AGC's own class", compared, f"at most {TARGET_COLD}", holds)


def _ratios(ours: Sequence[float], theirs: Sequence[float], target: float | None) -> tuple[str, bool]:
    """Return the ratios of rounds as text, and whether the middle one is at most the target."""
    of_rounds = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    least, middle, most = of_rounds[0], median(of_rounds), of_rounds[-1]
    text = f"ratio {least:.3f} / {middle:.3f} / {most:.3f}; {len(of_rounds)} rounds"
    return text, target is None or middle <= target


class _Edits:
    """Edited copies of the analysis, each run by turns with a copy of a cache and without any."""

    def __init__(self, root: Path, inputs: Path, chunksize: int, rounds: int) -> None:
        self._root, self._inputs, self._chunksize, self._rounds = root, inputs, chunksize, rounds
        self.cache = root / "empty"
        """Where the last round of the last edit has kept its results."""
        self.cache.mkdir()

    def turns(self, edit: Edit, cache: Path) -> tuple[list[float], list[float]]:
        """Return the processor times with a copy of `cache`, and without any."""
        folder = self._root / edit.name
        edit.change(copy_of_package(folder))
        ours, theirs = [], []
        for number in range(self._rounds):
            self.cache = shutil.copytree(cache, folder / f"cache{number}")
            ours.append(cpu_s(folder, self._inputs, self.cache, self._chunksize))
            theirs.append(cpu_s(folder, self._inputs, None, self._chunksize))
        return ours, theirs


def lines(
    *,
    calls: int = CALLS,
    events: int = EVENTS,
    chunksize: int = CHUNKSIZE,
    rounds: int = ROUNDS,
    names: tuple[str, ...] = tuple(TARGETS),
) -> list[Line]:
    """Measure, and return the table's lines; `names` are those of the edits."""
    each = median(call_us(calls) for _ in range(5))
    what, target = f"{calls:,} calls, 5 times", f"under {TARGET_US:.0f} µs"
    found = [Line("call of a stage", f"{each:.0f} µs", "-", what, target, each < TARGET_US)]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        inputs = absolute(generate(root / "data", files=1, events=events))
        edits = _Edits(root, inputs, chunksize, rounds)
        title = f"AGC in stages, {9 * events:,} events, CPU of the Runner's call"
        first = Edit("first run")
        ours, theirs = edits.turns(first, edits.cache)
        original_cache = edits.cache
        found.append(against_original(ours, inputs, chunksize, f"{title}: cold, against the original"))
        found.append(_line(title, first, ours, theirs))
        for edit in (edit for edit in EDITS if edit.name in names):
            # Undone is what was done last; all else is done to the original.
            ours, theirs = edits.turns(edit, edits.cache if edit.name == "undo" else original_cache)
            found.append(_line(title, edit, ours, theirs))
    return found


def _line(title: str, edit: Edit, ours: Sequence[float], theirs: Sequence[float]) -> Line:
    target = TARGETS.get(edit.name)
    compared, holds = _ratios(ours, theirs, target)
    return Line(
        f"{title}: {edit.name}",
        f"{median(ours):.2f} s",
        f"{median(theirs):.2f} s without cache",
        compared,
        "-" if target is None else f"at most {target}",
        holds,
    )


def absolute(inputs: Path) -> Path:
    """Write the list of inputs with whole paths beside itself, and return where."""
    fileset = json.loads(inputs.read_text())
    for variations in fileset.values():
        for sample in variations.values():
            for file in sample["files"]:
                file["path"] = str(inputs.parent / file["path"])
    path = inputs.with_name("whole_paths.json")
    path.write_text(json.dumps(fileset))
    return path
