"""A process that holds others, started from anywhere: found again by its directory, waited for, ended."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from coffea_dirac.errors import JobServiceError

DOWN_S = 20.0


class Supervised:
    """One such process, which writes ``NAME.json`` into its directory once all that it holds is ready.

    Parameters
    ----------
    directory : Path
        Where it keeps everything.
    name : str
        What its files are called.
    what : str
        What it is, for messages.
    """

    def __init__(self, directory: Path, name: str, what: str) -> None:
        self._directory, self._what = directory, what
        self._log, self._pid, self._facts = (directory / f"{name}.{end}" for end in ("log", "pid", "json"))

    def start(self, command: Sequence[str]) -> None:
        """Start it in the background, in a session of its own."""
        self._directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._pid.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")

    def wait(self, deadline_s: float) -> dict[str, Any]:
        """Return what it says of itself once it is ready.

        Raises
        ------
        JobServiceError
            It has ended, or is not ready in time.
        """
        deadline = time.monotonic() + deadline_s
        while not (found := self.facts()):
            is_there = self.process() is not None
            if not is_there or time.monotonic() > deadline:
                why = f"was not ready within {deadline_s:.0f} s" if is_there else "ended"
                raise JobServiceError(f"The {self._what} {why}; it said:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)
        return found

    def facts(self) -> dict[str, Any]:
        """Return what it says of itself, nothing if it does not run or is not ready."""
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(self._facts.read_text())
            if self.process() is not None:
                return found
        return {}

    def pids(self) -> dict[str, int]:
        """Return the processes that it said it holds, whether it runs or not."""
        with suppress(FileNotFoundError):
            found: dict[str, int] = json.loads(self._facts.read_text())["pids"]
            return found
        return {}

    def process(self) -> psutil.Process | None:
        """Return the process, if it runs."""
        with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            pid, started = self._pid.read_text().split()
            process = psutil.Process(int(pid))
            # Ids are used again.
            if process.create_time() == float(started) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def end(self) -> None:
        """End it, at last by force."""
        process = self.process()
        if process is None:
            return
        process.terminate()
        with suppress(psutil.TimeoutExpired):
            process.wait(DOWN_S)
        with suppress(psutil.NoSuchProcess):
            process.kill()
