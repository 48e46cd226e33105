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
    """Draw each region's stack of processes with pseudodata, and the jet variations of ttbar; return the PNG files."""
    import matplotlib as mpl

    mpl.use("Agg")
    paths = []
    for region, histogram in histograms.items():
        paths.append(folder / f"{region}.png")
        _plot_stack(region, histogram, dict(named({region: histogram})), paths[-1])
        paths.append(folder / f"{region}_variations.png")
        _plot_variations(region, histogram, paths[-1])
    return paths


def _plot_stack(region: str, histogram: hist.Hist, one: dict[str, hist.Hist], path: Path) -> None:
    import matplotlib.pyplot as plt
    import mplhep

    drawn = [(p, histogram[:, p, "nominal"]) for p in reversed(STACK) if p in list(histogram.axes["process"])]
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    colours = dict(zip(STACK, COLOURS, strict=True))
    labels, colors = [STACK[p] for p, _ in drawn], [colours[p] for p, _ in drawn]
    mplhep.histplot([h for _, h in drawn], stack=True, histtype="fill", ax=axes, label=labels, color=colors, yerr=False)
    data = one.get(f"{region}_pseudodata")
    if data is not None:
        mplhep.histplot(data, histtype="errorbar", color="black", ax=axes, label="pseudodata", markersize=6)
    axes.set(ylabel="events", xlim=(50, 550), ylim=(0, None), xlabel=histogram.axes["observable"].label)
    axes.legend(reverse=True, frameon=False)
    text = rf"$\sqrt{{s}}$ = 13 TeV, {LUMINOSITY / 1000:.1f} fb$^{{-1}}$"
    axes.set_title(f"AGC ttbar, {region}", loc="left")
    axes.set_title(text, loc="right", fontsize="medium")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_variations(region: str, histogram: hist.Hist, path: Path) -> None:
    import matplotlib.pyplot as plt
    import mplhep

    present = list(histogram.axes["variation"])
    figure, (top, ratio) = plt.subplots(
        2, 1, figsize=(7, 5.5), sharex=True, height_ratios=(3, 1.2), layout="constrained"
    )
    nominal = histogram[:, "ttbar", "nominal"].values()
    edges = histogram.axes["observable"].edges
    variations = ("nominal", "pt_scale_up", "pt_res_up", "scaleup", "scaledown", "ME_var", "PS_var")
    palette = ("black", *COLOURS, "#7a21dd")
    for variation, colour in zip(variations, palette, strict=True):
        if variation not in present:
            continue
        values = histogram[:, "ttbar", variation].values()
        style = {"color": colour, "label": variation.replace("_", " ")}
        mplhep.histplot(values, edges, ax=top, **style, linewidth=1.4, yerr=False)
        with np.errstate(divide="ignore", invalid="ignore"):
            mplhep.histplot(values / nominal, edges, ax=ratio, **style, linewidth=1.4, yerr=False)
    top.set(ylabel="events", ylim=(0, None), xlim=(50, 550))
    top.legend(frameon=False)
    top.set_title(rf"$t\bar{{t}}$ and its variations, {region}", loc="left")
    ratio.set(ylabel="ratio", ylim=(0.5, 1.5), xlabel=histogram.axes["observable"].label)
    figure.savefig(path, dpi=120)
    plt.close(figure)
