"""From merged histograms to expected events: normalisation, pseudodata, ROOT file, plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hist
import numpy as np
import uproot

from agc_example.inputs import CROSS_SECTIONS, LUMINOSITY

# Variations that are samples of their own; all others are made from a process's nominal sample.
SAMPLES = ("scaledown", "scaleup", "ME_var", "PS_var")
PSEUDODATA = (("ttbar", "ME_var"), ("ttbar", "PS_var"), ("wjets", "nominal"))
STACK = {
    "ttbar": r"$t\bar{t}$",
    "wjets": r"$W$ + jets",
    "single_top_tW": r"single top, $tW$",
    "single_top_t_chan": r"single top, $t$-channel",
    "single_top_s_chan": r"single top, $s$-channel",
}
COLOURS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1")
"""Colour cycle for people with any colour vision (M. A. Petroff, arXiv:2107.02270)."""

DRAWN = ("pt_scale_up", "pt_res_up", "scaleup", "scaledown", "ME_var", "PS_var")
"""Variations of ttbar that are drawn."""
COARSE = 40.0
"""Width of a bin where variations are drawn, GeV."""


class IncompleteSampleError(RuntimeError):
    """A sample is not processed whole, so that its normalisation would be wrong."""


def check_complete(fileset: Mapping[str, Any], events: Mapping[str, int], report: Any = None) -> None:
    """Refuse to normalise if events are missing.

    Parameters
    ----------
    fileset : mapping
        What was asked for; ``nevts`` in the metadata of a dataset is the number of its events.
    events : mapping
        Events processed, by ``process__variation``.
    report : coffea_dirac Report, optional
        What a DiracExecutor said of its run.

    Raises
    ------
    IncompleteSampleError
        Naming every sample that lacks events or files.
    """
    problems = []
    if report is not None:
        for name, dataset in report.datasets.items():
            problems += [f"{name}: {file} was skipped ({why})" for file, why in dataset.failed.items()]
            if not dataset.failed and dataset.events_processed != dataset.events_expected:
                problems.append(
                    f"{name}: {dataset.events_processed} of {dataset.events_expected} events were processed"
                )
    for name, dataset in fileset.items():
        metadata = dataset["metadata"]
        found, wanted = events.get(f"{metadata['process']}__{metadata['variation']}", 0), metadata.get("nevts")
        if wanted is not None and found != wanted and not any(text.startswith(f"{name}:") for text in problems):
            problems.append(f"{name}: {found} of {wanted} events were processed")
    if problems:
        raise IncompleteSampleError(
            "histograms are not normalised, since xsec x luminosity / events would be wrong for incomplete samples:\n  "
            + "\n  ".join(problems)
            + "\nRun again (what is finished is loaded), or take the files out of the list of inputs."
        )


def normalised(histogram: hist.Hist, events: Mapping[str, int]) -> hist.Hist:
    """Return a histogram of expected events: each sample scaled by cross section x luminosity / events.

    Parameters
    ----------
    histogram : hist.Hist
        Axes observable, process, variation.
    events : mapping
        Events processed, by ``process__variation``.
    """
    scaled = histogram.copy()
    view = scaled.view(flow=True)
    for i, process in enumerate(scaled.axes["process"]):
        for j, variation in enumerate(scaled.axes["variation"]):
            n = events.get(f"{process}__{variation if variation in SAMPLES else 'nominal'}", 0)
            factor = CROSS_SECTIONS[process] * LUMINOSITY / n if n else 0.0
            view["value"][:, i, j] *= factor
            view["variance"][:, i, j] *= factor**2
    return scaled


def named(histograms: Mapping[str, hist.Hist]) -> Iterator[tuple[str, hist.Hist]]:
    """Yield (name, 1D histogram) as the AGC names them: ``4j1b_ttbar``, ``4j1b_ttbar_ME_var``, ``4j1b_pseudodata``.

    Combinations that no event fell into are left out; pseudodata is half of each alternative ttbar sample plus W+jets.
    """
    for region, histogram in histograms.items():
        found = {}
        for process in histogram.axes["process"]:
            for variation in histogram.axes["variation"]:
                one = histogram[:, process, variation]
                if one.values().sum() > 0:
                    found[process, variation] = one
                    yield f"{region}_{process}" + (f"_{variation}" if variation != "nominal" else ""), one
        parts = [found[key] for key in PSEUDODATA if key in found]
        if len(parts) == len(PSEUDODATA):
            yield f"{region}_pseudodata", (parts[0] + parts[1]) / 2 + parts[2]


def write_root(histograms: Mapping[str, hist.Hist], path: Path) -> int:
    """Write all histograms to a ROOT file and return how many there were."""
    n = 0
    with uproot.recreate(path) as file:
        for name, histogram in named(histograms):
            file[name] = histogram
            n += 1
    return n


def plot_regions(histograms: Mapping[str, hist.Hist], folder: Path) -> list[Path]:
    """Draw each region's stack of processes with pseudodata, and the variations of ttbar; return the PNG files.

    What no event fell into is not drawn.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    paths = []
    for region, histogram in histograms.items():
        one = dict(named({region: histogram}))
        for path, draw in ((f"{region}.png", _plot_stack), (f"{region}_variations.png", _plot_variations)):
            if draw(region, one, folder / path):
                paths.append(folder / path)
    return paths


