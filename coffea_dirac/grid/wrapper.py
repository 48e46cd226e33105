"""One job at a site: input sandbox, payload, heartbeats, kill, output sandbox, final status; with its owner's token."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from coffea_dirac.grid.client import Description, connect, set_status
from coffea_dirac.sandbox import files_of

SOURCE = "JobWrapper"
GRACE_S = 5.0
TRANSFER_S = 120.0
TICK_S = 0.05
PASSED_ON = ("PATH", "HOME", "LANG", "USER")


class Wrapper:
    """Runs one job.

    Parameters
    ----------
    job : dict
        ``job_id``, ``jdl``, ``credentials``.
    place : Path
        The job's own directory.
    options : dict
        The pilot's.
    """

    def __init__(self, job: dict[str, Any], place: Path, options: dict[str, Any]) -> None:
        self.place = place
        self._id: int = job["job_id"]
        self._description = Description(job["jdl"])
        self._credentials = Path(job["credentials"])
        self._url, self._site, self._heartbeat_s = options["url"], options["site"], options["heartbeat_s"]
        self._client: Any = None
        self._killed = ""

    def run(self) -> None:
        """Run the job and tell the server how it ended."""
        os.environ.update(DIRACX_URL=self._url, DIRACX_CREDENTIALS_PATH=str(self._credentials))
        self._client = connect(self._url, self._credentials)
        if not self._say("Running", "Job Initialization"):
            return  # killed between match and start
        facts = {"HostName": socket.gethostname(), "NumberOfProcessors": self._processors}
        self._client.jobs.patch_metadata({str(self._id): facts})
        self._fetch_input()
        code = self._run_payload()
        uploaded = self._send_output()
        if self._killed:
            self._say("Killed", self._killed)
        elif code == 0 and uploaded:
            self._say("Done", "Execution Complete", "0")
        else:
            minor = "Application Finished With Errors" if uploaded else "Failed Uploading Output Sandbox"
            self._say("Failed", minor, str(code))

    @property
    def _processors(self) -> int:
        return self._description.number("NumberOfProcessors", 1)

    def _say(self, status: str | None, minor: str, application: str = "") -> bool:
        return bool(set_status(self._client, [self._id], (status, minor, SOURCE), application=application))

    def _fetch_input(self) -> None:
        import httpx2

        self._say(None, "Downloading InputSandbox")
        for name in self._description.texts("InputSandbox"):
            if name.startswith("SB:"):
                answer = httpx2.get(self._client.jobs.get_sandbox_file(pfn=name).url, timeout=TRANSFER_S)
                answer.raise_for_status()
                for file, content in files_of(answer.content):
                    (self.place / file).parent.mkdir(parents=True, exist_ok=True)
                    (self.place / file).write_bytes(content)

    def _run_payload(self) -> int:
        executable = self._description.text("Executable")
        if (self.place / executable).exists():
            (self.place / executable).chmod(0o700)
            executable = str(self.place / executable)
        command = [executable, *shlex.split(self._description.text("Arguments"))]
        out, err = self._description.text("StdOutput") or "std.out", self._description.text("StdError") or "std.err"
        self._say(None, "Application")
        with (self.place / out).open("ab") as stdout, (self.place / err).open("ab") as stderr:
            try:
                payload = subprocess.Popen(
                    command,
                    cwd=self.place,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                stderr.write(f"{command[0]}: {error}\n".encode())
                return 127
        (self.place / "payload.pid").write_text(str(payload.pid))
        return self._watch(payload)

    def _environment(self) -> dict[str, str]:
        """Return what a job of DIRAC sees: little, and no token."""
        found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {"JOBID": str(self._id), "DIRACSITE": self._site, "TMPDIR": str(self.place)}
        return {**found, **own, "DIRAC_JOB_PROCESSORS": str(self._processors)}

    def _watch(self, payload: subprocess.Popen[bytes]) -> int:
        start = last = time.monotonic()
        limit = self._description.number("CPUTime", 86_400)
        while payload.poll() is None:
            time.sleep(TICK_S)
            now = time.monotonic()
            if now - last >= self._heartbeat_s:
                last = now
                if self._is_to_be_killed(now - start):
                    self._killed = "Marked for termination"
            if self._killed or now - start > limit:
                self._end(payload)
        with suppress(ProcessLookupError):  # what the payload has left running
            os.killpg(payload.pid, signal.SIGKILL)
        return payload.returncode

    def _is_to_be_killed(self, wall_s: float) -> bool:
        facts = {"WallClockTime": wall_s, "LoadAverage": os.getloadavg()[0]}
        # A server that is down now is asked at the next heartbeat.
        with suppress(Exception):
            commands = self._client.jobs.add_heartbeat({str(self._id): facts})
            return any(command.command == "Kill" for command in commands)
        return False

    def _end(self, payload: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(payload.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                payload.wait(GRACE_S)
            os.killpg(payload.pid, signal.SIGKILL)
        payload.wait()

    def _send_output(self) -> bool:
        from diracx.api.jobs import create_sandbox

        names = self._description.texts("OutputSandbox")
        files = [self.place / name for name in names if (self.place / name).exists()]
        if not files:
            return True
        self._say(None if self._killed else "Completing", "Uploading Output Sandbox")
        place = asyncio.run(create_sandbox(files))
        self._client.jobs.assign_sandbox_to_job(self._id, json.dumps(place))  # a bare text would travel unquoted
        return True
