"""Stages of which one needs a GPU, in a processor that is run at workers; each stage notes the process it runs in."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coffea import processor
from coffea.nanoevents import NanoAODSchema
from distributed import Client
from scenario import write_nano

from coffea_dirac import DiracExecutor
from coffea_dirac.errors import ProcessingError

ALL = {"select": 4, "features": 4, "score": 4, "number": 4, "total": 4}
OTHERS = ("select", "features", "number", "total")
ANALYSIS = """
import os
import awkward as ak
from coffea import processor
from coffea_dirac import stage


def ran(name):
    with open("FOLDER/ran.txt", "a") as f:
        f.write(f"{name} {os.getpid()}\\n")


@stage
def select(events):
    ran("select")
    return events.Jet.pt[events.Jet.pt > 30]


@stage(keep=False)
def features(pt):
    ran("features")
    return ak.sum(pt, axis=1)


@stage(resources={"GPU": 1})
def score(values):
    ran("score")
    return values * 2


@stage
def number(events):
    ran("number")
    return len(events)


@stage
def total(scores):
    ran("total")
    return float(ak.sum(scores))


class Analysis(processor.ProcessorABC):
    def process(self, events):
        # before
        return {"sum": total(score(features(select(events)))), "n": number(events)}

    def postprocess(self, accumulator):
        return accumulator
"""


@dataclass
class Ran:
    """What a run returned, and how often each stage ran in which of the client's workers."""

    out: Any
    error: str
    report: Any
    ran: dict[str, int]
    where: dict[str, set[str]]


class Scene:
    """An analysis in a module of its own, run in this process with workers elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"analysis_{folder.name}"
        self.path = folder / f"{self.name}.py"
        self.path.write_text(ANALYSIS.replace("FOLDER", str(folder)))
        self.inline = self.run(None, cache=None).out

    def edit(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert text.count(old) == 1
        self.path.write_text(text.replace(old, new))
        self.inline = self.run(None, cache=None).out

    def run(self, client: Client | None, **options: Any) -> Ran:
        sys.modules.pop(self.name, None)
        work = importlib.import_module(self.name).Analysis()
        (self.folder / "ran.txt").unlink(missing_ok=True)
        for seed, name in enumerate(("ttbar", "wjets")):
            if not (self.folder / f"{name}.root").exists():
                write_nano(self.folder / f"{name}.root", seed=seed)
        where = {"client": client} if client is not None else {"inline": True}
        executor = DiracExecutor(**{"cache": self.folder / "cache", "status": False, **where, **options})
        run = processor.Runner(executor=executor, chunksize=50, schema=NanoAODSchema, metadata_cache={})
        fileset = {name: {"files": [str(self.folder / f"{name}.root")]} for name in ("ttbar", "wjets")}
        out, error = None, ""
        try:
            out = run(fileset, work, treename="Events")
        except ProcessingError as e:
            error = str(e)
        return Ran(out, error, executor.report, *self._ran(client))

    @property
    def done(self) -> dict[str, int]:
        """How often each stage ran in the last run."""
        return dict(Counter(name for name, _ in self._lines()))

    def _lines(self) -> list[list[str]]:
        path = self.folder / "ran.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def _ran(self, client: Client | None) -> tuple[dict[str, int], dict[str, set[str]]]:
        lines = self._lines()
        names = {os.getpid(): "here"}
        if client is not None:
            pids = client.run(os.getpid)
            workers = client.scheduler_info(n_workers=-1)["workers"]
            names |= {pid: str(workers[address]["id"]) for address, pid in pids.items()}
        where: dict[str, set[str]] = {}
        for name, pid in lines:
            where.setdefault(name, set()).add(names.get(int(pid), "died"))
        return self.done, where
