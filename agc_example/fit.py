"""Fit the cross section of ttbar to the pseudodata: ``python -m agc_example.fit HISTOGRAMS``.

The statistical model is that of the AGC's ttbar task: both regions, one free normalisation of ttbar, and nuisance
parameters for the variations. cabinetry builds it, pyhf holds it, minuit finds the best fit. Where the bins begin, how
wide they are and how minuit is tried was chosen on the demo's own histograms, so that the fit converges: it shows the
last step of an analysis and is no measurement.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import hist
import typer
import uproot

from agc_example.output import STACK

LOWEST = {"4j1b": 150.0, "4j2b": 110.0}
"""Region -> where the fit begins, GeV: with less there are hardly any events, and variations that are no small ones."""
WIDTH = 40.0
"""Width of the bins of the fit, GeV: finer ones fluctuate too much."""
REGIONS = tuple(LOWEST)
LUMINOSITY_UNCERTAINTY = 0.03
"""Relative uncertainty of the luminosity (AGC ttbar task)."""
_OF_TTBAR = {"ME_variation": "ME_var", "PS_variation": "PS_var"}
_OF_JETS = {"jet_energy_scale": "pt_scale_up", "jet_energy_resolution": "pt_res_up"}
_OF_WEIGHTS = {f"btag_{i}": f"btag_var_{i}" for i in range(4)}


class FitError(ValueError):
    """Histograms that cannot be fitted; the message names what they lack."""


@dataclass(frozen=True)
class Fitted:
    """What a fit found.

    Attributes
    ----------
    ttbar_norm, uncertainty : float
        Measured over predicted cross section of ttbar, and its uncertainty.
    pulls : mapping
        Nuisance parameter -> (value, uncertainty), in units of the uncertainty before the fit.
    """

    ttbar_norm: float
    uncertainty: float
    pulls: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        return f"ttbar_norm = {self.ttbar_norm:.3f} +- {self.uncertainty:.3f}"


def fit(path: Path) -> Fitted:
    """Fit the histograms of a ``histograms.root``.

    Raises
    ------
    FitError
        There is no ttbar or no pseudodata in one of the regions, the bins do not suit, or the fit does not converge.
    """
    with uproot.open(path) as file:
        coarse = {name: _rebinned(histogram.to_hist(), LOWEST[name[:4]]) for name, histogram in file.items(cycle=False)}
    for region in REGIONS:
        if lacking := {f"{region}_ttbar", f"{region}_pseudodata"} - coarse.keys():
            raise FitError(
                f"{path} has no {' and no '.join(sorted(lacking))}: run over ttbar (nominal, ME_var, PS_var) and wjets"
            )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        with uproot.recreate(Path(folder) / "coarse.root") as file:
            for name, histogram in coarse.items():
                file[name] = histogram
        return _fitted(configuration(set(coarse), Path(folder)))


def _rebinned(histogram: hist.Hist, lowest: float) -> hist.Hist:
    width = float(histogram.axes[0].widths[0])
    factor = round(WIDTH / width)
    if factor < 1 or abs(factor * width - WIDTH) > 1e-9 * WIDTH:
        raise FitError(f"bins of {width:g} GeV do not make bins of {WIDTH:g} GeV: choose a width that divides it")
    return histogram[hist.loc(lowest) :: hist.rebin(factor)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let cabinetry and pyhf be silent: they comment on each bin without events, and what fails is raised."""
    loggers = [logging.getLogger(name) for name in ("cabinetry", "pyhf")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def configuration(names: set[str], folder: Path) -> dict[str, Any]:
    """Return cabinetry's configuration for the histograms named in ``coarse.root`` of a folder.

    What no event fell into has no histogram, and is no part of the model.
    """
    samples: list[dict[str, Any]] = [{"Name": "pseudodata", "SamplePath": "pseudodata", "Data": True}]
    for process in STACK:
        regions = [region for region in REGIONS if f"{region}_{process}" in names]
        if regions:
            samples.append({"Name": process, "SamplePath": process, "Regions": regions})
    return {
        "General": {
            "Measurement": "ttbar",
            "POI": "ttbar_norm",
            "InputPath": f"{folder / 'coarse.root'}:{{RegionPath}}_{{SamplePath}}{{VariationPath}}",
            "VariationPath": "",
            "HistogramFolder": str(folder / "templates"),
        },
        "Regions": [{"Name": region, "RegionPath": region, "Variable": "observable"} for region in REGIONS],
        "Samples": samples,
        "NormFactors": [{"Name": "ttbar_norm", "Samples": "ttbar", "Nominal": 1, "Bounds": [0, 10]}],
        "Systematics": list(_systematics(samples[1:], names)),
    }


def _systematics(samples: list[dict[str, Any]], names: set[str]) -> Iterator[dict[str, Any]]:
    processes = [sample["Name"] for sample in samples]
    yield {
        "Name": "luminosity",
        "Type": "Normalization",
        "Samples": processes,
        "Up": {"Normalization": LUMINOSITY_UNCERTAINTY},
        "Down": {"Normalization": -LUMINOSITY_UNCERTAINTY},
    }
    wanted: list[tuple[str, list[str], str, str | None]]
    wanted = [(name, ["ttbar"], variation, None) for name, variation in _OF_TTBAR.items()]
    wanted += [("ttbar_scale", ["ttbar"], "scaleup", "scaledown")]
    wanted += [(name, processes, variation, None) for name, variation in _OF_JETS.items()]
    wanted += [(name, processes, f"{v}_up", f"{v}_down") for name, v in _OF_WEIGHTS.items()]
    wanted += [("wjets_scale", ["wjets"], "scale_var_up", "scale_var_down")]
    regions = {sample["Name"]: sample["Regions"] for sample in samples}
    for name, of_processes, higher, lower in wanted:
        templates = [variation for variation in (higher, lower) if variation]
        whole = [
            process
            for process in of_processes
            if process in regions
            and all(f"{region}_{process}_{t}" in names for region in regions[process] for t in templates)
        ]
        if whole:
            yield {
                "Name": name,
                "Type": "NormPlusShape",
                "Samples": whole,
                "Up": {"VariationPath": f"_{higher}"},
                "Down": {"VariationPath": f"_{lower}"} if lower else {"Symmetrize": True},
            }


def _fitted(config: dict[str, Any]) -> Fitted:
    import cabinetry
    import pyhf

    cabinetry.templates.collect(config, method="uproot")
    cabinetry.templates.postprocess(config)
    model, data = cabinetry.model_utils.model_and_data(cabinetry.workspace.build(config))
    # Neither strategy of minuit converges always; whether one did is checked each time.
    for strategy in (1, 0):
        try:
            found = cabinetry.fit.fit(model, data, strategy=strategy, maxiter=20_000)
            break
        except pyhf.exceptions.FailedMinimization as error:
            reason = error
    else:
        raise FitError(
            "the fit does not converge with either strategy of minuit: with few events the templates fluctuate; "
            "process more of them"
        ) from reason
    values = {
        label: (float(value), float(uncertainty))
        for label, value, uncertainty in zip(found.labels, found.bestfit, found.uncertainty, strict=True)
    }
    norm, uncertainty = values.pop("ttbar_norm")
    return Fitted(norm, uncertainty, {name: pull for name, pull in values.items() if not name.startswith("staterror")})


def main(histograms: Annotated[Path, typer.Argument(help="The histograms.root of a run.")]) -> None:
    """Fit the cross section of ttbar and print it, with the pulls of the nuisance parameters."""
    try:
        found = fit(histograms)
    except (FitError, OSError) as error:
        typer.echo(f"agc_example: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(str(found))
    for name, (value, uncertainty) in found.pulls.items():
        typer.echo(f"  {name:<24} {value:+.2f} +- {uncertainty:.2f}")


if __name__ == "__main__":
    typer.run(main)
