"""Jobs of a DIRAC grid, over DiracX's REST interface.

Nothing is asked before the first call: a cluster that never needs a worker needs no credential.  What the interface
does unexpectedly is handled here and in `coffea_dirac.dirac.diracx_client`, and told where it is.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from coffea_dirac.dirac import venv
from coffea_dirac.dirac.diracx_client import DiracxServer
from coffea_dirac.dirac.janitor import Janitor
from coffea_dirac.dirac.jdl import LOG, job_description
from coffea_dirac.dirac.script import PACKAGE, SCRIPT, job_script, package
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, JobServiceError, JobServiceUnreachableError
from coffea_dirac.interfaces import Job, JobFacts, JobStatus

# What the server takes at once.
JOBS_IN_A_CALL = 20
ROWS_IN_A_PAGE = 10_000
SANDBOX_BYTES = 100 << 20
LOG_BYTES = 1 << 20
SUBMITS, KILLS = 3, 10
LOOK_AGAIN_S = 0.5
ASKED = ["JobID", "JobName", "Status", "MinorStatus", "ApplicationStatus", "Site", "LastUpdateTime"]
STATUSES: Mapping[str, JobStatus] = {
    "Running": "running",
    # Without a heartbeat for hours; whether its worker works is known to dask.
    "Stalled": "running",
    "Completing": "running",
    "Completed": "done",
    "Done": "done",
    "Failed": "failed",
    "Killed": "killed",
    "Deleted": "killed",
}
"""DIRAC's words -> ours; every other one is a way of waiting."""


