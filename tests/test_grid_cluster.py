"""DiracCluster at sites: workers are jobs of a real DiracX server, come when there is work, and leave no job behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client
from grids import NOWHERE, SITE_A, SITE_B, SITE_GPU, START_S, cluster_on, jobs_of
from scenario import Scenario

from coffea_dirac import DiracCluster, WorkerGroup
from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.testing_jobs import wait_until

pytestmark = pytest.mark.needs("diracx")


@pytest.fixture(scope="module")
def cluster(grid: dict[str, Any]) -> Iterator[DiracCluster]:
    """A cluster at two sites, and a client of it by which it was started."""
    with cluster_on(grid, sites={SITE_A: 1, SITE_B: 1}) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: DiracCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


def where() -> Callable[[], tuple[str, str]]:
    """Return a task that says where it runs; local, so that it travels by value."""
    return lambda: (os.environ["DIRACSITE"], os.environ["COFFEA_DIRAC_JOB"])


# -- a cluster like any other, at sites


def test_no_job_and_no_worker_before_the_first_task(cluster: DiracCluster, client: Client) -> None:
    assert cluster.workers == {}
    assert jobs_of(cluster)._janitor is None
    assert "0 of 0 workers" in repr(cluster)
    assert cluster.table() == []


def test_work_brings_workers_at_the_sites(cluster: DiracCluster, client: Client) -> None:
    cluster.ask_for(2)
    cluster.wait_for(2, timeout=START_S)
    found = {client.submit(where(), workers=worker, pure=False).result(timeout=30) for worker in client.nthreads()}
    assert {site for site, _ in found} == {SITE_A, SITE_B}
    assert {name for _, name in found} == set(cluster.workers)
    info = cluster.scheduler_info["workers"].values()
    assert {worker["site"] for worker in info} == {SITE_A, SITE_B}


def test_workers_are_jobs_of_the_server(cluster: DiracCluster, client: Client) -> None:
    cluster.wait_for(2, timeout=START_S)
    jobs = jobs_of(cluster)
    assert set(cluster.workers.values()) <= set(jobs.job_ids())
    rows = {row["worker"]: row for row in cluster.table()}
    wait_until(lambda: all("Application" in row["told"] for row in cluster.table()), timeout_s=30, what="facts come")
    assert {row["state"] for row in rows.values()} == {"up"}
    assert {row["site"] for row in rows.values()} == {SITE_A, SITE_B}
    assert "<table>" in cluster._repr_html_()
    assert SITE_A in cluster._repr_html_()


def test_usage_tells_core_hours_and_how_much_of_them_was_spent_computing(cluster: DiracCluster, client: Client) -> None:
    cluster.wait_for(2, timeout=START_S)

    def burn() -> None:
        end = time.process_time() + 2
        while time.process_time() < end:
            pass

    client.submit(burn, workers=next(iter(client.nthreads())), pure=False).result(timeout=60)

    def efficiencies() -> list[Any]:
        return [row["cpu_efficiency"] for row in cluster.usage()]

    wait_until(lambda: all(efficiencies()), timeout_s=30, what="workers say what they have used")
    rows = cluster.usage()
    assert [row["site"] for row in rows] == sorted([SITE_A, SITE_B])
    assert all(0 < row["cpu_efficiency"] <= 1.1 and row["core_hours"] > 0 and row["up"] == 1 for row in rows)


def test_scheduler_holds_no_token(cluster: DiracCluster, client: Client, grid: dict[str, Any]) -> None:
    token = json.loads(Path(grid["token_file"]).read_text())["access_token"]
    environment, arguments = client.run_on_scheduler(lambda: (dict(os.environ), list(sys.argv)))
    assert token not in str((environment, arguments))
    workers = client.run(lambda: str((dict(os.environ), [path.read_bytes() for path in Path().glob("*.json")])))
    assert token not in str(workers)


def test_no_token_is_in_jobs_command_lines_or_logs(
    cluster: DiracCluster, client: Client, grid: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cluster.wait_for(2, timeout=START_S)
    token = json.loads(Path(grid["token_file"]).read_text())
    # Tokens are renewed; what does not change is whose they are, in the middle part.
    secrets = [part for name in ("access_token", "refresh_token") for part in token[name].split(".")[1:]]
    place = Path(grid["directory"], "sites")
    files = [path for path in place.glob("job-*/**/*") if path.is_file()] + [*place.glob("*/pilot.log")]
    files += [path for path in place.glob("*/job-*/**/*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert any(path.name == "worker.json" for path in files)
    told = [path.read_text(errors="replace") for path in files]
    for process in psutil.process_iter(["cmdline"]):
        if "coffea_dirac" in " ".join(process.info["cmdline"] or []):
            told.append(" ".join(process.info["cmdline"]))
    told += [repr(cluster), cluster.job_script(), str(cluster.table()), repr(jobs_of(cluster)), caplog.text]
    told.append(str(client.run_on_scheduler(lambda dask_scheduler: str(dask_scheduler.identity()))))
    assert not [text[:200] for text in told if any(secret in text for secret in secrets)]


def test_lost_worker_is_replaced_by_another_job(cluster: DiracCluster, client: Client) -> None:
    cluster.wait_for(2, timeout=START_S)
    before = dict(cluster.workers)
    victim = client.run(lambda: (os.environ["COFFEA_DIRAC_JOB"], os.getpid()))
    name, pid = next(iter(victim.values()))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: name not in cluster.workers, timeout_s=60, what="its end is seen")
    cluster.wait_for(2, timeout=START_S)
    wait_until(lambda: len(cluster.workers) == 2, timeout_s=30, what="another job")
    assert before[name] not in cluster.workers.values()
    assert jobs_of(cluster).describe([before[name]])[before[name]].status == "failed"
    cluster.check()


def test_worker_that_loses_the_scheduler_comes_back_in_the_same_job(cluster: DiracCluster, client: Client) -> None:
    cluster.wait_for(2, timeout=START_S)
    before = dict(cluster.workers)

    def cut(dask_scheduler: Any) -> str:
        address, comm = next(iter(dask_scheduler.stream_comms.items()))
        name = dask_scheduler.workers[address].name
        comm.abort()
        return str(name)

    name = client.run_on_scheduler(cut)

    def names() -> set[str]:
        return {worker["name"] for worker in cluster.scheduler_info["workers"].values()}

    wait_until(lambda: f"{name}~1" in names() and name not in names(), timeout_s=60, what="it comes back")
    assert cluster.workers == before
    assert jobs_of(cluster).status([before[name]])[before[name]] == "running"


def test_scaling_by_site_ends_the_others_in_good_order(cluster: DiracCluster, client: Client) -> None:
    cluster.wait_for(2, timeout=START_S)
    site_of = {worker["name"]: worker["site"] for worker in cluster.scheduler_info["workers"].values()}
    (goes,) = [name for name, site in site_of.items() if site == SITE_A]
    job = cluster.workers[goes.partition("~")[0]]
    cluster.scale(sites={SITE_B: 1})
    wait_until(lambda: len(cluster.scheduler_info["workers"]) == 1, timeout_s=30, what="it leaves")
    wait_until(lambda: jobs_of(cluster).status([job])[job] == "done", timeout_s=60, what="its job is done")
    assert goes.partition("~")[0] not in cluster.workers
    with pytest.raises(ConfigurationError, match=f"{NOWHERE}.*is no site of this cluster"):
        cluster.scale(sites={NOWHERE: 1})


def test_idle_workers_end_and_come_again(cluster: DiracCluster, client: Client) -> None:
    cluster.adapt(idle=0.5)
    wait_until(
        lambda: not cluster.scheduler_info["workers"] and not cluster.workers, timeout_s=60, what="all have gone"
    )
    assert client.submit(pow, 2, 5, pure=False).result(timeout=START_S) == 32


def test_close_leaves_no_job(cluster: DiracCluster) -> None:
    jobs = jobs_of(cluster)
    ids = jobs.job_ids()
    cluster.close()
    assert len(ids) >= 2
    assert not set(jobs.status(ids).values()) & {"waiting", "running"}
    jobs.close()


# -- groups


def test_tasks_bring_workers_of_the_group_that_can_do_them(grid: dict[str, Any]) -> None:
    groups = [
        WorkerGroup("cpu", sites={SITE_B: 1}),
        WorkerGroup("gpu", sites=[SITE_A, SITE_GPU], maximum=1, tags=["GPU"], resources={"GPU": 1}),
    ]
    with cluster_on(grid, groups=groups) as cluster, Client(cluster, set_as_default=False) as client:
        assert client.submit(where(), resources={"GPU": 1}).result(timeout=START_S) == (SITE_GPU, "gpu-0")
        assert set(cluster.workers) == {"gpu-0"}


# -- environments


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_environment_is_packed_once_and_workers_run_in_it(grid: dict[str, Any], tmp_path: Path) -> None:
    def where_from() -> tuple[str, str]:
        import awkward

        return awkward.__file__, sys.executable

    environment = f"venv:{tmp_path}"
    for _ in range(2):
        with cluster_on(grid, sites={SITE_A: 1}, environment=environment) as cluster, Client(cluster) as client:
            module, python = client.submit(where_from, pure=False).result(timeout=300)
        assert "/.site/awkward/" in module
        assert not python.startswith(sys.prefix)
        assert len(list(tmp_path.iterdir())) == 1


# -- however the submitter ends

OTHERS = (signal.SIGINT, signal.SIGTERM)
PROGRAM = """
    import sys, time
    from coffea_dirac import DiracCluster
    from distributed import Client

    url, token, site, nowhere = sys.argv[1:]
    cluster = DiracCluster(sites={site: 1, nowhere: 1}, diracx=url, credentials=token, imports=())
    client = Client(cluster)
    cluster.ask_for(2)
    cluster.wait_for(1, timeout=120)
    print(cluster.jobs.service.group, *cluster.workers.values(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.long) for n in OTHERS)])
