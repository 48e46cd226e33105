"""The cluster: workers come, are replaced, and nothing is left behind, however the submitter ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

import distributed
import psutil
import pytest
from coffea.processor import accumulate
from distributed import Client
from distributed.deploy.cluster import Cluster

from coffea_dirac.cluster.cluster import DiracCluster
from coffea_dirac.cluster.embedded import default_client, default_cluster, default_worker_count
from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.dirac.losses import Budget
from coffea_dirac.errors import ConfigurationError, JobServiceError
from coffea_dirac.interfaces import Job, JobFacts, JobStatus
from coffea_dirac.running.call import Call, Source
from coffea_dirac.running.workers import Workers
from coffea_dirac.testing_jobs import wait_until

START_S = 90.0
GONE_S = 10.0


class ChangedJobs:
    """A job service that runs another command than it was asked to: nodes where workers do not come up."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.submitted = 0
        self.local = LocalJobs()

    def submit(self, jobs: Sequence[Job]) -> Sequence[str]:
        self.submitted += len(jobs)
        return self.local.submit([Job(("-c", self.code), job.files) for job in jobs])

    def status(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        return self.local.status(ids)

    def describe(self, ids: Sequence[str]) -> Mapping[str, JobFacts]:
        return self.local.describe(ids)

    def kill(self, ids: Sequence[str]) -> None:
        self.local.kill(ids)

    def logs(self, job_id: str) -> str:
        return self.local.logs(job_id)


@pytest.fixture(scope="module")
def cluster() -> Iterator[DiracCluster]:
    with DiracCluster(2, imports=()) as cluster:
        cluster.wait_for(2, timeout=START_S)
        yield cluster


@pytest.fixture
def client(cluster: DiracCluster) -> Iterator[Client]:
    cluster.wait_for(2, timeout=START_S)
    with Client(cluster, set_as_default=False) as client:
        yield client


def processes_of(cluster: DiracCluster) -> list[psutil.Process]:
    """Return scheduler and workers; they are our children."""
    jobs = [cluster.jobs._scheduler, *cluster.workers.values()]
    return [psutil.Process(cluster.jobs.local.process_id(job)) for job in jobs]


def are_gone(pids: Sequence[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def worker_pids(client: Client) -> dict[str, int]:
    return dict(client.run(os.getpid))


def slow_task() -> Callable[[str], int]:
    """Return a task that says who works on it, then works until told to end; local, so that it travels by value."""

    def work(directory: str) -> int:
        Path(directory, str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while not Path(directory, "end").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return os.getpid()

    return work


# -- a dask cluster like any other


def test_nothing_is_started_by_making_a_cluster() -> None:
    before = psutil.Process().children(recursive=True)
    cluster = DiracCluster(2)
    assert "created" in repr(cluster)
    assert psutil.Process().children(recursive=True) == before
    cluster.close()
    cluster.close()


def test_it_is_a_dask_cluster(cluster: DiracCluster, client: Client) -> None:
    assert isinstance(cluster, Cluster)
    assert client.submit(sum, [1, 2, 3]).result(timeout=30) == 6
    assert sorted(client.gather(client.map(abs, range(-5, 0)))) == [1, 2, 3, 4, 5]
    assert len(cluster.workers) == 2
    assert cluster.scheduler_address == client.scheduler.address
    assert "2 of 2 workers" in repr(cluster)
    assert "DiracCluster" in cluster._repr_html_()


def test_results_of_one_worker_reach_the_other(client: Client) -> None:
    first, second = client.nthreads()
    here = client.submit(bytes, 1000, workers=first)
    assert client.submit(len, here, workers=second).result(timeout=30) == 1000


def test_each_worker_has_one_thread_and_no_nanny(client: Client) -> None:
    info = client.scheduler_info(n_workers=-1) if "n_workers" in _arguments(client) else client.scheduler_info()
    assert [worker["nthreads"] for worker in info["workers"].values()] == [1, 1]
    assert [worker["nanny"] for worker in info["workers"].values()] == [None, None]


def _arguments(client: Client) -> tuple[str, ...]:
    return client.scheduler_info.__code__.co_varnames


def test_everything_listens_on_the_loopback_interface_only(cluster: DiracCluster) -> None:
    listening = [
        connection.laddr.ip
        for process in processes_of(cluster)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) == {"127.0.0.1"}


def test_scheduler_imports_neither_coffea_nor_bokeh(client: Client) -> None:
    modules = client.run_on_scheduler(lambda: set(sys.modules))
    assert not modules & {"coffea", "bokeh", "uproot", "coffea_dirac", "pandas"}


def test_scheduler_hands_calls_on_without_importing_what_is_in_them(client: Client) -> None:
    calls = [Call(accumulate, (3,), "sum")]
    came = list(Workers(client, None, None).each([1, 2], Source(lambda _: calls.pop() if calls else None)))
    assert [(call.about, result) for call, result, _ in came] == [("sum", 6)]
    modules = client.run_on_scheduler(lambda: set(sys.modules))
    assert not modules & {"coffea", "uproot", "pandas"}


def test_tasks_are_innocent_of_ten_deaths(client: Client) -> None:
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) >= 10


def test_workers_search_the_submitters_places_for_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper_next_to_the_script.py").write_text("def answer(): return 42")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def ask() -> tuple[int, str]:
        import helper_next_to_the_script

        return helper_next_to_the_script.answer(), os.getcwd()

    with DiracCluster(1, imports=()) as cluster, Client(cluster, set_as_default=False) as client:
        assert client.submit(ask).result(timeout=START_S) == (42, str(tmp_path))


def test_client_starts_a_cluster_that_was_not_started() -> None:
    cluster = DiracCluster(1, imports=())
    try:
        with Client(cluster, set_as_default=False) as client:
            assert client.submit(int, "7").result(timeout=START_S) == 7
    finally:
        cluster.close()


def test_cluster_grows_and_shrinks() -> None:
    with DiracCluster(1, imports=()) as cluster:
        cluster.scale(2)
        cluster.wait_for(2, timeout=START_S)
        pids = [process.pid for process in processes_of(cluster)]
        cluster.scale(1)
        wait_until(lambda: len(cluster.scheduler_info["workers"]) == 1, timeout_s=30, what="one worker went")
        wait_until(lambda: sum(map(psutil.pid_exists, pids)) == 2, timeout_s=30, what="and its process")
        assert len(cluster.workers) == 1
        cluster.check()


# -- losses


def test_task_of_a_killed_worker_ends_elsewhere_and_the_worker_is_replaced(
    cluster: DiracCluster, client: Client, tmp_path: Path
) -> None:
    before = dict(cluster.workers)
    future = client.submit(slow_task(), str(tmp_path), pure=False)
    wait_until(lambda: any(tmp_path.iterdir()), timeout_s=30, what="the task runs")
    (victim,) = [int(path.name) for path in tmp_path.iterdir()]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, timeout_s=START_S, what="the task runs again")
    (tmp_path / "end").touch()
    assert future.result(timeout=30) != victim
    wait_until(lambda: victim not in worker_pids(client).values(), timeout_s=30, what="the dead worker is forgotten")
    wait_until(lambda: len(client.nthreads()) == 2, timeout_s=START_S, what="a replacement comes")
    assert len(set(before) & set(cluster.workers)) == 1
    cluster.check()


def test_workers_that_cannot_start_are_an_error_with_their_last_words() -> None:
    service = ChangedJobs("raise SystemExit('libXrdCl.so: cannot open shared object file')")
    started = time.monotonic()
    with (
        pytest.raises(JobServiceError, match=r"(?s)in a row did not come up.*exit code 1") as caught,
        DiracCluster(2, service=service) as cluster,
    ):
        cluster.wait_for(1, timeout=START_S)
    assert "libXrdCl.so" in str(caught.value)
    assert time.monotonic() - started < START_S / 2
    assert service.submitted <= 6


AFTER_THE_SCHEDULER = """
import json, os, time
contact = json.load(open("worker.json"))["contact"]
while not os.path.exists(contact):
    time.sleep(0.01)
"""


def test_tasks_do_not_wait_for_ever_for_workers_that_cannot_start() -> None:
    with DiracCluster(1, service=ChangedJobs(AFTER_THE_SCHEDULER + "time.sleep(1); raise SystemExit(1)")) as cluster:
        client = Client(cluster, set_as_default=False)
        future = client.submit(int, "7")
        with pytest.raises(CancelledError):
            future.result(timeout=60)
        client.close()


def test_worker_that_never_joins_is_ended_and_named() -> None:
    service = ChangedJobs(AFTER_THE_SCHEDULER + "time.sleep(600)")
    with (
        pytest.raises(JobServiceError, match="did not join within 5 s"),
        DiracCluster(1, service=service, budget=Budget(start_failures=2, start_timeout_s=5.0)) as cluster,
    ):
        cluster.wait_for(1, timeout=START_S)


def test_workers_lost_too_often_are_no_longer_replaced() -> None:
    with DiracCluster(1, imports=(), budget=Budget(lost=2)) as cluster:
        for _ in range(2):
            wait_until(lambda: len(cluster.observed) == 1, timeout_s=START_S, what="a worker")
            (name,) = cluster.observed
            os.kill(cluster.jobs.local.process_id(cluster.workers[name]), signal.SIGKILL)
            wait_until(lambda: name not in cluster.workers, timeout_s=30, what="its loss is seen")  # noqa: B023
        with pytest.raises(JobServiceError, match="2 workers were lost within"):
            cluster.wait_for(1, timeout=START_S)


def test_waiting_for_workers_has_an_end_that_tells_why() -> None:
    with (
        DiracCluster(1, service=ChangedJobs("print('still unpacking'); import time; time.sleep(600)")) as cluster,
        pytest.raises(JobServiceError, match=r"(?s)Only 0 of 1 workers joined within 2 s.*still unpacking"),
    ):
        cluster.wait_for(1, timeout=2)


def test_dead_scheduler_is_an_error_and_nothing_is_left() -> None:
    with DiracCluster(1, imports=()) as cluster:
        cluster.wait_for(1, timeout=START_S)
        pids = [process.pid for process in processes_of(cluster)]
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: cluster.jobs.failure is not None, timeout_s=30, what="its end is seen")
        with pytest.raises(JobServiceError, match="scheduler has ended"):
            cluster.check()
    assert are_gone(pids)


def test_close_leaves_no_process_no_directory_and_no_second_life() -> None:
    cluster = DiracCluster(2, imports=())
    cluster.start()
    cluster.wait_for(1, timeout=START_S)
    pids = [process.pid for process in processes_of(cluster)]
    session = cluster.jobs.local.session(next(iter(cluster.workers.values())))
    cluster.close()
    assert are_gone(pids)
    assert not session.parent.exists()
    with pytest.raises(JobServiceError, match="make a new one"):
        cluster.start()


def test_a_cluster_without_workers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="workers=0"):
        DiracCluster(0)


