"""The ttbar analysis as a dask graph: ``python -m agc_example.graph --help``.

It makes lazy histograms of dask-awkward arrays, for `coffea.dataset_tools`.  Selection, observables and systematics are
those of the processor; what differs is that nothing runs before ``dask.compute``.  The jet assignment by boosted
decision trees is left to the processor: it works on numpy arrays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import awkward as ak
import correctionlib
import dask
import dask_awkward as dak
import hist.dask
import typer
from coffea import dataset_tools, processor
from coffea.nanoevents import NanoAODSchema

from agc_example import systematics
from agc_example.analysis import BINS, HERE, HIGH, LABELS, LOW, REGIONS
from agc_example.inputs import TREE, fileset_from
from agc_example.observables import OBSERVABLES
from agc_example.selection import good_leptons, has_one_lepton, in_region, select


class Scheduler(StrEnum):
    """Where the graph is computed."""

    sync = "sync"
    threads = "threads"
    distributed = "distributed"


def histograms(events: Any) -> dict[str, Any]:
    """Return the lazy histograms of a dataset, in the form of the processor's output.

    Parameters
    ----------
    events : dask_awkward.Array
        Events in coffea's mode ``dask``; ``metadata`` names process and variation.

    Returns
    -------
    dict
        ``hist_dict`` holds a lazy histogram for each region, ``events`` the lazy number of events.
    """
    process, variation = events.metadata["process"], events.metadata["variation"]
    nominal = variation == "nominal"
    jet_pt = systematics.KINEMATIC if nominal else {variation: systematics.KINEMATIC["nominal"]}
    one = has_one_lepton(good_leptons(events))
    # Each variation of the jets is one node: what it does inside is of no interest to the graph.
    chosen = {name: select(events, one, dak.map_partitions(of_events, events)) for name, of_events in jet_pt.items()}
    corrections = correctionlib.CorrectionSet.from_file(str(HERE / "corrections.json"))
    names = systematics.weight_names(process) if nominal else ()
    found = {}
    for region in REGIONS:
        jets = {name: in_region(one, region)["jets"] for name, one in chosen.items()}
        found[region] = _empty(region)
        for name, of_region in jets.items():
            weights = _weights(corrections, names, of_region) if name == "nominal" else {}
            _fill(found[region], process, name, dak.map_partitions(OBSERVABLES[region], of_region), weights)
    return {"hist_dict": found, "events": {f"{process}__{variation}": ak.num(events, axis=0)}}


def _weights(corrections: Any, names: tuple[str, ...], jets: Any) -> dict[str, Any]:
    pt = {name: systematics.varied_pt(name, jets) for name in names}
    return {
        f"{name}_{direction}": systematics.weights(corrections, name, direction, pt[name])
        for name in names
        for direction in ("up", "down")
    }


def _empty(region: str) -> Any:
    return (
        hist.dask.Hist.new.Reg(BINS, LOW, HIGH, name="observable", label=LABELS[region])
        .StrCat([], name="process", growth=True)
        .StrCat([], name="variation", growth=True)
        .Weight()
    )


def _fill(histogram: Any, process: str, name: str, values: Any, weights: Mapping[str, Any]) -> None:
    histogram.fill(observable=values, process=process, variation=name, weight=ak.ones_like(values))
    for variation, weight in weights.items():
        histogram.fill(observable=values, process=process, variation=variation, weight=weight)


def preprocessed(fileset: Mapping[str, Any], *, chunksize: int = 200_000) -> Any:
    """Return a fileset with the steps of its files, as coffea's Runner cuts them into work items: all of one length.

    Parameters
    ----------
    fileset : mapping
        As `agc_example.inputs.fileset_from` returns it.
    chunksize : int
        Events in a partition, at most.
    """
    named = {
        name: {"files": dict.fromkeys(dataset["files"], dataset.get("treename", TREE)), "metadata": dataset["metadata"]}
        for name, dataset in fileset.items()
    }
    given = dataset_tools.DataGroupSpec.model_validate(named)
    ready, _ = dataset_tools.preprocess(given, step_size=chunksize, align_clusters=False)
    return ready


def graph_of(ready: Any) -> dict[str, Any]:
    """Return the lazy output of each dataset of a preprocessed fileset: `merged` adds up what is computed."""
    NanoAODSchema.warn_missing_crossrefs = False
    out: dict[str, Any] = dataset_tools.apply_to_fileset(histograms, ready, schemaclass=NanoAODSchema)
    return out


def merged(computed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sum of the outputs of all datasets, in the form that the processor's run returns."""
    out: dict[str, Any] = processor.accumulate(list(computed.values()))
    return out


@contextmanager
def through(cache: str | Path, scheduler: Scheduler) -> Iterator[Any]:
    """Let ``dask.compute`` go through a cache and a scheduler; yield the cache."""
    from coffea_dirac import DiracClient, StageCache

    if scheduler is Scheduler.distributed:
        with DiracClient(n_workers=2, threads_per_worker=1, dashboard_address=None, cache=cache) as client:
            yield client.cache
    else:
        with StageCache(cache) as opened, dask.config.set(scheduler=scheduler.value):
            yield opened


def main(
    inputs: Annotated[Path, typer.Option(help="The AGC's own list of inputs, or a coffea fileset, as JSON.")],
    cache: Annotated[Path, typer.Option(help="Where results are kept.")] = Path("agc_graph_cache"),
    scheduler: Annotated[Scheduler, typer.Option(help="Where the graph is computed.")] = Scheduler.threads,
    chunksize: Annotated[int, typer.Option(help="Events in a partition.")] = 200_000,
    output: Annotated[Path, typer.Option(help="Where histograms and plots go.")] = Path("agc_output"),
    summary: Annotated[Path | None, typer.Option(help="Write what was loaded and computed to this JSON file.")] = None,
) -> None:
    """Run the AGC ttbar analysis as a dask graph, and write histograms and plots."""
    from agc_example.run import Result, finish

    fileset = fileset_from(inputs)
    started = time.perf_counter()
    with through(cache, scheduler) as opened:
        (computed,) = dask.compute(graph_of(preprocessed(fileset, chunksize=chunksize)))
        counts = dict(opened.report.counts)
    result = Result(merged(computed), None, time.perf_counter() - started)
    typer.echo(f"{counts} in {result.wall_s:.1f} s")
    for path in finish(result, fileset, output):
        typer.echo(f"wrote {path}")
    if summary is not None:
        summary.write_text(json.dumps(counts) + "\n")


if __name__ == "__main__":
    typer.run(main)
