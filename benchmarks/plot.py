"""The picture of the page: work items against seconds, ours and the peers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Point

# Series -> colour, line style, where its name stands at the last point.  Cold runs are drawn through, warm ones dashed;
# one colour for each executor.
STYLES = {
    "FuturesExecutor, cold": ("#8a8f98", "-", "right"),
    "DaskExecutor, cold": ("#d08c2f", "-", "left"),
    "DiracExecutor, cold": ("#1f6feb", "-", "right"),
    "SimpleCheckpointer, warm": ("#8a8f98", "--", "right"),
    "DiracExecutor, warm": ("#1f6feb", "--", "right"),
    "DiracExecutor, planning only": ("#1f6feb", ":", "left"),
}
INK, GRID = "#444c56", "#e5e8eb"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the points as an SVG file that is the same for the same numbers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for series, (colour, style, side) in STYLES.items():
            found = sorted((p.items, p.seconds) for p in points if p.series == series)
            if not found:
                continue
            items, seconds = zip(*found, strict=True)
            axes.plot(items, seconds, style, color=colour, marker="o", markersize=4.5, linewidth=1.8)
            offset, align = ((8, 0), "center") if side == "right" else ((-8, 6), "bottom")
            axes.annotate(
                series,
                (items[-1], seconds[-1]),
                offset,
                textcoords="offset points",
                color=colour,
                ha="left" if side == "right" else "right",
                va=align,
                size=9,
            )
        _plain(axes)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _plain(axes: object) -> None:
    from matplotlib.axes import Axes
    from matplotlib.ticker import FuncFormatter

    assert isinstance(axes, Axes)
    number = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.xaxis.set_major_formatter(number)
    axes.yaxis.set_major_formatter(number)
    axes.margins(x=0.12, y=0.1)  # room for the names
    axes.set_xlabel("work items", color=INK)
    axes.set_title("seconds of one Runner call", loc="left", color=INK, size=10)
    axes.grid(which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", length=0)
    axes.minorticks_off()
    for side in axes.spines.values():
        side.set_visible(False)
