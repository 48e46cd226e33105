"""A process that kills the jobs of a submitter that has ended without doing so itself, ``kill -9`` included.

It holds the reading end of a pipe.  The submitter writes a word into it when all jobs are gone; an end without that
word means that jobs may be left, in a queue where nobody would miss them.  It imports nothing before that.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

DONE = b"done"
CHECK_S = 1.0
TRY_S = 600.0


class Janitor:
    """The submitter's side.

    Parameters
    ----------
    url : str
        The DiracX server.
    credentials : str
        The file of the token or proxy; its content goes nowhere.
    group : str
        The JobGroup whose jobs are killed.
    """

    def __init__(self, url: str, credentials: str, group: str) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__)), url, credentials, group],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Let it go: no job is left."""
        self._end(DONE)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def take_over(self) -> None:
        """Let it kill what is left, now and without us."""
        self._end(b"")

    def _end(self, word: bytes) -> None:
        assert self._process.stdin is not None
        if os.getpid() == self._owner:
            with suppress(BrokenPipeError):
                self._process.stdin.write(word)
                self._process.stdin.close()


def wait_for_the_end(parent: int) -> bool:
    """Return, once the submitter has ended or let go, whether jobs may be left."""
    heard = b""
    # A child that the submitter forked also holds the pipe; only the parent's id tells then.
    while os.getppid() == parent:
        if select.select([0], [], [], CHECK_S)[0]:
            got = os.read(0, 64)
            heard += got
            if not got:
                break
    return heard != DONE


def clean_up(url: str, credentials: str, group: str) -> None:
    """Kill the jobs of a group, as often as it takes within `TRY_S`."""
    from coffea_dirac.dirac.diracx import DiracxJobs
    from coffea_dirac.errors import CoffeaDiracError, CredentialError

    deadline = time.monotonic() + TRY_S
    jobs = DiracxJobs(url, credentials=credentials, group=group)
    while time.monotonic() < deadline:
        try:
            jobs.kill(jobs.job_ids(alive=True))
            return
        except CredentialError:
            return
        except CoffeaDiracError:
            time.sleep(5)


if __name__ == "__main__":
    if wait_for_the_end(os.getppid()):
        sys.path.append(str(Path(__file__).parent.parent.parent))
        clean_up(*sys.argv[1:4])
