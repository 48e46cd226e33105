"""A pilot: reads matched jobs from its standard input, runs each in a wrapper process, and says which have ended.

It ends with its input, and with it all it runs.  Run by its path in the server's environment.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # last in the path, so that it shadows nothing of the server's environment
    sys.path.append(str(Path(__file__).parent.parent.parent))

from coffea_dirac.grid.site import kill_job, kill_jobs
from coffea_dirac.grid.wrapper import Wrapper

TICK_S = 0.1


class PilotLoop:
    """Wrappers by process id.

    Parameters
    ----------
    options : dict
        ``site``, ``directory``, ``url``, ``heartbeat_s``.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._directory = Path(options["directory"])
        self._wrappers: dict[int, tuple[int, Path]] = {}

    def run(self) -> None:
        """Run jobs until the input ends."""
        try:
            heard = b""
            while True:
                if select.select([0], [], [], TICK_S)[0]:
                    got = os.read(0, 1 << 20)
                    if not got:
                        return
                    *lines, heard = (heard + got).split(b"\n")
                    for line in lines:
                        self._start(json.loads(line))
                self._reap()
        finally:
            kill_jobs(self._directory)

    def _start(self, job: dict[str, Any]) -> None:
        place = self._directory / f"job-{job['job_id']}"
        place.mkdir(mode=0o700)
        # A fork: the second or more that importing takes is paid once for all jobs.  This process has no threads.
        pid = os.fork()
        if pid == 0:
            _become_wrapper(Wrapper(job, place, self._options))
        self._wrappers[pid] = (job["job_id"], place)

    def _reap(self) -> None:
        while self._wrappers:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            job_id, place = self._wrappers.pop(pid)
            kill_job(place)  # what it left, if it was killed
            shutil.rmtree(place, ignore_errors=True)
            os.write(1, f"{job_id}\n".encode())


def _become_wrapper(wrapper: Wrapper) -> None:
    code = 1
    try:
        os.setsid()
        (wrapper.place / "wrapper.pid").write_text(str(os.getpid()))
        with Path(os.devnull).open("rb") as empty:
            os.dup2(empty.fileno(), 0)
        os.dup2(2, 1)
        wrapper.run()
        code = 0
    except BaseException:  # noqa: BLE001 - into the pilot's log; the matcher sees that the job stalled
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import diracx.api.jobs  # before the forks
    import diracx.client.sync  # noqa: F401

    PilotLoop(json.loads(sys.argv[1])).run()
