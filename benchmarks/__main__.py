"""Measure everything and write docs/reference/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

# Before anything that would start threads of its own: two workers on two cores shall not fight with their own pools.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import cold, fingerprint, startup
from benchmarks.pairs import Line

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"
PACKAGES = ("awkward", "coffea", "coffea_dirac", "dask", "distributed", "hist", "numpy", "uproot")
TINY = {
    "cold": {"files": 2, "events": 200, "chunksize": 100, "pairs": 1},
    "fingerprint": {"processes": 1, "items": 100},
    "startup": {"events": 200, "pairs": 1},
}
PROGRAMS = {"cold": cold.lines, "fingerprint": fingerprint.lines, "startup": startup.lines}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the programs that were asked for; only a whole run of full size writes the page unless one is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("programs", nargs="*", metavar="program", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that the programs run")
    parser.add_argument("--page", type=Path, help="where to write the page")
    options = parser.parse_args(arguments)
    names = options.programs or list(PROGRAMS)
    if unknown := sorted(set(names) - set(PROGRAMS)):
        parser.error(f"there is no program {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    found: list[Line] = []
    for name in names:
        print(f"benchmarks: {name}", flush=True)
        new = PROGRAMS[name](**(TINY[name] if options.tiny else {}))
        found += new
        for line in new:
            print(f"  {line.what}: {line.ours}, {line.peer}, {line.compared}; target {line.target}: {verdict(line)}")
    page = options.page or (PAGE if len(names) == len(PROGRAMS) and not options.tiny else None)
    if page is not None:
        page.write_text(text(found))
        print(f"benchmarks: wrote {page}")


def verdict(line: Line) -> str:
    """Return whether the target is met."""
    return "-" if line.target == "-" else "met" if line.holds else "MISSED"


def text(found: Sequence[Line]) -> str:
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
            "machine, after one of each that does not count; a ratio or a difference is the median over the pairs.",
            "",
            "| what | coffea_dirac | peer | compared | target | |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {machine()}",
            f"- Load before the end: {os.getloadavg()[0]:.1f}",
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