def test_options_for_sites_are_refused_without_a_site() -> None:
    for options in (
        {"tags": ["GPU"]},
        {"environment": "/cvmfs/x"},
        {"banned": ["LCG.A.uk"]},
        {"credentials": "token.json"},
    ):
        with pytest.raises(ConfigurationError, match="say where"):
            DiracCluster(2, **options)


def test_workers_of_this_machine_have_the_threads_and_resources_asked_for_and_no_end() -> None:
    with DiracCluster(1, cores=2, resources={"GPU": 1}, imports=()) as cluster:
        cluster.wait_for(1, timeout=START_S)
        (worker,) = cluster.scheduler_info["workers"].values()
        assert (worker["nthreads"], worker["resources"]) == (2, {"GPU": 1})
        with Client(cluster, set_as_default=False) as client:
            assert client.run(lambda dask_worker: dask_worker.lifetime) == dict.fromkeys(client.nthreads())


# -- the embedded default


@pytest.fixture
def shared() -> Iterator[DiracCluster]:
    cluster = default_cluster(1)
    yield cluster
    cluster.close()


def test_default_is_shared_and_is_not_dasks_default(shared: DiracCluster) -> None:
    client = default_client(1)
    assert default_client(1) is client
    assert client.cluster is shared
    assert client.submit(int, "7").result(timeout=START_S) == 7
    with pytest.raises(ValueError, match="No global client"):
        distributed.get_client()


