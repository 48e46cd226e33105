"""A site of the grid in a box, as the matcher sees it: what it has, and the pilot that runs jobs there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PID_FILES = ("wrapper.pid", "payload.pid")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """What a site has.

    Parameters
    ----------
    slots : int
        Processors for jobs.
    tags : tuple of str
        What jobs may ask for besides.
    """

    slots: int
    tags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> tuple[str, Self]:
        """Return name and options of ``NAME:SLOTS[:TAG,...]``.

        Raises
        ------
        ValueError
            It is none of that, or there are no slots.

        Examples
        --------
        >>> SiteOptions.parse("LCG.Box-A.uk:2:GPU")
        ('LCG.Box-A.uk', SiteOptions(slots=2, tags=('GPU',)))
        """
        name, slots, tags, *more = [*text.split(":"), ""]
        if not NAME.fullmatch(name) or int(slots) < 1 or any(more):
            raise ValueError(f"{text!r} is no site")
        return name, cls(int(slots), tuple(filter(None, tags.split(","))))


class Pilot:
    """A pilot's process, and what it says.

    Parameters
    ----------
    site : str
        The site's name.
    directory : Path
        Where it makes the directories of jobs.
    url : str
        The server.
    heartbeat_s : float
        How often a job says that it is alive, and hears that it is to end.
    credentials_of : callable
        (user, group) -> the file with a token of theirs, with which their jobs are run.
    """

    def __init__(
        self, site: str, directory: Path, url: str, heartbeat_s: float, credentials_of: Callable[[str, str], Path]
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._credentials_of = credentials_of
        options = {"site": site, "directory": str(directory), "url": url, "heartbeat_s": heartbeat_s}
        with (directory / "pilot.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("pilot.py")), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._heard = b""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def take(self, job_id: int, description: str, user: str, group: str) -> None:
        """Hand a matched job over."""
        credentials = str(self._credentials_of(user, group))
        job: dict[str, Any] = {"job_id": job_id, "jdl": description, "credentials": credentials}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died: the matcher will see
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def ended_jobs(self) -> Iterator[int]:
        """Yield the jobs whose wrappers have ended since the last call."""
        assert self._process.stdout is not None
        self._heard += self._process.stdout.read() or b""
        *lines, self._heard = self._heard.split(b"\n")
        yield from map(int, lines)

    def end(self) -> None:
        """End it and all it runs, as a batch system does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        kill_jobs(self._directory)


def kill_jobs(directory: Path) -> None:
    """End what runs in the job directories below a site's directory, and remove them."""
    for job in directory.glob("job-*"):
        kill_job(job)
        shutil.rmtree(job, ignore_errors=True)


def kill_job(directory: Path) -> None:
    """End a job's wrapper and payload, each of which leads a process group."""
    for name in PID_FILES:
        with suppress(FileNotFoundError, ValueError, ProcessLookupError, PermissionError):
            os.killpg(int((directory / name).read_text()), signal.SIGKILL)
