"""The part of a grid that DiracX does not have yet: jobs that came in wait, waiting jobs get a site, dead ones fail.

As DIRAC's optimizers, its Matcher and its StalledJobAgent do, over DiracX's interfaces, with an administrator's token;
a job's description is read from the server's database, since no route serves it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coffea_dirac.grid.client import FINAL, Description, set_status
from coffea_dirac.grid.site import Pilot, SiteOptions

OPEN = ("Received", "Checking", "Waiting", "Matched", "Running", "Completing")


@dataclass
class _Held:
    """A job that a pilot has."""

    site: str
    processors: int
    ended_s: float | None = field(default=None)


class Matcher:
    """Gives jobs of a server to pilots of sites.

    Parameters
    ----------
    client : SyncDiracClient
        With an administrator's token.
    database : Path
        The server's job database.
    sites : mapping
        Name -> options of the site.
    pilot_of : callable
        Starts a pilot at a site; called again when one has died.
    """

    def __init__(self, client: Any, database: Path, sites: Mapping[str, SiteOptions], pilot_of: Any) -> None:
        self._client = client
        self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
        self._sites = dict(sites)
        self._pilot_of = pilot_of
        self._pilots: dict[str, Pilot] = {name: pilot_of(name) for name in sites}
        self._held: dict[int, _Held] = {}

    def step(self) -> bool:
        """Do what is to be done now, and return whether there was anything."""
        lost = self._look_at_pilots()
        rows = self._search()
        came = [row["JobID"] for row in rows if row["Status"] in ("Received", "Checking")]
        if came:
            set_status(
                self._client,
                came,
                ("Checking", "JobSanity", "JobSanity"),
                ("Waiting", "Pilot Agent Submission", "JobScheduling"),
            )
        self._fail_the_lost({row["JobID"]: row["Status"] for row in rows}, lost)
        waiting = [row for row in rows if row["Status"] == "Waiting"]
        matched = [self._match(row) for row in waiting] if any(self._free(site) for site in self._sites) else []
        return bool(came or lost or any(matched))

    def close(self) -> None:
        """End all pilots, with what they run."""
        for pilot in self._pilots.values():
            pilot.end()
        self._database.close()

    @property
    def pids(self) -> Mapping[str, int]:
        """The pilots' process ids, by site."""
        return {site: pilot.pid for site, pilot in self._pilots.items()}

    def _search(self) -> list[dict[str, Any]]:
        # Jobs of all users: the matcher is an administrator.
        rows: list[dict[str, Any]] = self._client.jobs.search(
            parameters=["JobID", "Status", "Owner", "OwnerGroup"],
            search=[{"parameter": "Status", "operator": "in", "values": list(OPEN)}],
            sort=[{"parameter": "UserPriority", "direction": "desc"}, {"parameter": "JobID", "direction": "asc"}],
            per_page=10_000,
        )
        return rows

    def _look_at_pilots(self) -> list[int]:
        """Note which jobs have ended at their sites, and return those that took their pilot with them, or it them."""
        now = time.monotonic()
        lost = []
        for site, pilot in self._pilots.items():
            for job_id in pilot.ended_jobs():
                if job_id in self._held:
                    self._held[job_id].ended_s = now
            if not pilot.is_alive:
                pilot.end()
                self._pilots[site] = self._pilot_of(site)
                for held in self._held.values():
                    if held.site == site and held.ended_s is None:
                        held.ended_s = now
        for job_id, held in list(self._held.items()):
            if held.ended_s is not None:
                lost.append(job_id)
                del self._held[job_id]
        return lost

    def _fail_the_lost(self, open_jobs: Mapping[int, str], ended: Iterable[int]) -> None:
        """Let fail what a wrapper did not bring to an end before it ended itself."""
        lost = [job_id for job_id in ended if job_id in open_jobs]
        now = self._status_of(lost) if lost else {}
        lost = [job_id for job_id in lost if now.get(job_id) not in FINAL]
        if lost:
            set_status(self._client, lost, ("Failed", "Job stalled: pilot not running", "StalledJobAgent"))

    def _status_of(self, ids: list[int]) -> dict[int, str]:
        rows = self._client.jobs.search(
            parameters=["JobID", "Status"],
            search=[{"parameter": "JobID", "operator": "in", "values": ids}],
            per_page=10_000,
        )
        return {row["JobID"]: row["Status"] for row in rows}

    def _free(self, site: str) -> int:
        used = sum(held.processors for held in self._held.values() if held.site == site)
        return self._sites[site].slots - used

    def _match(self, row: Mapping[str, Any]) -> bool:
        job_id = row["JobID"]
        text = self._description(job_id)
        description = Description(text)
        processors = description.number("NumberOfProcessors", 1)
        site = next((site for site in self._sites if self._fits(site, description, processors)), None)
        if site is None or job_id not in set_status(self._client, [job_id], ("Matched", "Assigned", "Matcher")):
            return False  # no place now, or it was killed meanwhile
        self._client.jobs.patch_metadata({str(job_id): {"Site": site}})
        self._held[job_id] = _Held(site, processors)
        self._pilots[site].take(job_id, text, row["Owner"], row["OwnerGroup"])
        return True

    def _fits(self, site: str, description: Description, processors: int) -> bool:
        wanted = [name for name in description.texts("Site") if name.upper() != "ANY"]
        banned = description.texts("BannedSites", "BannedSite")
        own = {f"{processors}Processors", "MultiProcessor"}  # which DIRAC adds itself
        tags = set(description.texts("Tags", "Tag")) - own
        options = self._sites[site]
        is_named = (not wanted or site in wanted) and site not in banned
        return is_named and tags <= set(options.tags) and processors <= self._free(site)

    def _description(self, job_id: int) -> str:
        from DIRACCommon.WorkloadManagementSystem.DB.JobDBUtils import extractJDL

        (text,) = self._database.execute("SELECT JDL FROM JobJDLs WHERE JobID=?", (job_id,)).fetchone()
        return str(extractJDL(text))


def kill_session(pid: int) -> None:
    """End a process and the group that it leads."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
