"""``make demo-grid``: the ttbar analysis on a grid in a box, at two sites, and the same to the bit on this machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "output"
SITES = ("LCG.Box-A.uk", "LCG.Box-B.uk")
FILES, EVENTS, CHUNKSIZE = 2, 20_000, 10_000
"""Files of each of the 9 samples, events in each, and events in a work item."""
WORKERS_S = 300.0

console = Console()


def say(text: str) -> None:
    """Say what is done now."""
    console.print(f"[bold]demo-grid:[/bold] {text}", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the demo and write ``output/grid.json``."""
    from agc_example.inputs import fileset_from
    from coffea_dirac.grid import box

    started = time.monotonic()
    folder = OUTPUT / "grid"
    box.down(folder / "box")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fileset = fileset_from(make_data(folder))
    with in_the_lake(fileset) as by_name:
        run(folder, fileset, by_name, started)


@contextmanager
def in_the_lake(fileset: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fileset by names of Rucio datasets; as it is where the servers are missing, and say so."""
    from agc_example import demo_lake

    if why := demo_lake.why_not():
        say(f"no data lake, so files are read from this machine's disk: {why}")
        yield fileset
        return
    say("starting a storage at each site and a Rucio server that knows what lies there")
    with demo_lake.lake(fileset, SITES) as found:
        console.print(found.table(), highlight=False, soft_wrap=True)
        yield found


def run(folder: Path, fileset: dict[str, Any], by_name: dict[str, Any], started: float) -> None:
    """Run the analysis on a grid by name, and on this machine, and write what came of both."""
    from agc_example import demo_lake
    from coffea_dirac.grid import box

    say("starting a DiracX server and two sites (the first time, its packages are installed: minutes)")
    grid = box.up(folder / "box", [f"{site}:1" for site in SITES], end_with=os.getpid())
    try:
        found, out = on_grid(by_name, grid, folder / "cache-grid")
        found["replicas_read"] = demo_lake.replicas_read(str(folder / "cache-grid"))
        found["without_server"] = without_server(grid, folder / "box")
    finally:
        left = box.down(folder / "box")
    say("the same on this machine")
    found["equal_to_local"] = as_bytes(out) == as_bytes(on_this_machine(fileset, folder / "cache-local"))
    found |= {"processes_left": left, "wall_s": round(time.monotonic() - started, 1)}
    (OUTPUT / "grid.json").write_text(json.dumps(found, indent=1) + "\n")
    sites = ", ".join(f"{number} at {site}" for site, number in sorted(found["work_items_by_site"].items()))
    same = "equal to the bit to" if found["equal_to_local"] else "DIFFERENT from"
    say(
        f"{found['work_items']} work items in {len(found['jobs'])} jobs of DIRAC ({sites}), {same} the local run, in "
        f"{found['wall_s']:.0f} s; agc_example/output/grid.json"
    )
    if not found["equal_to_local"] or left:
        raise SystemExit(1)


def make_data(folder: Path) -> Path:
    """Generate the input files and return the list of them."""
    from agc_example.generate import generate

    say(f"generating {FILES} files of {EVENTS:,} events for each of 9 samples")
    found: Path = generate(folder / "data", files=FILES, events=EVENTS, progress=lambda: None)
    return found


def on_grid(fileset: dict[str, Any], grid: dict[str, Any], cache: Path) -> tuple[dict[str, Any], Any]:
    """Run the analysis at the sites, and return what is to be told of it, and its output."""
    from agc_example.run import analyse
    from coffea_dirac import DiracCluster, DiracExecutor
    from coffea_dirac.dirac.diracx import DiracxJobs

    sites = dict.fromkeys(SITES, 1)
    with DiracCluster(sites=sites, diracx=grid["diracx"], credentials=grid["token_file"]) as cluster:
        say(f"asking for a worker at each of {' and '.join(SITES)}")
        cluster.wait_for(len(SITES), timeout=WORKERS_S)
        executor = DiracExecutor(cluster=cluster, cache=str(cache))
        result = analyse(fileset, executor=executor, chunksize=CHUNKSIZE)
        group = cluster.jobs.service.group  # type: ignore[attr-defined]
    console.print(str(result.report), highlight=False, soft_wrap=True)
    with DiracxJobs(grid["diracx"], credentials=grid["token_file"], group=group) as jobs:
        facts = jobs.describe(jobs.job_ids())
    return {
        "diracx": grid["diracx"],
        "sites": list(SITES),
        "jobs": {job: {"site": one.site, "status": one.status, "dirac": one.told} for job, one in facts.items()},
        "work_items": sum(result.report.work_items.values()),
        "work_items_by_site": dict(result.report.sites),
        "events": sum(result.out["events"].values()),
        "seconds_on_grid": round(result.wall_s, 1),
    }, result.out


def without_server(grid: dict[str, Any], place: Path) -> str:
    """Stop the server, and return what a cluster then says instead of starting workers."""
    from coffea_dirac import CoffeaDiracError, DiracCluster
    from coffea_dirac.grid import box

    say("stopping the DiracX server: no worker may start now")
    box.restart_server(place, up=False)
    sites = dict.fromkeys(SITES, 1)
    with DiracCluster(sites=sites, diracx=grid["diracx"], credentials=grid["token_file"]) as cluster:
        try:
            cluster.wait_for(1, timeout=WORKERS_S)
        except CoffeaDiracError as error:
            say(f"as it should: {error}")
            return str(error)
    raise SystemExit("demo-grid: a worker started without a DiracX server")


def on_this_machine(fileset: dict[str, Any], cache: Path) -> Any:
    """Run the same analysis in processes of this machine, from nothing."""
    from agc_example.run import analyse
    from coffea_dirac import DiracExecutor

    return analyse(fileset, executor=DiracExecutor(cache=str(cache), workers=2), chunksize=CHUNKSIZE).out


def as_bytes(out: Any) -> bytes:
    """Return an output as the canonical bytes in which it would be kept."""
    from coffea_dirac import codecs

    return codecs.encode(out).data


if __name__ == "__main__":
    main()
