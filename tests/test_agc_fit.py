"""The fit of the ttbar cross section, on templates whose best fit is known."""

from __future__ import annotations

from pathlib import Path

import hist
import numpy as np
import pytest
import uproot

from agc_example import fit
from agc_example.fit import FitError

# pyhf asks jsonschema for what newer ones do otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")
SHAPE = {"4j1b": 5000 * np.exp(-np.arange(25) / 8.0), "4j2b": 4000 * np.exp(-(((np.arange(25) - 6) / 5.0) ** 2)) + 50}
FLAT = np.full(25, 300.0)


def written(folder: Path, *, norm: float, bins: int = 25, without: str = "") -> Path:
    """Write templates of ttbar and W+jets, and pseudodata that is `norm` times ttbar, plus W+jets."""
    path = folder / "histograms.root"
    with uproot.recreate(path) as file:
        for region, shape in SHAPE.items():
            parts = {"ttbar": shape, "ttbar_ME_var": 1.05 * shape, "wjets": FLAT, "pseudodata": norm * shape + FLAT}
            for name, values in parts.items():
                histogram = hist.Hist.new.Reg(bins, 50, 550, name="observable").Weight()
                histogram.view()["value"], histogram.view()["variance"] = values[:bins], values[:bins] / 100
                if name != without:
                    file[f"{region}_{name}"] = histogram
    return path


@pytest.mark.parametrize("norm", [1.0, 1.3])
def test_the_fit_finds_the_normalisation_that_the_pseudodata_was_made_with(norm: float, tmp_path: Path) -> None:
    found = fit.fit(written(tmp_path, norm=norm))
    assert found.ttbar_norm == pytest.approx(norm, abs=0.01)
    assert 0.0 < found.uncertainty < 0.2
    assert set(found.pulls) == {"luminosity", "ME_variation"}
    assert all(abs(value) < 0.1 for value, _ in found.pulls.values())


def test_a_lack_of_pseudodata_is_named(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="no 4j1b_pseudodata: run over ttbar"):
        fit.fit(written(tmp_path, norm=1.0, without="pseudodata"))


def test_bins_that_do_not_make_those_of_the_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"bins of 31\.25 GeV do not make bins of 40 GeV"):
        fit.fit(written(tmp_path, norm=1.0, bins=16))
