"""Small analyses in coffea's dask mode, for a process of their own: ``python dask_mode.py CACHE SCHEDULER CASES FILE...``.

They run under coffea 2024 and newer, and print what came of them as JSON: the numbers, and how many results were loaded
and computed.  CASES are names with commas between.  SCHEDULER is ``sync``, ``threads``, ``distributed`` (a `DiracClient` on two worker processes) or ``plain``:
no cache.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import coffea
import dask
import dask_awkward as dak
import hist
import hist.dask
from coffea import dataset_tools
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory

from coffea_dirac import DiracClient, StageCache

MODE: dict[str, Any] = {"delayed": True} if coffea.__version__.startswith("2024") else {"mode": "dask"}
EDGES = (10, 0.0, 200.0)
CORRECTION = {
    "schema_version": 2,
    "corrections": [
        {
            "name": "scale",
            "version": 1,
            "inputs": [{"name": "pt", "type": "real"}],
            "output": {"name": "weight", "type": "real"},
            "data": {"nodetype": "formula", "expression": "1 + 0.001*x", "parser": "TFormula", "variables": ["pt"]},
        }
    ],
}


def events_of(files: list[str], **options: Any) -> Any:
    """Return the lazy events of files in two partitions each."""
    steps = {"object_path": "Events", "steps": [[0, 100], [100, 200]]}
    return NanoEventsFactory.from_root(
        dict.fromkeys(files, steps), schemaclass=NanoAODSchema, **MODE, **options
    ).events()


def leading(events: Any) -> Any:
    """Return pt of the hardest jet of events that have one, GeV."""
    return ak.drop_none(ak.firsts(events.Jet[events.Jet.pt > 20].pt))


def histogram(values: Any, **more: Any) -> Any:
    """Return a lazy histogram."""
    found = hist.dask.Hist.new.Reg(*EDGES, name="pt").Weight()
    found.fill(pt=values, **more)
    return found


def from_root(files: list[str]) -> Any:
    """Return arrays, numbers and a histogram of events."""
    events = events_of(files)
    pt = leading(events)
    return {"pt": pt, "sum": ak.sum(pt), "h": histogram(pt), "electrons": ak.num(events.Electron, axis=1)}


def correction(files: list[str]) -> Any:
    """Return a histogram weighted by a correction of correctionlib."""
    import correctionlib

    evaluator = correctionlib.CorrectionSet.from_string(json.dumps(CORRECTION))["scale"]
    pt = ak.values_astype(leading(events_of(files)), "float64")
    return {"h": histogram(pt, weight=evaluator.evaluate(pt)), "mean": ak.sum(evaluator.evaluate(pt))}


def report(files: list[str]) -> Any:
    """Return a histogram of files of which some may be unreadable, and the report of what could not be read."""
    events, found = events_of(files, uproot_options={"allow_read_errors_with_report": True})
    return {"h": histogram(leading(events)), "report": found}


def analysis(events: Any) -> Any:
    """Return what `fileset` computes of a dataset."""
    return {"n": ak.num(events, axis=0), "h": histogram(leading(events)), "dataset": events.metadata["dataset"]}


def fileset(files: list[str]) -> Any:
    """Return the output of ``apply_to_fileset`` for a dataset of each file; ``preprocess`` reads the files."""
    named = {Path(file).stem: {"files": {file: "Events"}} for file in files}
    ready, _ = dataset_tools.preprocess(named, step_size=100, align_clusters=False)
    return dataset_tools.apply_to_fileset(analysis, ready, schemaclass=NanoAODSchema)


def partitions(files: list[str]) -> Any:
    """Return arrays made by a function of the user's on each partition."""
    return {"pt": dak.map_partitions(leading, events_of(files))}


CASES: dict[str, Callable[[list[str]], Any]] = {
    f.__name__: f for f in (from_root, correction, report, fileset, partitions)
}


@contextmanager
def cached(cache: str, scheduler: str) -> Iterator[Any]:
    """Open the cache for a scheduler; yield the cache, or None."""
    if scheduler == "plain":
        with dask.config.set(scheduler="sync"):
            yield None
    elif scheduler == "distributed":
        with DiracClient(n_workers=2, threads_per_worker=1, dashboard_address=None, cache=cache) as client:
            yield client.cache
    else:
        with StageCache(cache) as found, dask.config.set(scheduler=scheduler):
            yield found


def as_json(value: Any) -> Any:
    """Return a result as JSON, exactly."""
    if isinstance(value, dict):
        return {str(k): errors_of(v) if k == "report" else as_json(v) for k, v in value.items()}
    if isinstance(value, hist.Hist):
        view = value.view(flow=True)
        return {"type": type(value).__name__, "value": view["value"].tolist(), "variance": view["variance"].tolist()}
    if isinstance(value, ak.Array):
        kind = str(ak.type(ak.without_parameters(value)))
        return {"type": kind, "parameters": value.layout.parameters, "value": value.to_list()}
    return value if isinstance(value, str) else {"type": type(value).__name__, "value": float(value)}


def errors_of(found: Any) -> Any:
    """Return what a report says of each partition, without the times."""
    return [row.get("exception") for row in found.to_list()]


def main() -> None:
    cache, scheduler, cases, *files = sys.argv[1:]
    warnings.simplefilter("ignore")
    NanoAODSchema.warn_missing_crossrefs = False
    found = {}
    for case in cases.split(","):
        with cached(cache, scheduler) as opened:
            (value,) = dask.compute(CASES[case](files))
            counts = opened.report.counts if opened is not None else None
        found[case] = {"value": as_json(value), "counts": counts}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
