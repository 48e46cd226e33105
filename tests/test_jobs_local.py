"""Jobs on this machine: the contract of a job service, and that nothing is ever left behind."""

from __future__ import annotations

import ast
import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from coffea_dirac.dirac import lifeline
from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import Job
from coffea_dirac.testing_jobs import JobServiceTests, wait_until

SLEEP = "import time; time.sleep(600)"
WITH_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{SLEEP}"])
print("child", child.pid, flush=True)
child.wait()
"""
GONE_S = 5.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LocalJobs]:
    with LocalJobs(str(tmp_path)) as service:
        yield service


class TestLocalJobs(JobServiceTests):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[LocalJobs]:
        with LocalJobs(str(tmp_path)) as service:
            yield service


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def output_of(service: LocalJobs, code: str) -> str:
    (job,) = service.submit([Job(("-c", code))])
    wait_until(lambda: service.status([job])[job] != "running", timeout_s=30, what="the job's end")
    return service.logs(job)


def child_of(service: LocalJobs, job: str) -> int:
    wait_until(lambda: "child" in service.logs(job), timeout_s=30, what="the job's child")
    return int(service.logs(job).split()[1])


def start_submitter(tmp_path: Path, code: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a process that submits jobs and prints ``pids ...`` when they are up."""
    path = tmp_path / "submitter.py"
    path.write_text(textwrap.dedent(code))
    command = [sys.executable, str(path), str(tmp_path)]
    submitter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert submitter.stdout is not None
    pids = [int(word) for word in submitter.stdout.readline().split()[1:]]
    assert pids, "the submitter said nothing"
    return submitter, pids


SUBMITTER = f"""
    import sys, time
    from coffea_dirac.dirac.local import LocalJobs
    from coffea_dirac.interfaces import Job
    service = LocalJobs(sys.argv[1])
    (ended,) = service.submit([Job(("-c", "pass"))])
    while service.status([ended])[ended] == "running":
        time.sleep(0.01)
    jobs = service.submit([Job(("-c", {WITH_CHILD!r}))] * 2)
    while not all("child" in service.logs(job) for job in jobs):
        time.sleep(0.01)
    children = [int(service.logs(job).split()[1]) for job in jobs]
"""


