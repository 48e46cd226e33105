"""The ttbar processor: events in, histograms by region, process and variation out.

It is written in stages, and each depends on what it needs and nothing more: the variation of the jets is an argument,
so that one more does not touch the others; weights are those of the nominal selection; the binning is known to the
histograms only.

It counts events with their systematic weights; what makes a cross section of it (luminosity, cross section, number of
events) is applied after merging, in `agc_example.output`, so that a file more does not recompute the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import correctionlib
import hist
import numpy as np
from coffea import processor

from agc_example import ml, systematics
from agc_example.histograms import Axis, histograms
from agc_example.observables import OBSERVABLES
from agc_example.selection import (
    good_leptons,
    has_one_lepton,
    in_region,
    momenta_of_leptons,
    place_among,
    select,
)
from coffea_dirac import File, stage

HERE = Path(__file__).parent
REGIONS = ("4j1b", "4j2b")
BINS, LOW, HIGH = 25, 50.0, 550.0
"""Binning of the observables, GeV (AGC ttbar task)."""
LABELS = {"4j1b": r"$H_T$ [GeV]", "4j2b": r"$m_{bjj}$ [GeV]"}


@stage
def count(events: Any) -> int:
    """Return the number of events."""
    return len(events)


@stage(keep=False)
def leptons(events: Any) -> dict[str, Any]:
    """Return which leptons are good: all variations of the jets share them."""
    return good_leptons(events)


@stage
def one_lepton(good: dict[str, Any]) -> Any:
    """Return whether each event has one good lepton."""
    return np.asarray(has_one_lepton(good))


@stage
def lepton_momenta(events: Any, good: dict[str, Any], one: Any) -> Any:
    """Return the momenta of the leptons of events that have one: only the models ask for them."""
    return momenta_of_leptons(events, good, one)


@stage(keep=False)
def objects(events: Any, one: Any, jet_pt: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the selected objects, with the jets' pt as a variation makes it, and the place of each event's lepton.

    Not kept: of columns that no other stage asks for not even those of the selected events are read.
    """
    return select(events, one, jet_pt(events), lepton=place_among(one))


@stage
def selected(of_events: dict[str, Any]) -> dict[str, Any]:
    """Return what observables and weights need of the selected events."""
    return {"jets": ak.without_field(of_events["jets"], "qgl"), "b_jets": np.asarray(of_events["b_jets"])}


@stage
def selected_for_ml(of_events: dict[str, Any], momenta: Any) -> dict[str, Any]:
    """Return the selected objects of events in 4j2b: the models ask for more of them than observables do."""
    found = in_region(of_events, "4j2b")
    return {**found, "lepton": momenta[found["lepton"]]}


@stage
def observable(chosen: dict[str, Any], region: str, of_jets: Callable[[Any], Any]) -> Any:
    """Return the observable of a region's events, GeV, shape (events in the region,)."""
    return np.asarray(of_jets(in_region(chosen, region)["jets"]), dtype=np.float64)


@stage
def event_weights(chosen: dict[str, Any], systematic: str, corrections: File) -> dict[str, dict[str, Any]]:
    """Return the weights of a systematic by region and direction, each of shape (events in the region,)."""
    found = correctionlib.CorrectionSet.from_file(str(corrections))
    pt = {region: systematics.varied_pt(systematic, in_region(chosen, region)["jets"]) for region in REGIONS}
    return {
        region: {
            direction: np.asarray(systematics.weights(found, systematic, direction, pt[region]))
            for direction in ("up", "down")
        }
        for region in REGIONS
    }