def test_program_that_ends_leaves_no_job(grid: dict[str, Any], tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(script), grid["diracx"], grid["token_file"], SITE_B, NOWHERE]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert program.stdout is not None
    group, *ids = program.stdout.readline().split()
    assert len(ids) == 2
    program.send_signal(number)
    program.wait(60)
    with DiracxJobs(grid["diracx"], credentials=grid["token_file"], group=group) as jobs:
        wait_until(lambda: not jobs.job_ids(alive=True), timeout_s=60, what="no job is left")
        assert sorted(jobs.job_ids()) == sorted(ids)
    wait_until(lambda: not _janitors(group), timeout_s=60, what="the janitor has gone")


def _janitors(group: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if group in (process.info["cmdline"] or []):
            found.append(process.pid)
    return found


# -- the executor


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path)


def test_full_hit_asks_no_server_and_no_credential(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    first = scenario.run()
    assert first.misses > 0
    make = (
        "from coffea_dirac import DiracCluster; executor = DiracExecutor(**{'cache': 'cache', 'status': False, 'cluster': "
        "DiracCluster(sites={'LCG.Box-A.uk': 1}, diracx='http://127.0.0.1:9', credentials='/nonexistent'), **options})"
    )
    again = scenario.run(make=make)
    assert (again.error, again.misses, again.warnings) == (None, 0, [])
    assert again.out == first.out
