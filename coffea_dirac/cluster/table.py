"""What a cluster tells of its workers: rows, a page for notebooks, and a sentence on what is waited for."""

from __future__ import annotations

import html as escape
from collections import Counter
from collections.abc import Mapping, Sequence

from coffea_dirac.dirac.roster import Roster
from coffea_dirac.dirac.worker_job import WorkerJob
from coffea_dirac.interfaces import Json


def table(roster: Roster) -> list[dict[str, Json]]:
    """Return a row for each worker that is up or on its way, and one for each place that is banned."""
    rows: list[dict[str, Json]] = [
        {
            "worker": worker.name,
            "site": worker.site,
            "job": worker.job_id,
            "state": _state(worker),
            "since": worker.facts.since,
            "told": worker.facts.told,
        }
        for worker in roster.worker_jobs
    ]
    for key, reason in roster.losses.banned.items():
        site = "+".join(roster.places[key].sites)
        rows.append({"worker": "", "site": site, "job": "", "state": "banned", "since": "", "told": reason})
    return rows


def _state(worker: WorkerJob) -> str:
    if worker.joined:
        return "up"
    return "starting" if worker.facts.status == "running" else "waiting"


def groups_without_workers(roster: Roster) -> list[str]:
    """Return the names of groups whose workers are on their way, and none is there.

    Examples
    --------
    >>> from coffea_dirac.dirac.cluster_jobs import ClusterJobs
    >>> groups_without_workers(ClusterJobs(1).roster)
    []
    """
    joined: dict[str, bool] = {}
    for worker in roster.worker_jobs:
        name = worker.place.group.name
        joined[name] = joined.get(name, False) or worker.joined
    return [name for name, has_one in joined.items() if not has_one]


def waiting_for(roster: Roster) -> str:
    """Return a sentence for each place where jobs have not become workers, with what the service says of them.

    Examples
    --------
    >>> from coffea_dirac.dirac.cluster_jobs import ClusterJobs
    >>> waiting_for(ClusterJobs(1).roster)
    ''
    """
    found: Counter[tuple[str, str, str]] = Counter()
    since: dict[tuple[str, str, str], str] = {}
    for worker in roster.worker_jobs:
        if not worker.joined and worker.site:
            key = (_state(worker), worker.site, worker.facts.told)
            found[key] += 1
            since[key] = min(since.get(key, worker.facts.since), worker.facts.since)
    told = [
        f" {n} {state} at {site} since {since[state, site, said] or 'just now'} (DIRAC says: {said or 'nothing yet'})."
        for (state, site, said), n in found.items()
    ]
    return "".join(told)


def html(title: str, rows: Sequence[Mapping[str, Json]]) -> str:
    """Return a table for notebooks.

    Examples
    --------
    >>> html("DiracCluster(created)", [])
    '<pre>DiracCluster(created)</pre>'
    """
    head = f"<pre>{escape.escape(title)}</pre>"
    if not rows:
        return head
    names = "".join(f"<th>{escape.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"{head}<table><tr>{names}</tr>{body}</table>"