def _plot_stack(region: str, one: Mapping[str, hist.Hist], path: Path) -> bool:
    import matplotlib.pyplot as plt
    import mplhep

    drawn = {process: one[f"{region}_{process}"] for process in reversed(STACK) if f"{region}_{process}" in one}
    if not drawn:
        return False
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    colours = dict(zip(STACK, COLOURS, strict=True))
    style = {"label": [STACK[p] for p in drawn], "color": [colours[p] for p in drawn], "edgecolor": "white"}
    mplhep.histplot(list(drawn.values()), stack=True, histtype="fill", ax=axes, yerr=False, flow="none", **style)
    total = sum(drawn.values())
    error = np.sqrt(total.variances())
    band = {"baseline": total.values() - error, "facecolor": "none", "edgecolor": "0.35", "linewidth": 0}
    axes.stairs(total.values() + error, total.axes[0].edges, fill=True, hatch="/////", label="statistics", **band)
    data = one.get(f"{region}_pseudodata")
    if data is not None:
        points = {"color": "black", "label": "pseudodata", "markersize": 6}
        mplhep.histplot(data, histtype="errorbar", ax=axes, flow="none", **points)
    edges = total.axes[0].edges
    axes.set(ylabel=f"events / {edges[1] - edges[0]:g} GeV", xlabel=total.axes[0].label)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    axes.legend(reverse=True, frameon=False)
    axes.set_title(f"AGC ttbar, {region}", loc="left")
    axes.set_title(rf"$\sqrt{{s}}$ = 13 TeV, {LUMINOSITY / 1000:.1f} fb$^{{-1}}$", loc="right", fontsize="medium")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _plot_variations(region: str, one: Mapping[str, hist.Hist], path: Path) -> bool:
    """Draw the variations of ttbar in coarse bins, so that they can be told apart from fluctuations."""
    import matplotlib.pyplot as plt
    import mplhep

    nominal = one.get(f"{region}_ttbar")
    if nominal is None:
        return False
    width = nominal.axes[0].widths[0]
    coarse = slice(110j, None, hist.rebin(max(1, round(COARSE / width))))
    variations = {"nominal": nominal[coarse]}
    variations |= {v: one[f"{region}_ttbar_{v}"][coarse] for v in DRAWN if f"{region}_ttbar_{v}" in one}
    figure, axes = plt.subplots(2, 1, figsize=(7, 5.5), sharex=True, height_ratios=(3, 1.4), layout="constrained")
    base, edges = variations["nominal"].values(), variations["nominal"].axes[0].edges
    colours = dict(zip(("nominal", *DRAWN), ("black", *COLOURS, "#7a21dd"), strict=True))
    for variation, histogram in variations.items():
        style = {"color": colours[variation], "label": variation.replace("_", " "), "linewidth": 1.6, "yerr": False}
        mplhep.histplot(histogram.values(), edges, ax=axes[0], **style)
        ratio = np.divide(histogram.values(), base, out=np.full(len(base), np.nan), where=base > 0)
        mplhep.histplot(ratio, edges, ax=axes[1], **style)
    axes[0].set(ylabel=f"events / {edges[1] - edges[0]:g} GeV", ylim=(0, None), xlim=(edges[0], edges[-1]))
    axes[0].legend(frameon=False)
    axes[0].set_title(rf"$t\bar{{t}}$ and its variations, {region}", loc="left")
    axes[1].set(ylabel="ratio to nominal", ylim=(0.5, 1.5), xlabel=nominal.axes[0].label)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True
