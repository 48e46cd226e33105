"""Jobs that are processes of this machine: the embedded default and the stand-in for a grid.

Each job is a fresh interpreter in a session of its own (a Ctrl-C in the terminal does not reach it), in a directory of
its own that only its owner can read, tied to this process by a lifeline (`coffea_dirac.dirac.lifeline`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import Job, JobFacts, JobStatus

LOG_BYTES = 1 << 20
"""How much of the end of a job's log is returned."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_LIFELINE = Path(__file__).with_name("lifeline.py")


@dataclass(slots=True)
class _Process:
    session: Path
    popen: subprocess.Popen[bytes]
    killed: bool = False


class LocalJobs:
    """A `coffea_dirac.interfaces.JobService` whose jobs are processes of this machine.

    They end when `close` is called, when this object is dropped, and when this process ends for whatever reason,
    ``kill -9`` included.

    Parameters
    ----------
    directory : str, optional
        Where the jobs' session directories are made; by default in the system's temporary directory.

    Examples
    --------
    >>> import time
    >>> from coffea_dirac.interfaces import Job
    >>> with LocalJobs() as service:
    ...     (job,) = service.submit([Job(("-c", "print('hello')"))])
    ...     deadline = time.monotonic() + 30
    ...     while service.status([job])[job] == "running" and time.monotonic() < deadline:
    ...         time.sleep(0.01)
    ...     print(service.status([job])[job], service.logs(job).strip())
    done hello
    """

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._root: Path | None = None
        self._processes: dict[str, _Process] = {}
        self._lock = threading.Lock()
        self._end: weakref.finalize[[dict[str, _Process], Path, int], LocalJobs] | None = None

    def submit(self, jobs: Sequence[Job]) -> Sequence[str]:
        """Start the jobs and return an id for each, in order.

        Raises
        ------
        JobServiceError
            A process or its directory cannot be made; those already started are left running.
        """
        return [self._start(job) for job in jobs]

    def _start(self, job: Job) -> str:
        job_id = uuid.uuid4().hex[:12]
        try:
            with self._lock:
                session = self._make_root() / job_id
                _write_session(session, job.files)
                self._processes[job_id] = _Process(session, _popen(job, session))
        except OSError as error:
            raise JobServiceError(
                f"A job could not be started on this machine: {error}. Is {self._directory or tempfile.gettempdir()} "
                "writable, with space left, and is the limit of processes (ulimit -u) high enough? Another place: "
                "LocalJobs(directory='/path')."
            ) from error
        return job_id

    def _make_root(self) -> Path:
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="coffea-dirac-", dir=self._directory))
            self._end = weakref.finalize(self, _end_all, self._processes, self._root, os.getpid())
        return self._root

    def status(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Return the status of each job.

        Raises
        ------
        JobServiceError
            An id is not one of this service's.
        """
        return {job_id: _status(self._process(job_id)) for job_id in ids}

    def describe(self, ids: Sequence[str]) -> Mapping[str, JobFacts]:
        """Return what is known of each job.

        Raises
        ------
        JobServiceError
            An id is not one of this service's.
        """
        found = {job_id: self._process(job_id) for job_id in ids}
        return {job_id: JobFacts(_status(one), _last_words(one).strip("()\n")) for job_id, one in found.items()}

    def kill(self, ids: Sequence[str]) -> None:
        """End jobs and all they started; one that has ended already is no error."""
        for process in [self._process(job_id) for job_id in ids]:
            _kill(process)

    def logs(self, job_id: str) -> str:
        """Return what a job has printed, the last megabyte at most, and its exit code if it has failed."""
        process = self._process(job_id)
        with suppress(FileNotFoundError), open(process.session / "log", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
            return log.read().decode(errors="replace") + _last_words(process)
        return _last_words(process)

    def process_id(self, job_id: str) -> int:
        """Return the operating system's id of a job's process."""
        return self._process(job_id).popen.pid

    def session(self, job_id: str) -> Path:
        """Return the directory in which a job was started."""
        return self._process(job_id).session

    def close(self) -> None:
        """End all jobs and remove their directories; the service can be used again afterwards."""
        with self._lock:
            if self._end is not None:
                self._end()
            self._root, self._end = None, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _process(self, job_id: str) -> _Process:
        try:
            return self._processes[job_id]
        except KeyError:
            raise JobServiceError(
                f"{job_id!r} is no job of this service (it has {len(self._processes)}); ids come from submit() and are "
                "forgotten by close()."
            ) from None


def _write_session(session: Path, files: Mapping[str, bytes]) -> None:
    session.mkdir(mode=0o700)
    for name, content in files.items():
        if Path(name).name != name:
            raise JobServiceError(f"A job's file must be a plain name, not {name!r}.")
        with open(os.open(session / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)


def _popen(job: Job, session: Path) -> subprocess.Popen[bytes]:
    # -P: what lies in the session directory must not shadow a module.
    command = [sys.executable, "-P", str(_LIFELINE), str(session), *job.arguments]
    with open(os.open(session / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=session,
            env=_environment(job),
            start_new_session=True,
        )


def _environment(job: Job) -> dict[str, str]:
    """Return the jobs' environment: ours, with one thread per library unless the user chose otherwise."""
    return {**dict.fromkeys(THREAD_VARIABLES, "1"), **os.environ, "PYTHONUNBUFFERED": "1", "COFFEA_DIRAC_JOB": job.name}


def _has_ended(process: _Process) -> bool:
    """Reap a job that has ended, after killing what it left running in its process group."""
    popen = process.popen
    if popen.returncode is not None:
        return True
    with suppress(ChildProcessError):  # somebody else reaped it; poll() below then knows
        # Looking without reaping keeps the id ours, so that the group killed cannot be somebody else's.
        if os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        _kill_group(popen.pid)
    ended = popen.poll() is not None
    if ended and popen.stdin is not None:
        popen.stdin.close()
    return ended


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _status(process: _Process) -> JobStatus:
    if not _has_ended(process):
        return "running"
    if process.killed:
        return "killed"
    return "done" if process.popen.returncode == 0 else "failed"


def _kill(process: _Process) -> None:
    if _has_ended(process):
        return
    process.killed = True
    _kill_group(process.popen.pid)
    process.popen.wait()
    if process.popen.stdin is not None:
        process.popen.stdin.close()


def _last_words(process: _Process) -> str:
    code = process.popen.returncode
    if not code or process.killed:
        return ""
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"(the process ended with {cause})\n"


def _end_all(processes: dict[str, _Process], root: Path, owner: int) -> None:
    if os.getpid() != owner:  # a forked child must not end its parent's jobs
        return
    for process in processes.values():
        _kill(process)
    processes.clear()
    shutil.rmtree(root, ignore_errors=True)
