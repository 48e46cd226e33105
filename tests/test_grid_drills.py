"""Drills on a grid in a box of their own: parts of it die while an analysis runs, and the result is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from faults import in_front_of
from scenario import write_nano

from coffea_dirac import DiracCluster, DiracExecutor
from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.grid import box, lake
from coffea_dirac.testing_jobs import wait_until

pytestmark = [pytest.mark.needs("diracx"), pytest.mark.long, pytest.mark.timeout(900)]

SITE_A, SITE_B = "LCG.Drill-A.uk", "LCG.Drill-B.uk"
ITEMS = 30
LOST = 2
"""Work items that are done again for a worker that was lost: the one in hand, and one whose record was not kept yet."""
ANALYSIS = """
import time
import awkward as ak
from coffea import processor

class Slow(processor.ProcessorABC):
    def process(self, events):
        time.sleep(0.5)
        with open(RAN, "a") as f:
            print(events.metadata["entrystart"], file=f)
        return {"n": len(events), "pt": float(ak.sum(events.Jet.pt))}

    def postprocess(self, accumulator):
        return accumulator
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A grid whose access tokens live a minute: every call renews them."""
    directory = tmp_path_factory.mktemp("drills") / "grid"
    sites = [f"{SITE_A}:1", f"{SITE_B}:1"]
    yield box.up(directory, sites, heartbeat_s=1.2, access_minutes=1, end_with=os.getpid())
    assert box.down(directory) == []


class Drill:
    """An analysis of `ITEMS` work items at two sites."""

    def __init__(self, grid: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "slow_analysis.py").write_text(ANALYSIS.replace("RAN", repr(str(folder / "ran.txt"))))
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(NanoAODSchema, "warn_missing_crossrefs", False)
        sys.modules.pop("slow_analysis", None)
        self.grid = grid
        path = write_nano(folder / "nano.root", events=ITEMS * 10)
        self.fileset = {"ttbar": {"files": {str(path): "Events"}}}

    def run(self, executor: Any) -> Any:
        from slow_analysis import Slow  # type: ignore[import-not-found]

        run = processor.Runner(executor=executor, chunksize=10, schema=NanoAODSchema, savemetrics=False)
        return run(self.fileset, Slow(), treename="Events")

    @property
    def n_ran(self) -> int:
        """How often ``process`` came to its end."""
        path = self.folder / "ran.txt"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def check(self, happens: Callable[[DiracCluster], None], *, lost: int = 0, url: str = "") -> Any:
        """Run at the sites, let something happen in the middle, and compare with a run in this process."""
        sites = {SITE_A: 1, SITE_B: 1}
        with DiracCluster(
            sites=sites, diracx=url or self.grid["diracx"], credentials=self.grid["token_file"]
        ) as cluster:
            cluster.wait_for(2, timeout=200)
            executor = DiracExecutor(cluster=cluster, cache="cache", status=False)
            errors: list[BaseException] = []

            def wait_and_let_happen() -> None:
                try:
                    done = lambda: executor.report is not None and executor.report.work_items["misses"] >= 4  # noqa: E731
                    wait_until(done, timeout_s=200, what="the run is in its middle")
                    happens(cluster)
                except BaseException as error:
                    errors.append(error)

            thread = threading.Thread(target=wait_and_let_happen)
            thread.start()
            out = self.run(executor)
            thread.join(200)
            assert not errors, errors
            group = cluster.jobs.service.group  # type: ignore[attr-defined]
        assert self.n_ran <= ITEMS + lost
        assert out == self.run(DiracExecutor(cache=None, inline=True, status=False))
        assert executor.report.work_items == {"hits": 0, "misses": ITEMS}
        with DiracxJobs(self.grid["diracx"], credentials=self.grid["token_file"], group=group) as jobs:
            wait_until(lambda: not jobs.job_ids(alive=True), timeout_s=30, what="no job is left")
            return jobs.describe(jobs.job_ids())


@pytest.fixture
def drill(grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drill:
    return Drill(grid, tmp_path, monkeypatch)


def pid_of(grid: dict[str, Any], site: str, name: str) -> int:
    (path,) = Path(grid["directory"], "sites", site).glob(f"job-*/{name}.pid")
    return int(path.read_text())


def test_killed_worker_is_replaced_and_nothing_changes(drill: Drill) -> None:
    def happens(cluster: DiracCluster) -> None:
        os.kill(pid_of(drill.grid, SITE_A, "payload"), signal.SIGKILL)

    facts = drill.check(happens, lost=LOST)
    assert [one.told.split(",")[0] for one in facts.values()].count("Failed") == 1


def test_killed_worker_with_all_that_belongs_to_it_is_replaced_and_nothing_changes(drill: Drill) -> None:
    """At sites there is no nanny: whatever is in the process group of the payload goes."""

    def happens(cluster: DiracCluster) -> None:
        os.killpg(pid_of(drill.grid, SITE_B, "payload"), signal.SIGKILL)

    facts = drill.check(happens, lost=LOST)
    assert [one.told.split(",")[0] for one in facts.values()].count("Failed") == 1


def test_worker_that_is_told_to_end_at_wall_time_is_replaced_and_nothing_changes(drill: Drill) -> None:
    drill.check(lambda cluster: os.kill(pid_of(drill.grid, SITE_A, "payload"), signal.SIGTERM), lost=LOST)


def test_killed_wrapper_is_a_stalled_job_and_nothing_changes(drill: Drill) -> None:
    facts = drill.check(lambda cluster: os.kill(pid_of(drill.grid, SITE_A, "wrapper"), signal.SIGKILL), lost=LOST)
    assert any("Job stalled" in one.told for one in facts.values())


def test_killed_pilot_takes_its_jobs_with_it_and_nothing_changes(drill: Drill) -> None:
    def happens(cluster: DiracCluster) -> None:
        (pilot,) = [
            child.pid
            for child in psutil.Process(drill.grid["pids"]["grid"]).children()
            if any("pilot.py" in part for part in child.cmdline()) and SITE_B in " ".join(child.cmdline())
        ]
        os.kill(pilot, signal.SIGKILL)

    facts = drill.check(happens, lost=LOST)
    assert any("Job stalled" in one.told for one in facts.values())


def test_server_that_goes_and_comes_costs_nothing(drill: Drill) -> None:
    directory = Path(drill.grid["directory"])

    def happens(cluster: DiracCluster) -> None:
        box.restart_server(directory, up=False)
        cluster.check()
        box.restart_server(directory, up=True)

    drill.check(happens)


def test_server_that_answers_500_for_some_time_costs_nothing(drill: Drill) -> None:
    with in_front_of(drill.grid["diracx"]) as proxy:

        def happens(cluster: DiracCluster) -> None:
            asked = sum(proxy.seen.values())
            proxy.fault = lambda *_: 500
            wait_until(lambda: sum(proxy.seen.values()) > asked + 3, timeout_s=60, what="it has answered 500")
            cluster.check()
            proxy.fault = lambda *_: 0

        drill.check(happens, url=proxy.url)


PROGRAM = """
import sys
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracCluster, DiracExecutor
from slow_analysis import Slow