def test_default_grows_and_is_renewed_after_its_end(shared: DiracCluster) -> None:
    assert len(default_cluster(2).workers) <= 2
    wait_until(lambda: len(shared.workers) == 2, timeout_s=30, what="a second worker")
    assert len(default_cluster(1).workers) == 2
    shared.close()
    second = default_cluster(1)
    try:
        assert second is not shared
        assert default_client(1).cluster is second
    finally:
        second.close()


def test_number_of_workers_can_be_set_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFFEA_DIRAC_WORKERS", "3")
    assert default_worker_count() == 3
    monkeypatch.setenv("COFFEA_DIRAC_WORKERS", "many")
    with pytest.raises(ConfigurationError, match="many"):
        default_worker_count()
    monkeypatch.delenv("COFFEA_DIRAC_WORKERS")
    assert default_worker_count() >= 1


# -- however the submitter ends

PROGRAM = """
    from coffea_dirac.cluster.embedded import default_client, default_cluster

    client = default_client(2)
    default_cluster(2).wait_for(2, timeout=90)
    cluster = default_cluster(2)
    pids = [cluster.jobs.local.process_id(job) for job in [cluster.jobs._scheduler, *cluster.workers.values()]]
    root = cluster.jobs.local.session(cluster.jobs._scheduler).parent
    print("result", client.submit(pow, 2, 5).result(timeout=60), flush=True)
    print("pids", root, *pids, flush=True)
"""
WAIT = "\nimport time; time.sleep(600)\n"


