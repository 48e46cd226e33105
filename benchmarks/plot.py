"""The picture of the page: work items against seconds, ours and the peers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Point

# Series -> colour, line style.  Cold runs are drawn through, warm ones dashed; one colour for each executor.
STYLES = {
    "FuturesExecutor, cold": ("#8a8f98", "-"),
    "DaskExecutor, cold": ("#d08c2f", "-"),
    "DiracExecutor, cold": ("#1f6feb", "-"),
    "SimpleCheckpointer, warm": ("#8a8f98", "--"),
    "DiracExecutor, warm": ("#1f6feb", "--"),
    "DiracExecutor, planning only": ("#1f6feb", ":"),
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
        for series, (colour, style) in STYLES.items():
            found = sorted((p.items, p.seconds) for p in points if p.series == series)
            if not found:
                continue
            items, seconds = zip(*found, strict=True)
            axes.plot(items, seconds, style, color=colour, marker="o", markersize=4.5, linewidth=1.8)
            axes.annotate(
                series, (items[-1], seconds[-1]), (8, 0), textcoords="offset points", color=colour, va="center", size=9
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
    axes.margins(x=0.08)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * 12)  # the names at the ends of the lines need room
    axes.set_xlabel("work items", color=INK)
    axes.set_title("seconds of one Runner call", loc="left", color=INK, size=10)
    axes.grid(which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", length=0)
    axes.minorticks_off()
    for side in axes.spines.values():
        side.set_visible(False)
