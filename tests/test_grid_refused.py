"""What goes wrong when workers are asked for at sites: each is told clearly, and soon, and no job is left behind."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from grids import NOWHERE, SITE_A, SITE_B, START_S, cluster_on, jobs_of

from coffea_dirac import DiracCluster, WorkerGroup
from coffea_dirac.dirac.losses import Budget
from coffea_dirac.errors import ConfigurationError, CredentialError, JobServiceError
from coffea_dirac.testing_jobs import wait_until

pytestmark = pytest.mark.needs("diracx")

SOON_S = 60.0


@contextmanager
def soon() -> Iterator[None]:
    """Whatever is told here is told within a minute."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON_S


def test_jobs_that_wait_are_told_with_the_words_of_dirac(
    grid: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coffea_dirac.cluster.cluster.TELL_S", 1.0)
    with (
        cluster_on(grid, sites={NOWHERE: 2}) as cluster,
        pytest.raises(
            JobServiceError, match=rf"0 of 2 workers.*2 waiting at {NOWHERE} since 20.*Pilot Agent Submission"
        ),
    ):
        cluster.wait_for(2, timeout=8)
    assert f"waiting at {NOWHERE}" in caplog.text
    assert not jobs_of(cluster).job_ids(alive=True)


def test_workers_that_cannot_start_ban_their_site_with_the_reason(grid: dict[str, Any]) -> None:
    setup = f'[ "$DIRACSITE" = {SITE_A} ] && echo "/cvmfs is not mounted" && exit 4'
    with cluster_on(grid, sites={SITE_A: 1, SITE_B: 1}, setup=setup) as cluster:
        with Client(cluster, set_as_default=False) as client:
            cluster.ask_for(2)
            wait_until(lambda: bool(cluster.jobs.losses.banned), timeout_s=START_S, what="the ban")
            assert client.submit(os.getenv, "DIRACSITE").result(timeout=START_S) == SITE_B
        (row,) = [row for row in cluster.table() if row["state"] == "banned"]
    assert row["site"] == SITE_A
    assert "3 workers in a row did not come up" in row["told"]
    assert "/cvmfs is not mounted" in row["told"]
    assert "Application Finished With Errors" in row["told"]


def test_environment_without_our_packages_is_an_error_that_names_them(grid: dict[str, Any], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    with (
        cluster_on(grid, sites={SITE_A: 2}, environment=str(tmp_path / "bare")) as cluster,
        pytest.raises(JobServiceError, match=r"(?s)did not come up.*has no module \w+.*environment="),
    ):
        cluster.wait_for(1, timeout=START_S)


OLD_AWKWARD = (
    "mkdir -p .old/awkward-1.10.5.dist-info; "
    r"printf 'Metadata-Version: 2.1\nName: awkward\nVersion: 1.10.5\n' > .old/awkward-1.10.5.dist-info/METADATA"
)
OTHER_PYTHON = (
    "mkdir .old; echo 'import platform; platform.python_version = lambda: \"3.99.1\"' > .old/sitecustomize.py"
)


@pytest.mark.parametrize(
    ("setup", "differs"),
    [
        (OLD_AWKWARD, f"awkward 1.10.5 here, {importlib.metadata.version('awkward')} there"),
        pytest.param(OTHER_PYTHON, f"python 3.99.1 here, {platform.python_version()} there", marks=pytest.mark.long),
    ],
    ids=["awkward", "python"],
)
def test_workers_with_other_versions_do_not_join_and_say_which(grid: dict[str, Any], setup: str, differs: str) -> None:
    with (
        cluster_on(grid, sites={SITE_A: 2}, setup=f'{setup}; export PYTHONPATH="$PWD/.old"') as cluster,
        soon(),
        pytest.raises(JobServiceError, match=rf"(?s)did not come up.*other versions.*{differs}"),
    ):
        cluster.wait_for(1, timeout=START_S)


def test_of_workers_half_of_which_cannot_start_each_is_told_and_the_others_work(
    grid: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    setup = '[ $((JOBID % 2)) = 1 ] && echo "no space left on scratch disk" && exit 4'
    # While another starts slowly several may get an odd number, one after the other.
    budget = Budget(start_failures=8)
    with cluster_on(grid, sites={SITE_A: 2}, setup=setup, budget=budget) as cluster, caplog.at_level(logging.WARNING):
        with soon():
            cluster.wait_for(2, timeout=START_S)
        ids = jobs_of(cluster).job_ids()
        assert {int(job) % 2 for job in cluster.workers.values()} == {0}
        assert not cluster.jobs.losses.banned
        jobs = jobs_of(cluster)
    # One more for each that failed.
    assert len(ids) == 2 + sum(int(job) % 2 for job in ids)
    told = [record.getMessage() for record in caplog.records if "is replaced" in record.getMessage()]
    assert len(told) == len(ids) - 2 > 0
    for words in (SITE_A, "no space left on scratch disk", "Failed, Application Finished With Errors"):
        assert all(words in text for text in told)
    assert not jobs.job_ids(alive=True)
    jobs.close()


def test_a_group_that_may_not_submit_jobs_is_named_with_what_to_type(grid: dict[str, Any]) -> None:
    credentials = str(Path(grid["directory"], "credentials-pilot.json"))
    with (
        DiracCluster(sites=[SITE_A], diracx=grid["diracx"], credentials=credentials) as cluster,
        soon(),
        pytest.raises(
            JobServiceError,
            match=r"refuses this to alice, VO box, group box_pilot.* with 403.*Is the group one that may submit jobs\? "
            r"For another one, type: dirac login box --group GROUP",
        ),
    ):
        cluster.wait_for(1, timeout=START_S)


@pytest.mark.long
def test_a_server_that_is_down_at_the_start_is_an_error_within_a_minute(grid: dict[str, Any]) -> None:
    with (
        DiracCluster(sites=[SITE_A], diracx="http://127.0.0.1:9", credentials=grid["token_file"]) as cluster,
        soon(),
        pytest.raises(JobServiceError, match=r"127.0.0.1:9 does not answer.*Is it the right address \(DIRACX_URL\)"),
    ):
        cluster.wait_for(1, timeout=START_S)


def test_an_environment_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="venv:/shared/directory"):
        DiracCluster(sites=[SITE_A], environment="venv").job_script()


def test_no_credential_is_an_error_of_the_first_task(grid: dict[str, Any], tmp_path: Path) -> None:
    with (
        DiracCluster(sites=[SITE_A], diracx=grid["diracx"], credentials=str(tmp_path / "none")) as cluster,
        pytest.raises(CredentialError, match="dirac login"),
    ):
        cluster.wait_for(1, timeout=60)


def test_options_that_mean_nothing_are_refused() -> None:
    for options in ({"sites": "LCG.A.uk"}, {"sites": {"LCG.A.uk": 0}}, {"sites": ["LCG.A.uk"], "tags": "GPU"}):
        with pytest.raises(ConfigurationError):
            DiracCluster(**options)
    with pytest.raises(ConfigurationError, match="no name of a DIRAC site"):
        DiracCluster(sites={"RAL": 2}).job_script()
    with pytest.raises(ConfigurationError, match="all sites of 'worker' are banned"):
        DiracCluster(sites={SITE_A: 1}, banned=[SITE_A])
    for transport in (
        "8786",
        "tcp://example.org",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1/x",
    ):
        with pytest.raises(ConfigurationError, match="no way to workers"):
            DiracCluster(sites=[SITE_A], transport=transport)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "lots"}, "memory='4 GiB'"),
        ({"memory": 4}, "64 MiB or more"),
        ({"cores": 1.5}, "cores=4"),
        ({"cores": "4"}, "cores=4"),
        ({"cpu_time": "2h"}, "cpu_time=7200"),
        ({"resources": ["GPU"]}, "{'GPU': 1}"),
        ({"tags": [5]}, r"tags=\['GPU'\]"),
        ({"banned": 5}, "banned=5: it is a list of names"),
        ({"environment": Path("/cvmfs/x")}, "environment='/cvmfs/example.org/env'"),
        ({"setup": ["module load cuda"]}, "setup='module load cuda'"),
        ({"sites": {}}, r"sites=\[\] for any"),
        ({"sites": [5]}, "a mapping or a list"),
        ({"sites": None, "groups": WorkerGroup("a")}, "a list of WorkerGroup"),
        ({"sites": None, "groups": [WorkerGroup("a"), WorkerGroup("a")]}, "the names a, a"),
        ({"sites": None, "groups": [WorkerGroup("a")], "cores": 4}, "said of each group"),
        ({"workers": "4"}, r"DiracCluster\(4\)"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_with_what_to_write(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DiracCluster(**{"sites": [SITE_A], **options})


def test_a_group_without_workers_is_refused_and_memory_may_be_written_as_in_dask() -> None:
    for maximum in (0, -2):
        with pytest.raises(ConfigurationError, match="maximum=10"):
            WorkerGroup(sites=[SITE_A], maximum=maximum)
    assert WorkerGroup(memory="2 GB").memory == 2_000_000_000
    assert DiracCluster(sites=[SITE_A], memory="2 GB").jobs.roster.groups[0].memory == 2_000_000_000


def test_numbers_of_workers_that_mean_nothing_are_refused() -> None:
    cluster = DiracCluster(sites=[SITE_A])
    for wrong in ({"minimum": 5, "maximum": 2}, {"minimum": -1}, {"idle": -1}, {"idle": "10m"}):
        with pytest.raises(ConfigurationError, match="idle in seconds"):
            cluster.adapt(**wrong)
    with pytest.raises(ConfigurationError, match="how many workers to keep"):
        cluster.scale(-1)