@stage
def ml_features(chosen: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return features of all assignments, how many of them each event has, and whether it is even."""
    features, counts = ml.features(chosen["jets"], chosen["lepton"])
    return features, counts, np.asarray(chosen["is_even"])


@stage
def ml_best(features: tuple[Any, Any, Any], models: Mapping[str, File]) -> Any:
    """Return the features of each event's best assignment, shape (events in 4j2b, 20)."""
    values, counts, is_even = features
    return ml.best(values, counts, is_even, {parity: ml.load_model(Path(file)) for parity, file in models.items()})


@stage
def filled(process: str, region: str, axis: Axis, values: Any, weights: Any) -> hist.Hist:
    """Return the histogram of a region's observable.

    Parameters
    ----------
    axis : tuple
        Bins, lowest and highest edge, label.
    values : dict
        Variation -> the observable of its events.
    weights : dict
        Systematic -> what `event_weights` returned; they apply to the nominal events.
    """
    columns = {variation: of_events[:, np.newaxis] for variation, of_events in values.items()}
    return histograms([axis], process, columns, _of_region(weights, region))[0]


@stage
def filled_features(process: str, axes: tuple[Any, ...], values: Any, weights: Any) -> dict[str, hist.Hist]:
    """Return the histograms of all features; as for `filled`, with values of shape (events in 4j2b, 20)."""
    binned = [(BINS, low, high, label) for _, low, high, label in axes]
    found = histograms(binned, process, values, _of_region(weights, "4j2b"))
    return {name: one for (name, *_), one in zip(axes, found, strict=True)}


def _of_region(weights: Mapping[str, Any], region: str) -> dict[str, Any]:
    """Return the weights of the nominal events in a region by variation."""
    return {
        f"{systematic}_{direction}": weight
        for systematic, by_region in weights.items()
        for direction, weight in by_region[region].items()
    }


class TtbarAnalysis(processor.ProcessorABC):  # type: ignore[misc]
    """Selects semileptonic ttbar candidates and fills histograms for all systematic variations.

    Parameters
    ----------
    use_ml : bool
        Also assign jets to partons by a boosted decision tree and fill its 20 input features.

    Examples
    --------
    >>> TtbarAnalysis().use_ml
    False
    """

    def __init__(self, *, use_ml: bool = False) -> None:
        self.use_ml = use_ml
        self.corrections = File(str(HERE / "corrections.json"))
        self.models = {parity: File(str(HERE / "models" / f"{parity}.json")) for parity in ("even", "odd")}

    def process(self, events: Any) -> dict[str, Any]:
        """Return the histograms of one work item; ``events.metadata`` names process and variation."""
        process, variation = events.metadata["process"], events.metadata["variation"]
        good = leptons(events)
        one = one_lepton(good)
        found = self._objects(events, one, variation)
        chosen = {name: selected(of_events) for name, of_events in found.items()}
        weights = self._weights(process, chosen) if variation == "nominal" else {}
        out: dict[str, Any] = {
            "hist_dict": {region: self._histogram(region, process, chosen, weights) for region in REGIONS},
            "events": {f"{process}__{variation}": count(events)},
        }
        if self.use_ml:
            momenta = lepton_momenta(events, good, one)
            for_ml = {name: selected_for_ml(of_events, momenta) for name, of_events in found.items()}
            best = {name: ml_best(ml_features(some), self.models) for name, some in for_ml.items()}
            out["ml_hist_dict"] = filled_features(process, ml.FEATURES, best, weights)
        return out

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the accumulator as it is."""
        return accumulator

    def _objects(self, events: Any, one: Any, variation: str) -> dict[str, Any]:
        """Return the selected objects by variation; samples that are a variation themselves have no further ones."""
        if variation != "nominal":
            return {variation: objects(events, one, systematics.KINEMATIC["nominal"])}
        return {name: objects(events, one, jet_pt) for name, jet_pt in systematics.KINEMATIC.items()}

    def _weights(self, process: str, chosen: dict[str, Any]) -> dict[str, Any]:
        """Return weights by systematic: they reuse the nominal selection and inference."""
        names = systematics.weight_names(process)
        return {name: event_weights(chosen["nominal"], name, self.corrections) for name in names}

    def _histogram(self, region: str, process: str, chosen: dict[str, Any], weights: dict[str, Any]) -> Any:
        values = {name: observable(one, region, OBSERVABLES[region]) for name, one in chosen.items()}
        return filled(process, region, (BINS, LOW, HIGH, LABELS[region]), values, weights)
