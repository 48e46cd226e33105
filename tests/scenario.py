"""Run a small analysis in a fresh process and see what it returned and what it recomputed.

A `Scenario` is a folder with an analysis module, a helper module, input files and a cache; a test edits a file in it and
runs again.  Every run is a new process with another hash seed.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

ANALYSIS = """
import json
import awkward as ak
from coffea import processor
import helper


class Base:
    scale = 2.0


class Analysis(Base, processor.ProcessorABC):
    def process(self, events):
        jets = events.Jet[helper.good(events.Jet)]
        with open("weights.json") as f:
            weight = json.load(f)["weight"]
        total = float(ak.sum(jets.pt)) * self.scale * weight
        return {"n": len(events), "sum": total, "xsec": events.metadata["xsec"] * len(events)}

    def postprocess(self, accumulator):
        return accumulator
"""

HELPER = """
CUT = 30


def good(jets):
    return jets.pt > CUT
"""

DRIVER = """
import json, os, sys, time, warnings
from coffea import processor
from coffea.nanoevents import BaseSchema, NanoAODSchema
from coffea_dirac import DiracExecutor
NanoAODSchema.warn_missing_crossrefs = False
{before}
def main():
    import analysis
    options = json.loads({options!r})
    runner = {{"chunksize": 50, "schema": NanoAODSchema, "savemetrics": False, **options.pop("runner", {{}})}}
    fileset = json.loads({fileset!r})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        {make}
        run = processor.Runner(executor=executor, **runner)
        try:
            out, error = run(fileset, {processor}, treename="Events"), None
        except Exception as e:
            out, error = None, [type(e).__name__, str(e)]
    report = run.executor.report
    plain = None
    if {compare} and error is None:
        plain_run = processor.Runner(executor=processor.IterativeExecutor(status=False), **runner)
        plain = plain_run(fileset, {processor}, treename="Events")
    print("RESULT " + json.dumps({{
        "out": out, "error": error, "plain": plain,
        "work_items": report.work_items if report else None,
        "counts": report.counts if report else None,
        "merged": report.merged if report else None,
        "reasons": report.reasons if report else None,
        "notes": report.notes if report else None,
        "complete": report.complete if report else None,
        "missing": report.missing if report else None,
        "warnings": [str(w.message) for w in seen if "CacheWarning" in type(w.message).__name__],
    }}, default=lambda v: sorted(map(str, v)) if isinstance(v, set) else str(v)))


{after}
if __name__ == "__main__":
    main()
"""

_seeds = itertools.count(1)


@dataclass
class Result:
    """What one process printed about its run."""

    out: Any
    plain: Any
    error: list[str] | None
    work_items: dict[str, int]
    counts: dict[str, int]
    merged: int
    reasons: list[tuple[str, int]]
    notes: list[str]
    complete: bool
    missing: dict[str, list[str]]
    warnings: list[str]
    stderr: str = ""

    @property
    def misses(self) -> int:
        return self.work_items["misses"]

    @property
    def hits(self) -> int:
        return self.work_items["hits"]


def write_nano(path: Path, *, events: int = 100, seed: int = 1, tree: str = "Events", shift: float = 0.0) -> Path:
    """Write a small file with a Jet collection and an event number; content follows from `seed` and `shift`."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, events)
    jets = ak.zip(
        {
            "pt": ak.unflatten((rng.exponential(30, counts.sum()) + shift).astype("f4"), counts),
            **{f: ak.unflatten(rng.normal(0, 2, counts.sum()).astype("f4"), counts) for f in ("eta", "phi", "mass")},
        }
    )
    with uproot.recreate(path) as file:
        ids = {"run": "u4", "luminosityBlock": "u4", "event": "u8"}
        out = file.mktree(tree, {"Jet": jets.type, **{name: np.dtype(t) for name, t in ids.items()}})
        out.extend({"Jet": jets, **{name: np.arange(events, dtype=t) for name, t in ids.items()}})
    return path


class Scenario:
    """A folder with an analysis; `run` runs it in a new process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("analysis.py", ANALYSIS)
        self.write("helper.py", HELPER)
        self.write("weights.json", '{"weight": 3.0}')
        write_nano(folder / "one.root", seed=1)
        write_nano(folder / "two.root", seed=2)
        self.fileset: dict[str, Any] = {
            "ttbar": {"files": ["one.root"], "metadata": {"xsec": 2.5, "unread": 1}},
            "wjets": {"files": ["two.root"], "metadata": {"xsec": 1.5, "unread": 1}},
        }

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new))

    def run(
        self,
        *,
        make: str = "executor = DiracExecutor(**{'cache': 'cache', 'inline': True, 'status': False, **options})",
        processor: str = "analysis.Analysis()",
        before: str = "",
        after: str = "",
        fileset: dict[str, Any] | None = None,
        python: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        timeout: float = 120,
        compare: bool = False,
        **options: Any,
    ) -> Result:
        """Run the analysis in a new process and return what it said.

        Keyword options go to DiracExecutor, `runner` to Runner; with `compare` coffea's IterativeExecutor then runs the same
        in the same process, without any cache, and `Result.plain` is what it returned.
        """
        script = DRIVER.format(
            options=json.dumps(options),
            fileset=json.dumps(fileset or self.fileset),
            make=make,
            processor=processor,
            before=before,
            after=after,
            compare=compare,
        )
        self.write("driver.py", script)
        environment = {**os.environ, "PYTHONHASHSEED": str(next(_seeds)), "OMP_NUM_THREADS": "1", **(env or {})}
        done = subprocess.run(
            [sys.executable, *python, "driver.py"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, f"the run said nothing (exit {done.returncode}):\n{done.stdout}\n{done.stderr}"
        return Result(**json.loads(lines[-1].removeprefix("RESULT ")), stderr=done.stderr)