class DiracxJobs:
    """A `coffea_dirac.interfaces.JobService` whose jobs run on a DIRAC grid.

    Nothing is read or asked before the first call.  Jobs that still wait or run when this process ends, however it
    ends, are killed by a process that outlives it (`coffea_dirac.dirac.janitor`).

    Parameters
    ----------
    url : str, optional
        The DiracX server; by default ``DIRACX_URL``.
    credentials : str, optional
        A token file or a proxy; by default where DIRAC looks (`coffea_dirac.dirac.credentials.find_credential`).
    group : str, optional
        DIRAC's JobGroup, by which these jobs are found again; a new one by default.
    patience_s : float
        How long a server that does not answer is asked again.

    Examples
    --------
    >>> jobs = DiracxJobs("https://diracx.example.org")
    >>> jobs
    DiracxJobs('https://diracx.example.org', group='coffea-dirac-...')
    >>> list(jobs.submit([]))
    []
    """

    poll_s = 2.0
    is_remote = True

    def __init__(
        self,
        url: str | None = None,
        *,
        credentials: str | None = None,
        group: str | None = None,
        patience_s: float = 20.0,
    ) -> None:
        self.server = DiracxServer(url, credentials, patience_s=patience_s)
        self.group = group or f"coffea-dirac-{uuid.uuid4().hex[:12]}"
        self._lock = threading.RLock()
        self._sandboxes: dict[str, str] = {}
        self._submitted = False
        self._janitor: Janitor | None = None

    def __repr__(self) -> str:
        return f"DiracxJobs({self.server}, group={self.group!r})"

    # -- the five verbs

    def submit(self, jobs: Sequence[Job]) -> Sequence[str]:
        """Submit jobs and return an id for each, in order: all of them, or none.

        Raises
        ------
        CredentialError
            None, an expired one, or one that ends before the jobs do.
        ConfigurationError
            A job that DIRAC would refuse or misunderstand.
        JobServiceError
            The server refuses them, or does not answer.
        """
        if not jobs:
            return []
        self.server.credential().check(max(job.cpu_time_s for job in jobs))
        named = [job if job.name else replace(job, name=f"job-{uuid.uuid4().hex[:12]}") for job in jobs]
        job_description(named[0], self.group, "SB:")  # what is wrong is said before anything is uploaded
        described = {job.name: job_description(job, self.group, self._sandbox(job)) for job in named}
        for environment in {job.environment for job in named if job.environment.startswith(venv.PREFIX)}:
            venv.publish(environment)
        self._watch_over()
        ids: dict[str, str] = {}
        names = list(described)
        try:
            for start in range(0, len(names), JOBS_IN_A_CALL):
                some = names[start : start + JOBS_IN_A_CALL]
                ids.update(self._submit_some({name: described[name] for name in some}))
        except CoffeaDiracError:
            with suppress(CoffeaDiracError):
                self.kill(list(ids.values()))
            raise
        return [ids[job.name] for job in named]

    def status(self, ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Return the status of each job.

        Raises
        ------
        JobServiceError
            An id is not known, or the server does not answer.
        """
        return {job_id: facts.status for job_id, facts in self.describe(ids).items()}

    def describe(self, ids: Sequence[str]) -> Mapping[str, JobFacts]:
        """Return what DIRAC knows of each job, in one request for every ten thousand.

        Raises
        ------
        JobServiceError
            An id is not known, or the server does not answer.
        """
        found: dict[str, JobFacts] = {}
        for start in range(0, len(ids), ROWS_IN_A_PAGE):
            numbers = [_number(job_id) for job_id in ids[start : start + ROWS_IN_A_PAGE]]
            rows = self._search({"parameter": "JobID", "operator": "in", "values": numbers})
            found.update((str(row["JobID"]), _facts(row)) for row in rows)
        for job_id in ids:
            if job_id not in found:
                raise JobServiceError(
                    f"{self} knows no job {job_id!r}; DIRAC forgets jobs some days after their end, and shows those of "
                    "others to nobody."
                )
        return {job_id: found[job_id] for job_id in ids}

    def kill(self, ids: Sequence[str]) -> None:
        """End jobs; one that has ended already is no error.

        A job that runs hears of it with its next heartbeat, which can be half an hour.

        Raises
        ------
        JobServiceError
            An id is not known, or the server does not answer.
        """
        alive = self._alive(ids)
        try:
            self._kill(alive)
        except JobServiceError as error:
            if "403" not in str(error) or len(alive) < 2:
                raise
            # One job that is not ours makes the server refuse all.
            for job_id in alive:
                self._kill([job_id])

    def logs(self, job_id: str) -> str:
        """Return what an ended job has printed, the last megabyte at most, and what DIRAC says of its end.

        Raises
        ------
        JobServiceError
            The id is not known, or the server does not answer.
        """
        (facts,) = self.describe([job_id]).values()
        if facts.status in ("waiting", "running"):
            return ""
        last = "" if facts.status == "done" else f"(DIRAC says: {facts.told})\n"
        places = self.server.call("get_job_sandbox", _number(job_id), "output")
        found = b"".join(self.server.download(place, LOG) for place in places if place)
        return found[-LOG_BYTES:].decode(errors="replace") + last

    # -- all jobs of this service

    def job_ids(self, *, alive: bool = False) -> list[str]:
        """Return the ids of all jobs of our group, also those whose submission was never answered."""
        rows = self._search({"parameter": "JobGroup", "operator": "eq", "value": self.group})
        return [str(row["JobID"]) for row in rows if not alive or _facts(row).status in ("waiting", "running")]

    def close(self) -> None:
        """Kill every job of ours that waits or runs, and let go of the server; it can be used again."""
        try:
            if self._submitted:
                self.kill(self.job_ids(alive=True))
                self._submitted = False
                self._dismiss_janitor()
        finally:
            self.abandon()  # a janitor that was not dismissed goes on trying

    def abandon(self) -> None:
        """Leave what is left to the process that outlives this one, and let go of the server."""
        self._dismiss_janitor(is_done=False)
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- submitting

    def _watch_over(self) -> None:
        with self._lock:
            self._submitted = True
            if self._janitor is None:
                self._janitor = Janitor(self.server.url, str(self.server.credential().path), self.group)

    def _dismiss_janitor(self, *, is_done: bool = True) -> None:
        if self._janitor is not None:
            self._janitor.dismiss() if is_done else self._janitor.take_over()
            self._janitor = None

    def _submit_some(self, described: Mapping[str, str]) -> dict[str, str]:
        """Submit at most twenty jobs.  Before anything is sent again, the server is asked what has arrived."""
        found: dict[str, str] = {}
        for attempt in range(SUBMITS):
            missing = [name for name in described if name not in found]
            try:
                rows = self.server.call("submit_jdl_jobs", [described[name] for name in missing], again=False)
                return found | {name: str(row.job_id) for name, row in zip(missing, rows, strict=True)}
            except JobServiceUnreachableError:
                found |= self._arrived(missing)
                if len(found) == len(described):
                    return found
                if attempt == SUBMITS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _arrived(self, names: Sequence[str]) -> dict[str, str]:
        time.sleep(0.5)  # for what is on its way
        by_group = {"parameter": "JobGroup", "operator": "eq", "value": self.group}
        by_name = {"parameter": "JobName", "operator": "in", "values": list(names)}
        return {row["JobName"]: str(row["JobID"]) for row in self._search(by_group, by_name)}

    def _sandbox(self, job: Job) -> str:
        """Upload a job's files, unless the same ones are there already, and return where they are."""
        files = {**job.files, SCRIPT: job_script(job).encode(), PACKAGE: package()}
        for name in files:
            if Path(name).name != name:
                raise JobServiceError(f"A job's file must be a plain name, not {name!r}.")
        size = sum(map(len, files.values()))
        if size > SANDBOX_BYTES:
            raise ConfigurationError(
                f"the job's files have {size >> 20} MiB, DIRAC takes {SANDBOX_BYTES >> 20}: put what is large on a "
                "storage, CVMFS or in an image"
            )
        digest = hashlib.sha256()
        for name in sorted(files):
            digest.update(f"{name} {len(files[name])} ".encode() + files[name])
        key = digest.hexdigest()
        if key not in self._sandboxes:
            self._sandboxes[key] = self.server.upload(files)
        return self._sandboxes[key]

    def _kill(self, ids: Sequence[str]) -> None:
        """Kill jobs that are alive, and look whether they stay dead.

        The server answers "success" also when it refuses; and an optimizer that read a job before we killed it makes it
        wait again, since the server does both without a lock.
        """
        left = list(ids)
        for _ in range(KILLS):
            if not left:
                return
            now = datetime.now(UTC).isoformat()
            update = {"Status": "Killed", "MinorStatus": "Marked for termination", "Source": "coffea_dirac"}
            self.server.call("set_job_statuses", {job_id: {now: update} for job_id in left})
            time.sleep(LOOK_AGAIN_S)
            left = self._alive(left)
        raise JobServiceError(f"{self.server.url} did not kill job {', '.join(left)}, though it took the request.")

    def _alive(self, ids: Sequence[str]) -> list[str]:
        return [job_id for job_id, facts in self.describe(ids).items() if facts.status in ("waiting", "running")]

    def _search(self, *conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
        # `per_page` is 100 unless given: the 101st job would be missing without a word.
        rows: list[dict[str, Any]] = self.server.call(
            "search", parameters=ASKED, search=list(conditions), page=1, per_page=ROWS_IN_A_PAGE
        )
        return rows


def _number(job_id: str) -> int:
    if not job_id.isdecimal():
        raise JobServiceError(f"{job_id!r} is no id of a DIRAC job, which is a number; ids come from submit().")
    return int(job_id)


def _facts(row: Mapping[str, Any]) -> JobFacts:
    words = [row["Status"], row["MinorStatus"], row.get("ApplicationStatus")]
    told = ", ".join(word for word in words if word and word != "Unknown")
    site = row["Site"] if row["Site"] not in ("ANY", "Multiple", None) else ""
    return JobFacts(STATUSES.get(row["Status"], "waiting"), told, site, str(row.get("LastUpdateTime") or ""))
