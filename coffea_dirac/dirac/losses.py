"""When lost workers are no longer replaced: budgets, and places that are banned with a reason."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from dataclasses import dataclass

from coffea_dirac.dirac.worker_job import WorkerJob
from coffea_dirac.errors import JobServiceError

logger = logging.getLogger(__name__)

LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Budget:
    """How often workers are replaced before somebody has to look.

    Parameters
    ----------
    start_failures : int
        So many workers in a row ended before they joined: no further one is started there.
    lost : int
        So many workers that had joined were lost within `lost_within_s`: likewise.
    lost_within_s : float
        See `lost`.
    start_timeout_s : float
        A worker whose job runs for so long and that has not joined is ended and counts as a start failure.
    """

    start_failures: int = 3
    lost: int = 30
    lost_within_s: float = 600.0
    start_timeout_s: float = 120.0


DEFAULT_BUDGET = Budget()


class ExhaustedError(JobServiceError):
    """More workers were lost than the budget allows."""


class Losses:
    """The workers lost so far, by place.

    Parameters
    ----------
    budget : Budget
        How many may be.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._start_failures: defaultdict[str, int] = defaultdict(int)
        self._bad: defaultdict[str, int] = defaultdict(int)
        self._lost: deque[float] = deque()
        self.n_lost = 0
        self.banned: dict[str, str] = {}

    def joined(self, place: str) -> None:
        """Take note that a worker of a place came up."""
        self._start_failures[place] = 0

    def count(self, worker: WorkerJob, words: str, *, is_late: bool) -> bool:
        """Enter a worker that has ended, and return whether its place has just been banned.

        Raises
        ------
        ExhaustedError
            Too many that had joined were lost.
        """
        if not worker.joined:
            return self._count_start_failure(worker, words, is_late=is_late)
        if worker.facts.status == "done":
            logger.info("%s (job %s) has ended in good order and is replaced.", worker.name, worker.job_id)
            return False
        self.n_lost += 1
        said = f"{worker.facts.told}\n{words}" if worker.facts.told else words
        logger.warning("%s (job %s) was lost and is replaced. Its last words:\n%s", worker.name, worker.job_id, said)
        self._count_lost(worker, words)
        return False

    def distrust(self, worker: WorkerJob, why: str, *, is_only: bool) -> bool:
        """Enter a worker that had joined and is no good, and return whether its place has just been banned.

        Parameters
        ----------
        is_only : bool
            There is no other place: better a bad one than none.
        """
        key = worker.place.key
        logger.warning("%s (job %s) at %s is replaced: %s.", worker.name, worker.job_id, worker.site or "?", why)
        self._bad[key] += 1
        if self._bad[key] < self._budget.start_failures or is_only or key in self.banned:
            return False
        self.banned[key] = (
            f"{self._bad[key]} workers at {worker.site} failed at what succeeded elsewhere, so no more are started "
            f"there. The last one was job {worker.job_id}: {why}"
        )
        logger.warning("%s", self.banned[key])
        return True

    def exhausted(self, place: str) -> ExhaustedError:
        """Return the error that says why no more workers are started."""
        return ExhaustedError(self.banned[place])

    def _count_start_failure(self, worker: WorkerJob, words: str, *, is_late: bool) -> bool:
        key, site = worker.place.key, worker.site
        self._start_failures[key] += 1
        why = f"did not join within {self._budget.start_timeout_s:.0f} s" if is_late else "ended before it joined"
        told = f" DIRAC says: {worker.facts.told}." if site and worker.facts.told else ""
        last = f"{why}.{told} Its last words:\n{words}"
        if self._start_failures[key] < self._budget.start_failures or key in self.banned:
            if site:
                logger.warning("%s (job %s) at %s is replaced: it %s", worker.name, worker.job_id, site, last)
            return False
        where, there = (f" at {site}", " there") if site else ("", "")
        self.banned[key] = (
            f"{self._start_failures[key]} workers in a row did not come up{where}, so no more are started{there}. The "
            f"last one, job {worker.job_id}, {last}"
        )
        if site:
            logger.warning("%s", self.banned[key])
        return True

    def _count_lost(self, worker: WorkerJob, words: str) -> None:
        now = time.monotonic()
        self._lost.append(now)
        while self._lost and now - self._lost[0] > self._budget.lost_within_s:
            self._lost.popleft()
        if len(self._lost) >= self._budget.lost:
            raise ExhaustedError(
                f"{len(self._lost)} workers were lost within {self._budget.lost_within_s:.0f} s, so no more are "
                f"started. Does a task need more memory than there is? The last one was job {worker.job_id}. Its last "
                f"words:\n{words}"
            )


def tail(log: str) -> str:
    """Return the last lines of a log.

    Examples
    --------
    >>> tail("")
    '(nothing)'
    """
    return "\n".join(log.splitlines()[-LOG_LINES:]) or "(nothing)"
