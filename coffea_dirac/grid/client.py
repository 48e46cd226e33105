"""What matcher and pilots share: a client of the server, a status that is checked, a job's description."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FINAL = ("Done", "Failed", "Killed", "Deleted", "Completed")


def connect(url: str, credentials: Path) -> Any:
    """Return a client of a DiracX server with the token in a file."""
    from diracx.client.sync import SyncDiracClient
    from diracx.core.preferences import DiracxPreferences

    client = SyncDiracClient(diracx_preferences=DiracxPreferences(url=url, credentials_path=credentials))
    return client.__enter__()


def set_status(client: Any, ids: Sequence[int], *steps: tuple[str | None, str, str], application: str = "") -> set[int]:
    """Walk jobs through (status, minor status, source) and return those that have the last status now.

    The server answers "success" also when it refuses a transition, so what it has afterwards is compared.
    """
    start = datetime.now(UTC)
    updates: dict[str, dict[str, str]] = {}
    for number, (status, minor, source) in enumerate(steps):
        update = {"MinorStatus": minor, "Source": source}
        if status is not None:
            update["Status"] = status
        if application:
            update["ApplicationStatus"] = application
        updates[(start + timedelta(microseconds=10 * number)).isoformat()] = update
    answer = client.jobs.set_job_statuses({str(job_id): updates for job_id in ids})
    wanted = steps[-1][0]
    return {int(job_id) for job_id, now in answer.success.items() if wanted in (None, now.status)}


class Description:
    """A job's description, as DIRAC's own parser reads it."""

    def __init__(self, jdl: str) -> None:
        from DIRACCommon.Core.Utilities.ClassAd.ClassAdLight import ClassAd

        self._ad = ClassAd(jdl)

    def text(self, name: str) -> str:
        """Return an attribute, empty if there is none."""
        return str(self._ad.getAttributeString(name) or "")

    def number(self, name: str, default: int) -> int:
        """Return an attribute that is a number."""
        return int(self._ad.getAttributeInt(name) or default)

    def texts(self, *names: str) -> list[str]:
        """Return a list, under the first of these names that has one."""
        found = [[text for text in self._ad.getListFromExpression(name) if text] for name in names]
        return next(filter(None, found), [])
