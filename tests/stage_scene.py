"""An analysis in stages in a folder of its own: each run is a new process with another hash seed, and counts what ran.

The stages note each run in ``ran.txt``; what a report says is compared with that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from scenario import write_nano

ANALYSIS = """
import awkward as ak
from coffea import processor
from coffea_dirac import stage


def ran(name):
    with open("ran.txt", "a") as f:
        f.write(name + "\\n")


@stage
def a(events):
    ran("a")
    return {"pt": events.Jet.pt[events.Jet.pt > 30]}


@stage
def b(up):
    ran("b")
    return ak.sum(up["pt"], axis=1)


@stage
def c(events):
    ran("c")
    return events.Jet.eta * 1


@stage
def d(up):
    ran("d")
    return ak.num(up)


@stage
def y(left, right, scale):
    ran("y")
    return float(ak.sum(left)) * scale + float(ak.sum(right))


class Analysis(processor.ProcessorABC):
    def process(self, events):
        # before
        total = y(b(a(events)), d(c(events)), events.metadata["xsec"])
        return {"sum": total, "by": {events.metadata["dataset"]: [total]}}

    def postprocess(self, accumulator):
        return accumulator
"""
DRIVER = """
import json, sys, warnings
warnings.simplefilter("ignore")
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor, StageCache
NanoAODSchema.warn_missing_crossrefs = False


def main():
    import analysis
    how, work = sys.argv[1], analysis.Analysis()
    if how in ("inline", "workers"):
        options = {"inline": True} if how == "inline" else {"workers": 2}
        executor = DiracExecutor(cache="cache", status=False, **options)
    elif how == "wrapped inline":
        cache = StageCache("cache")
        executor, work = DiracExecutor(cache=cache, status=False, inline=True), cache.wrap(work)
        work.inner.cache = cache
    else:
        work = work if how == "plain" else StageCache("cache").wrap(work)
        kind = processor.FuturesExecutor if how == "futures" else processor.IterativeExecutor
        executor = kind(status=False)
    run = processor.Runner(executor=executor, chunksize=50, schema=NanoAODSchema, savemetrics=True)
    fileset = {name: {"files": [f"{name}.root"], "metadata": {"xsec": x}} for name, x in (("ttbar", 1.0), ("wjets", 2.0))}
    error = None
    try:
        out, metrics = run(fileset, work, treename="Events")
    except Exception as e:
        out, metrics, error = None, {"columns": []}, [type(e).__name__, str(e)]
    report = getattr(run.executor, "report", None)
    print("RESULT " + json.dumps({"out": out, "columns": sorted(metrics["columns"]), "error": error,
        "stages": report and report.stages, "why": report and report.stage_reasons, "items": report and report.work_items}))


if __name__ == "__main__":
    main()
"""


class Folder:
    """A folder with an analysis and a driver, which prints ``RESULT`` and what it has to say as JSON.

    Parameters
    ----------
    folder : Path
        Where they are written.
    analysis, driver : str
        Their texts.
    name : str
        The name of the analysis's module.
    """

    def __init__(self, folder: Path, analysis: str, driver: str, *, name: str = "analysis") -> None:
        self.folder, self._analysis, self._seed = folder, f"{name}.py", 0
        self.write(self._analysis, analysis)
        self.write("driver.py", driver)

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        (self.folder / name).write_text(text)

    def edit(self, old: str, new: str) -> None:
        """Replace what is in the analysis once."""
        text = (self.folder / self._analysis).read_text()
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        self.write(self._analysis, text.replace(old, new))

    def write_inputs(self) -> None:
        """Write the input files ``ttbar.root`` and ``wjets.root``."""
        for seed, name in enumerate(("ttbar", "wjets")):
            write_nano(self.folder / f"{name}.root", seed=seed)

    def told(self, *arguments: str) -> dict[str, Any]:
        """Run the driver; return what it said, and under ``ran`` how often each stage ran."""
        path = self.folder / "ran.txt"
        path.unlink(missing_ok=True)
        self._seed += 1
        done = subprocess.run(
            [sys.executable, "driver.py", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONHASHSEED": str(self._seed)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stderr
        found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
        found["ran"] = dict(Counter(path.read_text().split())) if path.exists() else {}
        return found


class Scene(Folder):
    """The analysis above, run by a Runner."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ANALYSIS, DRIVER)
        self.write_inputs()

    def run(self, how: str, *, dies: bool = False) -> dict[str, Any]:
        """Run with an executor; return what it said, and which stages ran."""
        found = self.told(how)
        if found["stages"] is not None and found["error"] is None and not dies:
            computed = {name: n["computed"] for name, n in found["stages"].items() if n["computed"]}
            assert computed == found["ran"], "the report and the stages disagree"
        return found
