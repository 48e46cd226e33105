"""Measure everything and write docs/reference/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before anything that would start threads of its own: two workers on two cores shall not fight with their own pools.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import cold, fingerprint, graph, grid, keeping, lake, million, plot, resume, stages, startup, warm
from benchmarks.page import renewed, section, verdict
from benchmarks.pairs import Line, Loads, Point

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"
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
    """Run the programs that were asked for; at full size they renew their sections of the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("programs", nargs="*", metavar="program", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that the programs run")
    parser.add_argument("--page", type=Path, help="where to write the page; its picture goes beside it")
    options = parser.parse_args(arguments)
    names = options.programs or list(PROGRAMS)
    if unknown := sorted(set(names) - set(PROGRAMS)):
        parser.error(f"there is no program {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    page = options.page or (None if options.tiny else PAGE)
    points: list[Point] = []
    for name in names:
        print(f"benchmarks: {name}", flush=True)
        loads, started = Loads(), time.monotonic()
        with loads.watch():
            found = PROGRAMS[name](**(TINY[name] if options.tiny else {}))
        points += [point for line in found for point in line.points]
        for line in found:
            print(f"  {line.what}: {line.ours}, {line.peer}, {line.compared}; target {line.target}: {verdict(line)}")
        if page is not None:
            # At once: what was measured is not lost with what comes after it.
            new = {name: section(name, found, loads.seen, minutes=(time.monotonic() - started) / 60)}
            old = page.read_text() if page.exists() else ""
            page.write_text(renewed(old, new, list(PROGRAMS), picture=page.with_suffix(".svg").name))
    if page is not None:
        if set(names) == set(PROGRAMS) or options.page:
            # It has points of several programs.
            plot.draw(points, page.with_suffix(".svg"))
        print(f"benchmarks: wrote {page}")


if __name__ == "__main__":
    sys.exit(main())
