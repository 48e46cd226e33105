"""``make demo-grid``: the ttbar analysis on a grid in a box, at two sites, and the same to the bit on this machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
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
    from coffea_dirac.grid import lake as lakes

    started = time.monotonic()
    folder = OUTPUT / "grid"
    box.down(folder / "box")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fileset = fileset_from(make_data(folder))
    lake = None
    if why := lakes.why_not():
        say(f"no data lake, so files are read from this machine's disk: {why}")
    else:
        lake = {f"mc:{name}": list(map(str, one["files"])) for name, one in fileset.items()}
    also = " with a storage at each, and a Rucio server that knows what lies there" if lake else ""
    say(f"starting a DiracX server and two sites{also} (the first time, packages are installed: minutes)")
    grid = box.up(folder / "box", [f"{site}:1" for site in SITES], end_with=os.getpid(), lake=lake)
    try:
        found, out = on_grid(by_name(fileset, grid), grid, folder / "cache-grid")
        found["replicas_read"] = replicas_read(str(folder / "cache-grid"))
        found["replicas_by_site"] = by_site(found["replicas_read"])
        found["without_server"] = without_server(grid, folder / "box")
    finally:
        left = box.down(folder / "box")
    say("the same on this machine")
    found["equal_to_local"] = as_bytes(out) == as_bytes(on_this_machine(fileset, folder / "cache-local"))
    found |= {"processes_left": left, "wall_s": round(time.monotonic() - started, 1)}
    tell(found)


def by_name(fileset: dict[str, Any], grid: dict[str, Any]) -> dict[str, Any]:
    """Return the fileset by the names of Rucio datasets; as it is without a lake."""
    from coffea_dirac import resolve

    if "rucio" not in grid:
        return fileset
    os.environ.update(grid["environment"])
    found = resolve({name: {**one, "files": f"mc:{name}"} for name, one in fileset.items()})
    console.print(found.table(), highlight=False, soft_wrap=True)
    return found


def replicas_read(cache: str) -> list[dict[str, Any]]:
    """Return of each work item in a cache where it was processed, and which storages it was read from."""
    from coffea_dirac import open_store, packs

    index = packs.Index(open_store(cache))
    index.refresh()
    told = ("dataset", "file", "start", "stop", "site", "rses")
    found = [{name: row.info.get(name, "") for name in told} for row in index if row.info.get("rses")]
    return sorted(found, key=lambda item: (item["file"], item["start"]))


def by_site(replicas: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many work items have read each storage, by the site where they were processed."""
    found: dict[str, Counter[str]] = {}
    for item in replicas:
        found.setdefault(item["site"], Counter()).update(item["rses"])
    return {site: dict(sorted(counts.items())) for site, counts in sorted(found.items())}


def tell(found: dict[str, Any]) -> None:
    """Write and say what came of it, and fail if that is not as it should be."""
    (OUTPUT / "grid.json").write_text(json.dumps(found, indent=1) + "\n")
    sites = ", ".join(f"{number} at {site}" for site, number in sorted(found["work_items_by_site"].items()))
    same = "equal to the bit to" if found["equal_to_local"] else "DIFFERENT from"
    say(
        f"{found['work_items']} work items in {len(found['jobs'])} jobs of DIRAC ({sites}), {same} the local run, in "
        f"{found['wall_s']:.0f} s; agc_example/output/grid.json"
    )
    if not found["equal_to_local"] or found["processes_left"]:
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
