"""Jobs over DiracX: a real server, real sites, the contract of a job service, and each way in which it can go wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Proxy, in_front_of
from grids import NOWHERE, SITE_A, SITE_B, SITE_GPU

from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.errors import ConfigurationError, CredentialError, JobServiceError, JobServiceUnreachableError
from coffea_dirac.interfaces import Job
from coffea_dirac.testing_jobs import JobServiceTests, wait_until

pytestmark = pytest.mark.needs("diracx")


@pytest.fixture
def jobs(grid: dict[str, Any]) -> Iterator[DiracxJobs]:
    with DiracxJobs(grid["diracx"], credentials=grid["token_file"]) as jobs:
        yield jobs


class TestDiracxJobs(JobServiceTests):
    deadline_s = 90.0

    @pytest.fixture
    def service(self, jobs: DiracxJobs) -> DiracxJobs:
        return jobs


def waiting(number: int) -> list[Job]:
    """Return jobs that no site takes."""
    return [Job(("-c", "pass"), sites=(NOWHERE,)) for _ in range(number)]


def test_hundred_jobs_go_in_few_calls_and_are_told_and_killed_in_one(jobs: DiracxJobs) -> None:
    start = time.monotonic()
    ids = jobs.submit(waiting(101))
    assert time.monotonic() - start < 20  # the machine may be busy; benchmarks look closer
    assert len(set(ids)) == 101
    assert list(jobs.describe(ids)) == list(ids)
    jobs.kill(ids)
    assert set(jobs.status(ids).values()) == {"killed"}
    assert sorted(jobs.job_ids()) == sorted(ids)
    assert jobs.job_ids(alive=True) == []


def test_jobs_run_where_they_were_sent_and_know_it(jobs: DiracxJobs) -> None:
    code = "import os; print(os.environ['DIRACSITE'], os.environ['COFFEA_DIRAC_JOB'], 'DIRACX_URL' in os.environ)"
    asked = [
        Job(("-c", code), name="a", sites=(SITE_A,)),
        Job(("-c", code), name="b", sites=(SITE_B,)),
        Job(("-c", code), name="gpu", tags=("GPU",), sites=(SITE_A, SITE_GPU)),
        Job(("-c", code), name="not-a", banned_sites=(SITE_A, SITE_GPU)),
        Job(("-c", code), name="two", cores=2, sites=(SITE_B, SITE_GPU)),
    ]
    ids = jobs.submit(asked)
    wait_until(lambda: set(jobs.status(ids).values()) == {"done"}, timeout_s=90, what="all are done")
    expected = [SITE_A, SITE_B, SITE_GPU, SITE_B, SITE_B]
    assert [facts.site for facts in jobs.describe(ids).values()] == expected
    for job_id, job, site in zip(ids, asked, expected, strict=True):
        assert jobs.logs(job_id).split() == [site, job.name, "False"]


def test_facts_are_in_the_words_of_dirac(jobs: DiracxJobs) -> None:
    (job,) = jobs.submit(waiting(1))
    wait_until(lambda: "Pilot Agent" in jobs.describe([job])[job].told, timeout_s=30, what="it waits")
    facts = jobs.describe([job])[job]
    assert (facts.status, facts.told, facts.site) == ("waiting", "Waiting, Pilot Agent Submission", NOWHERE)
    assert facts.since.startswith("20")
    assert jobs.logs(job) == ""


def test_set_up_commands_run_before_the_interpreter(jobs: DiracxJobs) -> None:
    code = "import os, coffea_dirac; print(os.environ['FROM_SETUP'], coffea_dirac.__file__)"
    (job,) = jobs.submit([Job(("-c", code), setup="export FROM_SETUP=yes", sites=(SITE_A,))])
    wait_until(lambda: jobs.status([job])[job] in ("done", "failed"), timeout_s=90, what="it has ended")
    # Our own package has travelled, whatever is installed there.
    assert jobs.logs(job).startswith("yes ") and ".package/coffea_dirac" in jobs.logs(job)


# -- submissions that nobody knows to have arrived


class Dropped(Exception):
    """Stands for what the client raises when the answer is lost."""


@pytest.mark.parametrize("arrives", [True, False])
def test_submission_without_an_answer_is_looked_for_before_it_is_sent_again(jobs: DiracxJobs, arrives: bool) -> None:
    real, sent = jobs.server.connect().jobs.submit_jdl_jobs, []

    def submit(jdls: list[str], **options: Any) -> Any:
        sent.append(len(jdls))
        if len(sent) == 1:
            if arrives:
                real(jdls, **options)
            raise ConnectionResetError("the answer got lost")
        return real(jdls, **options)

    jobs.server.connect().jobs.submit_jdl_jobs = submit
    ids = jobs.submit(waiting(3))
    assert sent == ([3] if arrives else [3, 3])
    assert sorted(jobs.job_ids()) == sorted(ids)


def test_jobs_of_a_submission_that_fails_halfway_are_killed(jobs: DiracxJobs) -> None:
    good = waiting(20)
    real = jobs.server.connect().jobs.submit_jdl_jobs
    sent: list[int] = []

    def submit(jdls: list[str], **options: Any) -> Any:
        sent.append(len(jdls))
        return real(jdls if len(sent) == 1 else ["this is no JDL"], **options)

    jobs.server.connect().jobs.submit_jdl_jobs = submit
    with pytest.raises(JobServiceError, match=r"refuses this to alice, VO box, group box_user.*400"):
        jobs.submit([*good, *waiting(1)])
    assert len(jobs.job_ids()) == 20
    assert jobs.job_ids(alive=True) == []


def test_one_job_of_others_does_not_save_the_rest(grid: dict[str, Any], jobs: DiracxJobs) -> None:
    with DiracxJobs(grid["diracx"], credentials=str(Path(grid["directory"], "credentials-bob.json"))) as others:
        (theirs,) = others.submit(waiting(1))
        mine = jobs.submit(waiting(2))
        with pytest.raises(JobServiceError, match="403"):
            jobs.kill([mine[0], theirs, mine[1]])
        assert others.status([theirs])[theirs] == "waiting"
        jobs.kill([mine[0]])
        assert jobs.status(mine)[mine[0]] == "killed"


# -- credentials


def changed(grid: dict[str, Any], path: Path, **changes: Any) -> str:
    content = json.loads(Path(grid["token_file"]).read_text())
    path.touch(mode=0o600)
    path.write_text(json.dumps(content | changes))
    return str(path)


def test_no_credential_is_an_error_with_the_command(grid: dict[str, Any], tmp_path: Path) -> None:
    jobs = DiracxJobs(grid["diracx"], credentials=str(tmp_path / "none.json"))
    with pytest.raises(
        CredentialError, match=r"no DIRAC credential in .*none.json. Type: dirac login VO --group GROUP"
    ):
        jobs.submit(waiting(1))


def test_credential_that_the_server_does_not_know_is_an_error(grid: dict[str, Any], tmp_path: Path) -> None:
    content = json.loads(Path(grid["token_file"]).read_text())
    path = changed(grid, tmp_path / "forged.json", access_token=content["access_token"][:-8] + "AAAAAAAA")
    with pytest.raises(CredentialError, match="dirac login box --group box_user") as caught:
        DiracxJobs(grid["diracx"], credentials=path).submit(waiting(1))
    assert content["access_token"][:40] not in str(caught.value)


def test_jobs_longer_than_the_credential_are_refused_with_what_to_type(jobs: DiracxJobs) -> None:
    with pytest.raises(
        CredentialError, match=r"before jobs of 8333 minutes do. Type: dirac login box --group box_user"
    ):
        jobs.submit([Job(("-c", "pass"), cpu_time_s=500_000)])


def test_credential_that_others_can_read_is_refused(grid: dict[str, Any], tmp_path: Path) -> None:
    path = changed(grid, tmp_path / "open.json")
    Path(path).chmod(0o644)
    with pytest.raises(CredentialError, match=f"chmod 600 {path}"):
        DiracxJobs(grid["diracx"], credentials=path).submit(waiting(1))


# -- servers


def test_server_that_is_down_is_an_error_that_says_so(grid: dict[str, Any]) -> None:
    start = time.monotonic()
    with pytest.raises(JobServiceUnreachableError, match=r"127.0.0.1:9/? does not answer .*DIRACX_URL"):
        DiracxJobs("http://127.0.0.1:9", credentials=grid["token_file"], patience_s=1).submit(waiting(1))
    assert time.monotonic() - start < 30


def test_no_server_at_all_is_an_error_with_the_variable(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIRACX_URL", raising=False)
    with pytest.raises(ConfigurationError, match="export DIRACX_URL="):
        DiracxJobs(credentials=grid["token_file"]).submit(waiting(1))


# -- a server that answers with faults


@pytest.fixture
def proxy(grid: dict[str, Any]) -> Iterator[Proxy]:
    with in_front_of(grid["diracx"]) as proxy:
        yield proxy


@pytest.mark.parametrize("status", [500, 503])
def test_faults_that_pass_are_asked_again(grid: dict[str, Any], proxy: Proxy, status: int) -> None:
    proxy.fault = lambda method, path, number: status if "/api/jobs" in path and number == 1 else 0
    with DiracxJobs(proxy.url, credentials=grid["token_file"]) as jobs:
        ids = jobs.submit(waiting(2))
        jobs.kill(ids)
        assert set(jobs.status(ids).values()) == {"killed"}
        assert sorted(jobs.job_ids()) == sorted(ids)  # not one more


def test_submission_that_arrived_and_was_answered_with_500_is_not_sent_again(
    grid: dict[str, Any], proxy: Proxy
) -> None:
    proxy.after = True
    proxy.fault = lambda method, path, number: 500 if path == "/api/jobs/jdl" else 0
    with DiracxJobs(proxy.url, credentials=grid["token_file"]) as jobs:
        ids = jobs.submit(waiting(3))
        assert proxy.seen["POST", "/api/jobs/jdl"] == 1
        assert sorted(jobs.job_ids()) == sorted(ids)


def test_server_that_keeps_failing_is_an_error_that_says_how(grid: dict[str, Any], proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: 503 if "/api/jobs" in path else 0
    jobs = DiracxJobs(proxy.url, credentials=grid["token_file"], patience_s=2)
    start = time.monotonic()
    with pytest.raises(JobServiceUnreachableError, match=r"answers 503 .*run again later"):
        jobs.submit(waiting(1))
    assert time.monotonic() - start < 60
