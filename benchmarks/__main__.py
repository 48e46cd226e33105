"""Measure everything and write docs/reference/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Before anything that would start threads of its own: two workers on two cores shall not fight with their own pools.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import cold, fingerprint, graph, grid, keeping, lake, million, plot, resume, stages, startup, warm
from benchmarks.pairs import Line, Loads

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"
PACKAGES = ("awkward", "coffea", "coffea_dirac", "dask", "distributed", "hist", "numpy", "uproot")
TINY: dict[str, dict[str, Any]] = {
    "cold": {"sizes": ((1, 4, 1), (2, 2, 1))},
    "warm": {"files": 2, "items": 3, "rounds": 1},
    "million": {"sizes": (2_000, 4_000)},
    "keeping": {"events": 200, "chunksize": 200, "rounds": 1},
    "resume": {"files": 2, "items": 100, "chunksize": 10, "rounds": 1},
    "startup": {"events": 200, "rounds": 1},
    "fingerprint": {"processes": 1, "items": 100},
    "stages": {"calls": 100, "events": 200, "chunksize": 200, "rounds": 1, "names": ("nothing", "undo")},
    "graph": {
        "sizes": (20,),
        "tasks": 20,
        "rounds": 1,
        "events": 20,
        "with_peers": False,
        "samples": (("wjets", "nominal"),),
    },
    "lake": {"files": 20, "datasets": 2, "rounds": 1, "events": 200},
    "grid": {"jobs": 2, "known": 3, "files": 1, "items": 2, "rounds": 1},
}
PROGRAMS: dict[str, Callable[..., list[Line]]] = {
    "cold": cold.lines,
    "warm": warm.lines,
    "million": million.lines,
    "keeping": keeping.lines,
    "resume": resume.lines,
    "startup": startup.lines,
    "fingerprint": fingerprint.lines,
    "stages": stages.lines,
    "graph": graph.lines,
    "lake": lake.lines,
    "grid": grid.lines,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the programs that were asked for; only a whole run of full size writes the page unless one is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("programs", nargs="*", metavar="program", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that the programs run")
    parser.add_argument("--page", type=Path, help="where to write the page; its picture goes beside it")
    options = parser.parse_args(arguments)
    names = options.programs or list(PROGRAMS)
    if unknown := sorted(set(names) - set(PROGRAMS)):
        parser.error(f"there is no program {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    found: list[Line] = []
    loads, started = Loads(), time.monotonic()
    for name in names:
        print(f"benchmarks: {name}", flush=True)
        with loads.watch():
            new = PROGRAMS[name](**(TINY[name] if options.tiny else {}))
        found += new
        for line in new:
            print(f"  {line.what}: {line.ours}, {line.peer}, {line.compared}; target {line.target}: {verdict(line)}")
    page = options.page or (PAGE if len(names) == len(PROGRAMS) and not options.tiny else None)
    if page is not None:
        picture = page.with_suffix(".svg")
        plot.draw([point for line in found for point in line.points], picture)
        page.write_text(text(found, loads.seen, picture.name, minutes=(time.monotonic() - started) / 60))
        print(f"benchmarks: wrote {page} and {picture}")


def verdict(line: Line) -> str:
    """Return whether the target is met."""
    return "-" if line.target == "-" else "met" if line.holds else "MISSED"


def text(found: Sequence[Line], loads: Sequence[float], picture: str, *, minutes: float) -> str:
    """Return the page."""
    rows = [f"| {w.what} | {w.ours} | {w.peer} | {w.compared} | {w.target} | {verdict(w)} |" for w in found]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "<!-- Written by `make bench`; do not edit. -->",
            "",
            "Measured in one run of `make bench`. Where there is a peer, both run in turn (A B A B ...) on the same",
            "machine; a ratio is taken of each pair, and the table has the smallest, the median and the largest.",
            "Seconds are medians of wall time; CPU is the processor time of all processes together. A machine that",
            "is busy with something else makes wall times longer; ratios suffer less.",
            "",
            "| what | coffea_dirac | peer | compared (least / median / most) | target | |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"![Work items against seconds, cold and warm, ours and the peers']({picture})",
            "",
            "Work items are small (one cut, one histogram), so that what surrounds them is seen; 2 workers each.",
            "Warm runs load results of the same size, of an analysis that is sooner done.",
            "",
            f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; all took {minutes:.0f} minutes",
            f"- Machine: {machine()}",
            f"- Load (1 minute) before and after the programs: {', '.join(f'{load:.1f}' for load in loads)}; the",
            "  benchmarks' own two workers make 2 to 3 of it",
            f"- Python {platform.python_version()}, {versions}",
            "",
        ]
    )


def machine() -> str:
    """Return processor, number of cores we may use, and system."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    sys.exit(main())