def start_program(command: Sequence[str], directory: Path) -> tuple[subprocess.Popen[str], str, list[int]]:
    """Start a submitter and return it with its jobs' directory and processes."""
    program = subprocess.Popen(
        [sys.executable, *command], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    if program.stdout.readline().split() != ["result", "32"]:
        raise AssertionError(program.communicate(timeout=30))
    _, root, *pids = program.stdout.readline().split()
    return program, root, [int(pid) for pid in pids]


def write_program(directory: Path, end: str = "") -> str:
    (directory / "program.py").write_text(textwrap.dedent(PROGRAM) + end)
    return "program"


@pytest.mark.parametrize("way", ["script", "module", "command"])
def test_unguarded_program_works_and_leaves_nothing(tmp_path: Path, way: str) -> None:
    name = write_program(tmp_path)
    command = {"script": [f"{name}.py"], "module": ["-m", name], "command": ["-c", textwrap.dedent(PROGRAM)]}[way]
    program, root, pids = start_program(command, tmp_path)
    _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")
    assert are_gone(pids)
    assert not os.path.exists(root)


def test_killed_program_leaves_nothing(tmp_path: Path) -> None:
    program, root, pids = start_program([f"{write_program(tmp_path, WAIT)}.py"], tmp_path)
    program.kill()
    program.communicate(timeout=30)
    wait_until(lambda: are_gone(pids), timeout_s=GONE_S, what="all processes are gone")
    wait_until(lambda: not os.path.exists(root), timeout_s=GONE_S, what="the directories are gone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_program_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    program, root, pids = start_program([f"{write_program(tmp_path, WAIT)}.py"], tmp_path)
    program.send_signal(number)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == -number
    assert "KeyboardInterrupt" in errors or number == signal.SIGTERM
    wait_until(lambda: are_gone(pids), timeout_s=GONE_S, what="all processes are gone")
    wait_until(lambda: not os.path.exists(root), timeout_s=GONE_S, what="the directories are gone")


def test_interrupt_in_the_middle_of_a_start_leaves_nothing(tmp_path: Path) -> None:
    code = """
        import os, psutil, signal, threading
        from coffea_dirac.cluster.cluster import DiracCluster
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            DiracCluster(2).start()
        except KeyboardInterrupt:
            print("interrupted", psutil.Process().children(recursive=True))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert result.stdout.strip() == "interrupted []", result.stderr


def test_workers_outlive_the_terminals_ctrl_c(cluster: DiracCluster) -> None:
    assert os.getpgrp() not in {os.getpgid(process.pid) for process in processes_of(cluster)}


def test_forked_child_gets_a_cluster_of_its_own(tmp_path: Path) -> None:
    code = PROGRAM + textwrap.indent(
        textwrap.dedent("""
            import os
            child = os.fork()
            if child == 0:
                own = default_cluster(1)
                assert own is not cluster
                own.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert client.submit(pow, 2, 6).result(timeout=60) == 64
        """),
        "    ",
    )
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    program, _, pids = start_program(["-W", "ignore", "program.py"], tmp_path)
    _, errors = program.communicate(timeout=90)
    assert program.returncode == 0, errors
    assert are_gone(pids)


def test_notebook_works_and_leaves_nothing(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(PROGRAM))])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    lines = "".join(output.get("text", "") for output in notebook.cells[0].outputs).splitlines()
    assert "result 32" in lines, json.dumps(notebook.cells[0].outputs)
    pids = [int(pid) for line in lines if line.startswith("pids") for pid in line.split()[2:]]
    assert pids
    wait_until(lambda: are_gone(pids), timeout_s=GONE_S, what="all processes are gone")
