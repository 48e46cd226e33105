"""The page of the benchmarks: a section for each program, which a run of that program alone renews."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.pairs import Line

PACKAGES = ("awkward", "coffea", "coffea_dirac", "dask", "distributed", "hist", "numpy", "uproot")
HEAD = """# Benchmarks

<!-- Written by `make bench`; do not edit. -->

Each section is one run of `python -m benchmarks NAME`; `make bench` runs them all. Where there is a peer, both run in
turn (A B A B ...) on the same machine; a ratio is taken of each pair, and the table has the smallest, the median and
the largest. Seconds are medians of wall time; CPU is the processor time of all processes together. A machine that is
busy with something else makes times longer; ratios suffer less.

![Work items against seconds, cold and warm, ours and the peers']({picture})

Work items are small (one cut, one histogram), so that what surrounds them is seen; 2 workers each. Warm runs load
results of the same size, of an analysis that is sooner done.
"""
_SECTION = re.compile(r"^## (\w+)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def verdict(line: Line) -> str:
    """Return whether the target is met."""
    return "-" if line.target == "-" else "met" if line.holds else "MISSED"


def section(name: str, lines: Sequence[Line], loads: Sequence[float], *, minutes: float) -> str:
    """Return the section of one program: its table, and when and on what it ran."""
    rows = [f"| {w.what} | {w.ours} | {w.peer} | {w.compared} | {w.target} | {verdict(w)} |" for w in lines]
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    return "\n".join(
        [
            f"## {name}",
            "",
            "| what | coffea_dirac | peer | compared (least / median / most) | target | |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; it took {minutes:.0f} minutes",
            f"- Machine: {machine()}; load (1 minute) before and after: {', '.join(f'{load:.1f}' for load in loads)}",
            f"- Python {platform.python_version()}, {versions}",
            "",
        ]
    )


def renewed(old: str, new: Mapping[str, str], order: Sequence[str], *, picture: str) -> str:
    r"""Return a page with new sections in place of those it had of the same names, the others as they were.

    Examples
    --------
    >>> old = renewed("", {"b": "## b\n2\n"}, ["a", "b"], picture="p.svg")
    >>> print(renewed(old, {"a": "## a\n1\n"}, ["a", "b"], picture="p.svg").partition("done.\n")[2])
    <BLANKLINE>
    ## a
    1
    <BLANKLINE>
    ## b
    2
    <BLANKLINE>
    """
    found = {match[1]: match[0] for match in _SECTION.finditer(old)} | dict(new)
    sections = [found[name].strip() for name in order if name in found]
    return "\n\n".join([HEAD.format(picture=picture).strip(), *sections]) + "\n"


def machine() -> str:
    """Return processor, number of cores we may use, and system."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"
