"""A small analysis and its data: what the benchmarks run.  Workers import it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
import uproot
from coffea import processor
from coffea.nanoevents import NanoAODSchema

from benchmarks.pairs import Spent, Stopwatch

TREE = "Events"


class Schema(NanoAODSchema):
    """NanoAOD that does not warn of the collections that our files lack."""

    warn_missing_crossrefs = False


def run_once(executor: Any, fileset: Any, *, chunksize: int, analysis: Any = None, **options: Any) -> tuple[Spent, Any]:
    """Return what one Runner call spent, and its result; `options` are the Runner's."""
    run = processor.Runner(executor=executor, schema=Schema, chunksize=chunksize, **options)
    watch = Stopwatch()
    out = run(fileset, analysis or JetAnalysis(), treename=TREE)
    return watch.spent(), out


class JetAnalysis(processor.ProcessorABC):
    """One cut and one histogram: little work, so that what surrounds it is seen."""

    def process(self, events: Any) -> dict[str, Any]:
        """Return counts and a histogram of jets."""
        jets = events.Jet[events.Jet.pt > 30]
        h = hist.Hist.new.Reg(50, 0, 300, name="pt", label="Jet pt [GeV]").Weight()
        h.fill(pt=ak.flatten(jets.pt))
        return {"events": len(events), "pt": h, "expected": events.metadata["xsec"] * len(events)}

    def postprocess(self, accumulator: Any) -> Any:
        """Return what was merged."""
        return accumulator


class CountAnalysis(JetAnalysis):
    """The same histogram of a flat column: results as large, sooner there; for runs that only load them."""

    def process(self, events: Any) -> dict[str, Any]:
        """Return counts and a histogram of event numbers."""
        h = hist.Hist.new.Reg(50, 0, 300, name="pt", label="Jet pt [GeV]").Weight()
        h.fill(pt=np.asarray(events.event) % 300)
        return {"events": len(events), "pt": h, "expected": events.metadata["xsec"] * len(events)}


def write_file(path: Path, *, events: int, seed: int) -> str:
    """Write a NanoAOD-like file with a Jet collection and return its name."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(4, events)
    fields = ("pt", "eta", "phi", "mass")
    jets = ak.zip({f: ak.unflatten(rng.exponential(40, counts.sum()).astype("f4"), counts) for f in fields})
    numbers = {name: np.arange(events, dtype="u8") for name in ("run", "luminosityBlock", "event")}
    with uproot.recreate(path) as file:
        tree = file.mktree(TREE, {"Jet": jets.type, **{name: column.dtype for name, column in numbers.items()}})
        tree.extend({"Jet": jets, **numbers})
    return str(path)


def write_fileset(folder: Path, *, files: int, events: int) -> dict[str, Any]:
    """Write `files` files of `events` events each and return their fileset."""
    names = [write_file(folder / f"nano_{n}.root", events=events, seed=n) for n in range(files)]
    return {"jets": {"files": names, "metadata": {"xsec": 2.5}}}