url, token, path, *sites = sys.argv[1:]
NanoAODSchema.warn_missing_crossrefs = False
cluster = DiracCluster(sites=dict.fromkeys(sites, 1), diracx=url, credentials=token)
cluster.wait_for(2, timeout=200)
print(cluster.jobs.service.group, flush=True)
run = processor.Runner(
    executor=DiracExecutor(cluster=cluster, cache="cache", status=False), chunksize=10, schema=NanoAODSchema
)
run({"ttbar": {"files": {path: "Events"}}}, Slow(), treename="Events")
"""


def test_killed_submitter_leaves_no_job_and_the_next_run_goes_on_where_it_was(drill: Drill) -> None:
    (drill.folder / "program.py").write_text(PROGRAM)
    grid, path = drill.grid, next(iter(drill.fileset["ttbar"]["files"]))
    command = [sys.executable, "program.py", grid["diracx"], grid["token_file"], path, SITE_A, SITE_B]
    program = subprocess.Popen(command, cwd=drill.folder, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    group = program.stdout.readline().strip()
    wait_until(lambda: drill.n_ran >= 10, timeout_s=200, what="the run is in its middle")
    program.kill()
    program.wait(60)
    with DiracxJobs(grid["diracx"], credentials=grid["token_file"], group=group) as jobs:
        wait_until(lambda: not jobs.job_ids(alive=True), timeout_s=60, what="no job is left")
        assert len(jobs.job_ids()) == 2
    before = drill.n_ran
    assert before < ITEMS
    executor = DiracExecutor(cache="cache", inline=True, status=False)
    out = drill.run(executor)
    assert drill.n_ran - before == executor.report.work_items["misses"] <= ITEMS - before + 2 * LOST
    assert out == drill.run(DiracExecutor(cache=None, inline=True, status=False))


def test_job_killed_through_dirac_is_replaced_and_nothing_changes(drill: Drill) -> None:
    def happens(cluster: DiracCluster) -> None:
        job = next(iter(cluster.workers.values()))
        cluster.jobs.service.kill([job])

    facts = drill.check(happens, lost=LOST)
    assert any(one.status == "killed" for one in facts.values())


def test_demo_on_the_grid_equals_the_local_run(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "demo-grid"], cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((Path(__file__).parent.parent / "agc_example/output/grid.json").read_text())
    assert found["equal_to_local"] is True
    assert sum(found["work_items_by_site"].values()) == found["work_items"] == 36
    assert len(found["work_items_by_site"]) == len(found["jobs"]) == 2
    assert "does not answer" in found["without_server"]
    if not lake.why_not():
        # Each work item was read where it was processed.
        near = {site: {lake.rse_of(site): number} for site, number in found["work_items_by_site"].items()}
        assert found["replicas_by_site"] == near
        assert [item["rses"] for item in found["replicas_read"]] == [
            [lake.rse_of(item["site"])] for item in found["replicas_read"]
        ]
        assert len({(item["file"], item["start"]) for item in found["replicas_read"]}) == 36
    assert found["processes_left"] == []
    assert (
        "equal to the bit" in done.stdout.strip().splitlines()[-1]
        or "output/grid.json" in done.stdout.strip().splitlines()[-1]
    )
