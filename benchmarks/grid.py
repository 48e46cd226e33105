"""A cluster at sites: how long jobs take to be submitted and told about, and short work items against LocalCluster.

The grid is the one in a box: a real DiracX server and two sites on this machine (`coffea_dirac.grid`).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Range, Spent, paired, take_turns
from benchmarks.small import run_once, write_fileset
from coffea_dirac import DiracCluster, DiracExecutor
from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.grid import box
from coffea_dirac.interfaces import Job

SITES = ("LCG.Box-A.uk", "LCG.Box-B.uk")
NOWHERE = "LCG.Nowhere.uk"
"""A site without slots: jobs wait there."""
SUBMIT_S, IDLE_S, RATIO = 3.0, 2.0, 1.2
START_S = 120.0


def lines(
    *, jobs: int = 100, known: int = 1000, files: int = 10, items: int = 100, rounds: int = 3, chunksize: int = 50
) -> list[Line]:
    """Measure and return the table's lines."""
    with tempfile.TemporaryDirectory() as name:
        try:
            grid = box.up(Path(name) / "grid", [f"{site}:1" for site in SITES], end_with=os.getpid())
            fileset = write_fileset(Path(name), files=files, events=items * chunksize)
            return [
                *_jobs(grid, jobs, known),
                _work_items(grid, fileset, files * items, rounds, chunksize),
                _idle(grid),
            ]
        finally:
            box.down(Path(name) / "grid")


def _jobs(grid: dict[str, Any], n: int, known: int) -> list[Line]:
    job = Job(("-c", "pass"), files={"worker.json": b"{}"}, sites=(NOWHERE,), cpu_time_s=600)
    with DiracxJobs(grid["diracx"], credentials=grid["token_file"]) as service:
        started = time.perf_counter()
        ids = list(service.submit([job] * n))
        submit_s = time.perf_counter() - started
        ids += service.submit([job] * (known - n)) if known > n else []
        started = time.perf_counter()
        service.describe(ids)
        describe_s = time.perf_counter() - started
    return [
        Line(f"{n} jobs submitted", f"{submit_s:.2f} s", "-", "-", f"under {SUBMIT_S:.0f} s", submit_s < SUBMIT_S),
        Line(f"status of {len(ids):,} jobs, one request", f"{describe_s:.2f} s", "-", "-", "-", holds=True),
    ]


@contextmanager
def _cluster(grid: dict[str, Any]) -> Iterator[DiracCluster]:
    sites = dict.fromkeys(SITES, 1)
    with DiracCluster(len(sites), sites=sites, diracx=grid["diracx"], credentials=grid["token_file"]) as cluster:
        cluster.wait_for(len(sites), timeout=START_S)
        yield cluster


def _work_items(grid: dict[str, Any], fileset: Any, n: int, rounds: int, chunksize: int) -> Line:
    from distributed import Client, LocalCluster

    def measure(**where: Any) -> Spent:
        executor = DiracExecutor(cache=None, status=False, **where)
        return run_once(executor, fileset, chunksize=chunksize)[0]

    with (
        _cluster(grid) as cluster,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        Client(local, set_as_default=False) as client,
    ):
        found = take_turns(
            {"ours": lambda: measure(cluster=cluster), "theirs": lambda: measure(client=client)}, rounds=rounds
        )
    what = f"{n:,} short work items, 2 workers: DiracCluster at two sites in a box"
    return paired(what, found["ours"], found["theirs"], "LocalCluster", RATIO)


def _idle(grid: dict[str, Any]) -> Line:
    with _cluster(grid) as cluster:
        started = time.perf_counter()
        cluster.scale(sites={SITES[0]: 1})
        while len(cluster.scheduler_info["workers"]) > 1 and time.perf_counter() < started + START_S:
            time.sleep(0.01)
        gone_s = time.perf_counter() - started
    what = "an idle worker has left after the cluster was scaled down"
    return Line(what, f"{gone_s:.2f} s", "-", str(Range.of([gone_s])), f"under {IDLE_S:.0f} s", gone_s < IDLE_S)
