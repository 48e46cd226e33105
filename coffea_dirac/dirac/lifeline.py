"""Run a job's command so that it ends with the process that submitted it.

The submitter holds the writing end of a pipe whose reading end is our standard input.  Nothing is ever written: when
the submitter ends, however it ends, the kernel closes the pipe, a thread here sees the end of the stream and kills the
job with all it started.  (Not ``PR_SET_PDEATHSIG``: that follows the *thread* that forked, not its process.)

This file is run by its path and imports the standard library only: not one module more than the job asks for.
"""

from __future__ import annotations

import os
import runpy
import select
import shutil
import signal
import sys
import threading
from collections.abc import Sequence

CHECK_S = 1.0
"""Seconds between two looks at the parent's id, for the case that another process holds the pipe open."""

REMOVALS = 5


def watch(session: str) -> None:
    """End this process, and its process group if it leads one, when the submitter ends.

    Parameters
    ----------
    session : str
        The job's session directory.  It and its neighbours are removed then: nobody is left who could read them.
    """
    # Our standard input becomes empty, so that neither the job's code nor what it starts can eat the end of the pipe.
    pipe = os.dup(0)
    with open(os.devnull, "rb") as empty:
        os.dup2(empty.fileno(), 0)
    threading.Thread(target=_wait_and_end, args=(pipe, os.getppid(), session), name="lifeline", daemon=True).start()


def _wait_and_end(pipe: int, parent: int, session: str) -> None:
    # A child that the submitter forked (not exec'ed) also holds the pipe; only the parent's id tells then.
    while os.getppid() == parent:
        ready, _, _ = select.select([pipe], [], [], CHECK_S)
        if ready and not os.read(pipe, 4096):
            break
    # All of the submitter's, since jobs that have ended already cannot; again, since jobs that end now still write.
    root = os.path.dirname(session)
    for _ in range(REMOVALS):
        shutil.rmtree(root, ignore_errors=True)
        if not os.path.exists(root):
            break
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def run(arguments: Sequence[str]) -> None:
    """Run a command line as the interpreter would: ``-m module ...``, ``-c code ...`` or ``script ...``.

    Examples
    --------
    >>> run(["-c", "print(6 * 7)"])
    42
    """
    option, rest = arguments[0], list(arguments[1:])
    if option == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102  # what `python -c` does
    else:
        sys.argv = list(arguments)
        runpy.run_path(option, run_name="__main__")


def main(arguments: Sequence[str]) -> None:
    """Watch the submitter, then run the job: ``main([session directory, command line ...])``."""
    watch(arguments[0])
    # Last, so that it shadows nothing: this very package, for jobs of a checkout that is not installed.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    run(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
