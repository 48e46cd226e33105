"""One grid in a box for all tests of a session, also when several processes run them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coffea_dirac import DiracCluster
from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.grid import box

SITE_A, SITE_B, SITE_GPU, NOWHERE = "LCG.Box-A.uk", "LCG.Box-B.uk", "LCG.Box-GPU.uk", "LCG.Nowhere.uk"
START_S = 120.0
"""How long workers may take to come up."""
SITES = (f"{SITE_A}:2", f"{SITE_B}:2", f"{SITE_GPU}:1:GPU")


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give the session's grid; it ends with the process that started the session."""
    is_part = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    base, session = (base.parent, os.getppid()) if is_part else (base, os.getpid())
    with one_at_a_time(base / "grid.lock"):
        return box.up(base / "grid", SITES, heartbeat_s=1.2, end_with=session)


def cluster_on(grid: dict[str, Any], **options: Any) -> DiracCluster:
    """Return a cluster on the box whose workers import nothing before they join."""
    return DiracCluster(diracx=grid["diracx"], credentials=grid["token_file"], imports=(), **options)


def jobs_of(cluster: DiracCluster) -> DiracxJobs:
    """Return the job service of a cluster on the box."""
    assert isinstance(cluster.jobs.service, DiracxJobs)
    return cluster.jobs.service
