"""The contract of a job service as a class of tests: subclass it, give it the service, and run pytest."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import Job, JobService, JobStatus


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Wait for a condition.

    Parameters
    ----------
    condition : callable
        Asked again and again.
    timeout_s : float
        Seconds to wait.
    what : str
        What is waited for, for the message.

    Raises
    ------
    AssertionError
        It did not come true in time.

    Examples
    --------
    >>> wait_until(lambda: True, timeout_s=1, what="the truth")
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


class JobServiceTests:
    """What every `coffea_dirac.interfaces.JobService` does.

    A subclass gives the fixture `service`, and `deadline_s` if its jobs start slowly.
    """

    deadline_s: float = 30.0

    @pytest.fixture
    def service(self) -> JobService:
        """Give the service to test; to be overridden."""
        raise NotImplementedError("override the fixture `service`")

    def wait(self, service: JobService, job_id: str, *statuses: JobStatus) -> None:
        """Wait until a job has one of these statuses."""
        wait_until(
            lambda: service.status([job_id])[job_id] in statuses, timeout_s=self.deadline_s, what=f"{job_id} {statuses}"
        )

    def run(self, service: JobService, code: str, *statuses: JobStatus) -> str:
        """Submit Python code as a job, wait until it has one of these statuses, and return its id."""
        (job_id,) = service.submit([Job(("-c", code))])
        self.wait(service, job_id, *statuses)
        return job_id

    def test_service_follows_the_protocol(self, service: JobService) -> None:
        assert isinstance(service, JobService)

    def test_nothing_submitted_is_nothing_started(self, service: JobService) -> None:
        assert list(service.submit([])) == []
        assert dict(service.status([])) == {}

    def test_each_job_has_its_own_id_in_order(self, service: JobService) -> None:
        ids = service.submit([Job(("-c", f"print('number', {number})")) for number in range(3)])
        assert len(set(ids)) == 3
        for number, job_id in enumerate(ids):
            self.wait(service, job_id, "done")
            assert f"number {number}" in service.logs(job_id)

    def test_job_that_returns_is_done(self, service: JobService) -> None:
        assert "hello" in service.logs(self.run(service, "print('hello')", "done"))

    def test_job_that_exits_with_a_code_is_failed_and_says_why(self, service: JobService) -> None:
        job_id = self.run(service, "import sys; sys.exit('no space left on this node')", "failed", "done")
        assert service.status([job_id])[job_id] == "failed"
        assert "no space left on this node" in service.logs(job_id)

    def test_job_that_raises_leaves_its_traceback(self, service: JobService) -> None:
        job_id = self.run(service, "def dig():\n    1 / 0\ndig()", "failed")
        assert "ZeroDivisionError" in service.logs(job_id)

    def test_killed_job_is_killed_and_stays_so(self, service: JobService) -> None:
        job_id = self.run(service, "import time; time.sleep(600)", "running")
        service.kill([job_id])
        self.wait(service, job_id, "killed")
        service.kill([job_id])
        assert service.status([job_id])[job_id] == "killed"

    def test_killing_an_ended_job_changes_nothing(self, service: JobService) -> None:
        job_id = self.run(service, "pass", "done")
        service.kill([job_id])
        assert service.status([job_id])[job_id] == "done"

    def test_statuses_come_in_bulk(self, service: JobService) -> None:
        ids = service.submit([Job(("-c", "pass")), Job(("-c", "raise SystemExit(3)"))])
        self.wait(service, ids[0], "done")
        self.wait(service, ids[1], "failed")
        assert dict(service.status(ids)) == {ids[0]: "done", ids[1]: "failed"}

    def test_files_lie_in_the_directory_of_the_job(self, service: JobService) -> None:
        code = "print(open('secret.txt').read()[::-1], oct(__import__('os').stat('secret.txt').st_mode & 0o777))"
        (job_id,) = service.submit([Job(("-c", code), files={"secret.txt": b"terces"})])
        self.wait(service, job_id, "done", "failed")
        assert "secret 0o600" in service.logs(job_id)

    def test_job_finds_its_name_in_its_environment(self, service: JobService) -> None:
        (job_id,) = service.submit([Job(("-c", "import os; print(os.environ['COFFEA_DIRAC_JOB'])"), name="worker-7")])
        self.wait(service, job_id, "done", "failed")
        assert service.logs(job_id).strip() == "worker-7"

    def test_description_agrees_with_status(self, service: JobService) -> None:
        job_id = self.run(service, "raise SystemExit(3)", "failed")
        facts = service.describe([job_id])[job_id]
        assert facts.status == "failed"
        assert facts.told

    def test_unknown_job_is_an_error_that_names_it(self, service: JobService) -> None:
        with pytest.raises(JobServiceError, match="no-such-job"):
            service.status(["no-such-job"])
