"""A run over several sites: files at one site each, and an analysis that notes where each of its work items ran."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coffea import processor
from coffea.nanoevents import NanoAODSchema
from scenario import write_nano

from coffea_dirac import DiracCluster, DiracExecutor, resolve

ENTRIES, CHUNK = 200, 10
ITEMS = ENTRIES // CHUNK
ANALYSIS = """
import os, time
import awkward as ak
from coffea import processor
from HELPER import number


def said(text):
    with open("FOLDER/ran.txt", "a") as f:
        f.write(text + "\\n")


class Analysis(processor.ProcessorABC):
    def process(self, events):
        site, name = os.environ["DIRACSITE"], events.metadata["filename"].rpartition("/")[2]
        said(f"{site} {name}:{events.metadata['entrystart']}")
        BODY
        return {"n": number(events), "sum": float(ak.sum(events.Jet.pt))}

    def postprocess(self, accumulator):
        return accumulator
"""


class Scene:
    """Files of `ENTRIES` entries, and an analysis whose `body` tests fill in.

    Parameters
    ----------
    folder : Path
        Where all is written.
    start : callable
        Returns a cluster from how many workers there are at each site.
    near : mapping
        Site -> the storage that is near.
    """

    def __init__(self, folder: Path, start: Callable[..., DiracCluster], near: Mapping[str, str]) -> None:
        self.folder, self._start, self._near = folder, start, near
        self.module, self.helper = f"analysis_{folder.name}", f"helper_{folder.name}"
        (folder / f"{self.helper}.py").write_text("def number(events):\n    return len(events)\n")
        self.cluster: DiracCluster | None = None

    def files(self, **sites: str) -> dict[str, Any]:
        """Return a fileset of logical files, each at one RSE, and write them."""
        listing: dict[str, Any] = {}
        for seed, (name, rse) in enumerate(sites.items()):
            path = self.folder / f"{name}.root"
            write_nano(path, seed=seed, events=ENTRIES)
            listing[f"mc:{name}.root"] = {"replicas": {rse: f"file://{path}"}}
        return dict(resolve({"all": "mc:all"}, catalog={"mc:all": listing}, sites=self._near))

    def up(self, sites: Mapping[str, int], *, site: str = "", workers: int | None = None) -> str:
        """Start the cluster and wait for its workers, or for so many; return the first one's name at a site."""
        if self.cluster is None:
            self.cluster = self._start(sites)
            self.cluster.wait_for(sum(sites.values()) if workers is None else workers, timeout=200)
        rows = self.cluster.table()
        return next((str(row["worker"]) for row in rows if row["site"] == site), "")

    def run(
        self, fileset: Any, sites: Mapping[str, int], body: str = "pass", *, workers: int | None = None, **options: Any
    ) -> tuple[Any, Any]:
        """Return (output, executor) of a run with workers at these sites, all of them up unless so many will do."""
        text = (
            ANALYSIS.replace("FOLDER", str(self.folder))
            .replace("HELPER", self.helper)
            .replace("BODY", body.replace("\n", "\n        "))
        )
        (self.folder / f"{self.module}.py").write_text(text)
        for name in (self.module, self.helper):
            sys.modules.pop(name, None)
        self.up(sites, workers=workers)
        executor = DiracExecutor(**{"cache": None, "cluster": self.cluster, "status": False, **options})
        run = processor.Runner(executor=executor, chunksize=CHUNK, schema=NanoAODSchema, metadata_cache={})
        return run(fileset, __import__(self.module).Analysis(), treename="Events"), executor

    @property
    def ran(self) -> list[list[str]]:
        """[site, file:entry] of each time that ``process`` ran."""
        path = self.folder / "ran.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
