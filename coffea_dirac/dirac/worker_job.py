"""What a cluster knows of one worker and its job."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from coffea_dirac.dirac.places import Place
from coffea_dirac.interfaces import JobFacts


@dataclass(slots=True)
class WorkerJob:
    """A worker that is up, on its way, or leaving.

    Parameters
    ----------
    place : Place
        Where it was sent.
    name : str
        Its name, for dask and DIRAC.
    job_id : str
        Its job.
    facts : JobFacts
        What the job service said last.
    joined : bool
        Whether it has reached the scheduler.
    runs_since_s : float, optional
        Since when its job runs.
    cpu_s : float
        Seconds of processor time that it has used, as it said last.
    leaves_s : float
        When its job is killed if it has not left; for one that is let go.
    """

    place: Place
    name: str
    job_id: str = ""
    facts: JobFacts = field(default_factory=lambda: JobFacts("waiting"))
    joined: bool = False
    runs_since_s: float | None = None
    cpu_s: float = 0.0
    leaves_s: float = 0.0

    def learn(self, facts: JobFacts) -> None:
        """Take note of what the job service says."""
        self.facts = facts
        if self.runs_since_s is None and facts.status == "running":
            self.runs_since_s = time.monotonic()

    @property
    def has_ended(self) -> bool:
        """Whether its job has ended, as far as the job service has said."""
        return self.facts.status in ("done", "failed", "killed")

    def is_late(self, start_timeout_s: float) -> bool:
        """Whether its job runs for so long and it has not joined."""
        return (
            not self.joined and self.runs_since_s is not None and time.monotonic() > self.runs_since_s + start_timeout_s
        )

    @property
    def core_s(self) -> float:
        """Seconds since its job runs, times its cores."""
        return (time.monotonic() - self.runs_since_s) * self.place.group.cores if self.runs_since_s is not None else 0.0

    @property
    def site(self) -> str:
        """Where it is, as far as that is known."""
        return self.facts.site or "+".join(self.place.sites)