def test_nothing_is_made_before_the_first_job(tmp_path: Path) -> None:
    with LocalJobs(str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


def test_session_and_log_can_be_read_by_their_owner_only(service: LocalJobs) -> None:
    (job,) = service.submit([Job(("-c", "pass"))])
    session = service.session(job)
    assert session.stat().st_mode & 0o777 == 0o700
    assert session.parent.stat().st_mode & 0o777 == 0o700
    assert (session / "log").stat().st_mode & 0o777 == 0o600


def test_neither_the_session_nor_our_own_files_shadow_a_module(service: LocalJobs) -> None:
    (job,) = service.submit([Job(("-c", "import sys; print(sys.path)"), files={"json.py": b""})])
    wait_until(lambda: service.status([job])[job] != "running", timeout_s=30, what="the job's end")
    path = ast.literal_eval(service.logs(job))
    assert not {"", str(service.session(job)), str(Path(lifeline.__file__).parent)} & set(path)


def test_file_names_cannot_leave_the_session(service: LocalJobs) -> None:
    with pytest.raises(JobServiceError, match="plain name"):
        service.submit([Job(("-c", "pass"), files={"../escaped": b""})])


def test_script_and_module_run_as_the_interpreter_would_run_them(service: LocalJobs, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print(__name__, sys.argv[1:])")
    jobs = service.submit([Job((str(script), "a", "b")), Job(("-m", "json.tool", "--help"))])
    wait_until(lambda: set(service.status(jobs).values()) == {"done"}, timeout_s=30, what="both jobs")
    assert "__main__ ['a', 'b']" in service.logs(jobs[0])
    assert "usage" in service.logs(jobs[1])


def test_libraries_use_one_thread_unless_the_user_chose(service: LocalJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    words = output_of(service, "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])")
    assert words.split() == ["1", "7"]


def test_no_file_of_ours_is_open_in_a_job(service: LocalJobs, tmp_path: Path) -> None:
    with open(tmp_path / "ours", "w") as ours:
        os.set_inheritable(ours.fileno(), True)
        words = output_of(service, "import os; print([os.path.realpath(f'/proc/self/fd/{n}') for n in range(3, 200)])")
    assert str(tmp_path / "ours") not in words


def test_standard_input_of_a_job_is_empty(service: LocalJobs) -> None:
    assert "read: ''" in output_of(service, "import sys; print('read:', repr(sys.stdin.read()))")


def test_job_has_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(service: LocalJobs) -> None:
    words = output_of(service, "import os; print(os.getsid(0), os.getpgrp(), os.getpid())").split()
    assert len(set(words)) == 1
    assert int(words[0]) != os.getsid(0)


def test_killed_by_a_signal_is_failed_and_names_the_signal(service: LocalJobs) -> None:
    (job,) = service.submit([Job(("-c", SLEEP))])
    os.kill(service.process_id(job), signal.SIGKILL)
    wait_until(lambda: service.status([job])[job] == "failed", timeout_s=30, what="its end is seen")
    assert "SIGKILL" in service.logs(job)


def test_kill_ends_what_the_job_started(service: LocalJobs) -> None:
    (job,) = service.submit([Job(("-c", WITH_CHILD))])
    child = child_of(service, job)
    service.kill([job])
    wait_until(lambda: is_gone(child), timeout_s=GONE_S, what="the child is gone")


def test_what_a_dead_job_left_running_is_ended(service: LocalJobs) -> None:
    (job,) = service.submit([Job(("-c", WITH_CHILD))])
    child = child_of(service, job)
    os.kill(service.process_id(job), signal.SIGKILL)
    wait_until(lambda: service.status([job])[job] == "failed", timeout_s=30, what="its end is seen")
    wait_until(lambda: is_gone(child), timeout_s=GONE_S, what="the child is gone")


def test_close_ends_all_jobs_and_removes_their_directories(tmp_path: Path) -> None:
    service = LocalJobs(str(tmp_path))
    pids = [service.process_id(job) for job in service.submit([Job(("-c", SLEEP))] * 2)]
    service.close()
    service.close()
    assert all(is_gone(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


def test_dropped_service_ends_its_jobs(tmp_path: Path) -> None:
    service = LocalJobs(str(tmp_path))
    (job,) = service.submit([Job(("-c", SLEEP))])
    pid = service.process_id(job)
    del service
    gc.collect()
    assert is_gone(pid)


def test_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobServiceError, match="no-such-directory"):
        LocalJobs(str(tmp_path / "no-such-directory")).submit([Job(("-c", "pass"))])


def test_submitter_killed_leaves_no_process_and_no_directory(tmp_path: Path) -> None:
    submitter, pids = start_submitter(
        tmp_path,
        SUBMITTER + "    print('pids', *children, *map(service.process_id, jobs), flush=True); time.sleep(600)",
    )
    with submitter:
        submitter.kill()
    wait_until(lambda: all(map(is_gone, pids)), timeout_s=GONE_S, what="all processes are gone")
    wait_until(lambda: os.listdir(tmp_path) == ["submitter.py"], timeout_s=GONE_S, what="directories are gone")


def test_submitter_that_ends_normally_leaves_no_process(tmp_path: Path) -> None:
    code = SUBMITTER + "    print('pids', *children, *map(service.process_id, jobs), flush=True)"
    submitter, pids = start_submitter(tmp_path, code)
    with submitter:
        assert submitter.wait(timeout=30) == 0
    assert all(map(is_gone, pids))
    assert os.listdir(tmp_path) == ["submitter.py"]


def test_end_of_the_lifeline_ends_the_job_even_while_its_parent_lives(service: LocalJobs) -> None:
    (job,) = service.submit([Job(("-c", WITH_CHILD))])
    child = child_of(service, job)
    lifeline_end = service._processes[job].popen.stdin
    assert lifeline_end is not None
    lifeline_end.close()
    wait_until(lambda: service.status([job])[job] == "failed", timeout_s=GONE_S, what="the job's end")
    wait_until(lambda: is_gone(child), timeout_s=GONE_S, what="the end of the job's child")


def test_forked_child_of_a_killed_submitter_does_not_keep_its_jobs_alive(tmp_path: Path) -> None:
    code = """
    import os
    forked = os.fork()  # holds the lifelines, as it copies every open file
    if forked == 0:
        time.sleep(60)
    else:
        print("pids", forked, *map(service.process_id, jobs), flush=True)
        time.sleep(600)
    """
    submitter, (forked, *pids) = start_submitter(tmp_path, SUBMITTER + code)
    try:
        with submitter:
            submitter.kill()
            wait_until(lambda: all(map(is_gone, pids)), timeout_s=GONE_S, what="all jobs are gone")
            assert not is_gone(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


def test_forked_child_that_ends_does_not_end_the_jobs(tmp_path: Path) -> None:
    code = """
    import os
    forked = os.fork()
    if forked == 0:
        sys.exit()
    os.waitpid(forked, 0)
    print("pids", *map(service.process_id, jobs), flush=True)
    assert set(service.status(jobs).values()) == {"running"}
    assert all(service.session(job).exists() for job in jobs)
    """
    submitter, _ = start_submitter(tmp_path, SUBMITTER + code)
    with submitter:
        assert submitter.wait(timeout=30) == 0
