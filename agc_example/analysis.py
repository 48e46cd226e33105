"""The ttbar processor: events in, histograms by region, process and variation out.

It counts events with their systematic weights; what makes a cross section of it (luminosity, cross section, number of
events) is applied after merging, in `agc_example.output`, so that a file more does not recompute the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import correctionlib
import hist
import numpy as np
from coffea import processor

from agc_example import ml, systematics
from agc_example.observables import OBSERVABLES
from agc_example.selection import in_region, select

HERE = Path(__file__).parent
REGIONS = ("4j1b", "4j2b")
BINS, LOW, HIGH = 25, 50.0, 550.0
"""Binning of the observables, GeV (AGC ttbar task)."""


def empty_histogram(bins: int, low: float, high: float, label: str) -> hist.Hist:
    """Return an empty histogram of an observable by process and variation."""
    return (
        hist.Hist.new.Reg(bins, low, high, name="observable", label=label)
        .StrCat([], name="process", growth=True)
        .StrCat([], name="variation", growth=True)
        .Weight()
    )


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
        self.corrections = HERE / "corrections.json"
        self.models = {"even": HERE / "models" / "even.json", "odd": HERE / "models" / "odd.json"}

    def process(self, events: Any) -> dict[str, Any]:
        """Return the histograms of one work item; ``events.metadata`` names process and variation."""
        process, variation = events.metadata["process"], events.metadata["variation"]
        out = self._empty()
        for name, jet_pt in systematics.KINEMATIC.items():
            # Samples that are a variation themselves have no further ones.
            if variation != "nominal" and name != "nominal":
                continue
            selected = select(events, jet_pt(events))
            self._fill(out, process, name if variation == "nominal" else variation, selected, variation == "nominal")
        out["events"] = {f"{process}__{variation}": len(events)}
        return out

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the accumulator as it is."""
        return accumulator

    def _empty(self) -> dict[str, Any]:
        labels = {"4j1b": r"$H_T$ [GeV]", "4j2b": r"$m_{bjj}$ [GeV]"}
        out: dict[str, Any] = {"hist_dict": {r: empty_histogram(BINS, LOW, HIGH, labels[r]) for r in REGIONS}}
        if self.use_ml:
            out["ml_hist_dict"] = {n: empty_histogram(BINS, low, high, label) for n, low, high, label in ml.FEATURES}
        return out

    def _fill(self, out: dict[str, Any], process: str, name: str, selected: dict[str, Any], has_weights: bool) -> None:
        """Fill one kinematic variation; weight systematics reuse its nominal selection and inference."""
        for region in REGIONS:
            chosen = in_region(selected, region)
            columns = {None: OBSERVABLES[region](chosen["jets"])}
            if self.use_ml and region == "4j2b":
                columns |= self._ml_columns(chosen)
            for variation, weight in self._weights(process, name, chosen["jets"], has_weights).items():
                for feature, values in columns.items():
                    target = out["hist_dict"][region] if feature is None else out["ml_hist_dict"][feature]
                    target.fill(observable=values, process=process, variation=variation, weight=weight)

    def _weights(self, process: str, name: str, jets: Any, has_weights: bool) -> dict[str, Any]:
        found = {name: np.ones(len(jets))}
        if has_weights and name == "nominal":
            corrections = correctionlib.CorrectionSet.from_file(str(self.corrections))
            for systematic in systematics.weight_names(process):
                for direction in ("up", "down"):
                    weight = systematics.weights(corrections, systematic, direction, jets)
                    found[f"{systematic}_{direction}"] = weight
        return found

    def _ml_columns(self, chosen: dict[str, Any]) -> dict[Any, Any]:
        features, counts = ml.features(chosen["jets"], chosen["electrons"], chosen["muons"])
        models = {parity: ml.load_model(path) for parity, path in self.models.items()}
        best = ml.best(features, counts, chosen["is_even"], models)
        return {name: best[:, i] for i, (name, *_) in enumerate(ml.FEATURES)}
