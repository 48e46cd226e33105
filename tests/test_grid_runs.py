"""Runs on the grid in a box: where work items go, what bad and slow workers cost, and stages that need a GPU."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import resources_scene
from coffea.nanoevents import NanoAODSchema
from distributed import Client
from grids import NOWHERE, SITE_A, SITE_B, SITE_GPU
from sites_scene import ENTRIES, ITEMS, Scene

from coffea_dirac import DiracCluster, WorkerGroup
from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import Job
from coffea_dirac.testing_jobs import wait_until

pytestmark = [pytest.mark.needs("diracx"), pytest.mark.long, pytest.mark.timeout(600)]

START_S = 200.0


@pytest.fixture
def cluster_of(grid: dict[str, Any]) -> Iterator[Callable[..., DiracCluster]]:
    """Make clusters on the box; each is closed, and leaves no job."""
    made: list[DiracCluster] = []

    def make(**options: Any) -> DiracCluster:
        made.append(DiracCluster(diracx=grid["diracx"], credentials=grid["token_file"], **options))
        return made[-1]

    yield make
    for cluster in made:
        group = cluster.jobs.service.group  # type: ignore[attr-defined]
        cluster.close()
        with DiracxJobs(grid["diracx"], credentials=grid["token_file"], group=group) as jobs:
            assert jobs.job_ids(alive=True) == []


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster_of: Callable[..., DiracCluster]) -> Scene:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(NanoAODSchema, "warn_missing_crossrefs", False)

    def start(sites: Mapping[str, int]) -> DiracCluster:
        return cluster_of(workers=sum(sites.values()), sites=sites)

    return Scene(tmp_path, start, {SITE_A: "A", SITE_B: "B"})


# -- where work items go


def test_nine_of_ten_work_items_run_where_their_file_lies_while_both_sites_have_room(scene: Scene) -> None:
    fileset = scene.files(one="A", two="B", three="A", four="B")
    out, executor = scene.run(fileset, {SITE_A: 1, SITE_B: 1}, "time.sleep(0.05)")
    home = {"mc:one.root": SITE_A, "mc:two.root": SITE_B, "mc:three.root": SITE_A, "mc:four.root": SITE_B}
    at_home = Counter(home[place.rpartition(":")[0]] == site for site, place in scene.ran)
    assert at_home.total() == 4 * ITEMS
    assert at_home[True] >= 0.9 * 4 * ITEMS
    assert out["n"] == 4 * ENTRIES
    assert dict(executor.report.sites) == dict(Counter(site for site, _ in scene.ran))


def test_a_site_whose_slots_are_taken_is_not_waited_for(scene: Scene, grid: dict[str, Any]) -> None:
    with DiracxJobs(grid["diracx"], credentials=grid["token_file"]) as others:
        taken = others.submit([Job(("-c", "import time; time.sleep(500)"), sites=(SITE_B,)) for _ in range(2)])
        running = lambda: set(others.status(taken).values()) == {"running"}  # noqa: E731
        wait_until(running, timeout_s=START_S, what="others have all slots of the site")
        out, _ = scene.run(scene.files(one="A", two="B"), {SITE_A: 1, SITE_B: 1}, workers=1)
        assert out["n"] == 2 * ENTRIES
        assert {site for site, _ in scene.ran} == {SITE_A}
        assert scene.cluster is not None
        assert {row["site"]: row["state"] for row in scene.cluster.table()} == {SITE_A: "up", SITE_B: "waiting"}


# -- bad and slow workers


def test_one_broken_worker_of_three_wastes_three_work_items_at_most_and_is_replaced_with_the_reason(
    scene: Scene,
) -> None:
    bad = scene.up({SITE_A: 2, SITE_B: 1}, site=SITE_B)
    broken = f"if os.environ['COFFEA_DIRAC_JOB'] == {bad!r}: raise RuntimeError('no space left on scratch disk')"
    out, executor = scene.run(scene.files(one="A", two="A"), {}, f"{broken}\ntime.sleep(0.2)")
    assert out["n"] == 2 * ENTRIES
    assert len(scene.ran) - 2 * ITEMS <= 3
    assert 1 <= len([place for site, place in scene.ran if site == SITE_B]) <= 3
    (told,) = [text for text in executor.report.notes if "gets no more work" in text]
    assert "no space left on scratch disk" in told
    assert SITE_B in told
    cluster = scene.cluster
    assert cluster is not None
    wait_until(lambda: bad not in cluster.workers, timeout_s=30, what="the bad worker goes")
    cluster.wait_for(3, timeout=START_S)
    # Its place is good: the next one there works.
    again, _ = scene.run(scene.files(three="B"), {}, "time.sleep(0.2)")
    assert again["n"] == ENTRIES
    assert SITE_B in {site for site, place in scene.ran if place.startswith("mc:three")}


def test_a_site_where_every_worker_is_broken_is_banned_with_the_reason(scene: Scene) -> None:
    scene.up({SITE_A: 1, SITE_B: 2})
    cluster, flag = scene.cluster, scene.folder / "banned"
    assert cluster is not None

    def wait_for_ban() -> None:
        wait_until(lambda: bool(cluster.jobs.losses.banned), timeout_s=START_S, what="the ban")
        flag.touch()

    watch = threading.Thread(target=wait_for_ban)
    watch.start()
    body = f"""if site == {SITE_B!r}: raise RuntimeError('no space left on scratch disk')
if not os.path.exists({str(flag)!r}): time.sleep(1)"""
    out, executor = scene.run(scene.files(one="A", two="A", three="B", four="B"), {}, body)
    watch.join(START_S)
    assert out["n"] == 4 * ENTRIES
    n_bad = len([text for text in executor.report.notes if "gets no more work" in text])
    assert n_bad >= 3
    assert n_bad <= len([place for site, place in scene.ran if site == SITE_B]) <= 3 * n_bad
    (row,) = [row for row in cluster.table() if row["state"] == "banned"]
    assert row["site"] == SITE_B
    assert "3 workers at" in str(row["told"])
    assert "no space left on scratch disk" in str(row["told"])


def test_one_worker_of_three_that_is_twenty_times_slower_at_most_doubles_the_time(scene: Scene) -> None:
    """What takes time is waiting, so that other work of this machine counts little."""
    seconds, n_items = 0.5, 2 * ITEMS
    slow = scene.up({SITE_A: 2, SITE_B: 1}, site=SITE_B)
    body = f"""with open({str(scene.folder / "times.txt")!r}, "a") as f:
    print(time.time(), file=f)
time.sleep({seconds} * (20 if os.environ['COFFEA_DIRAC_JOB'] == {slow!r} else 1))"""
    out, executor = scene.run(scene.files(one="A", two="A"), {}, body)
    returned = time.time()
    assert out["n"] == 2 * ENTRIES
    assert executor.report.counts["computed"] == n_items
    first = min(map(float, (scene.folder / "times.txt").read_text().split()))
    assert returned - first <= 2 * n_items * seconds / (2 + 1 / 20)
    at = Counter(site for site, _ in scene.ran)
    assert at[SITE_A] > n_items - 3
    assert at[SITE_B] >= 1


# -- stages that need a GPU


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[resources_scene.Scene]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(NanoAODSchema, "warn_missing_crossrefs", False)
    found = resources_scene.Scene(tmp_path)
    yield found
    sys.modules.pop(found.name, None)


CPU = WorkerGroup("cpu", sites={SITE_A: 1, SITE_B: 1})
OTHERS = {name: {"cpu"} for name in resources_scene.OTHERS}


def groups_of(found: resources_scene.Ran) -> dict[str, set[str]]:
    return {name: {worker.partition("-")[0] for worker in workers} for name, workers in found.where.items()}


def test_a_stage_that_needs_a_gpu_runs_at_the_site_with_the_tag_and_the_others_elsewhere(
    stages: resources_scene.Scene, cluster_of: Callable[..., DiracCluster]
) -> None:
    # Both sites are asked; only one of them has the tag.
    gpu = WorkerGroup("gpu", sites=[SITE_A, SITE_GPU], maximum=1, tags=["GPU"], resources={"GPU": 1})
    cluster = cluster_of(groups=[CPU, gpu])
    with Client(cluster, set_as_default=False) as client:
        found = stages.run(client)
        info = client.scheduler_info(n_workers=-1)["workers"].values()
        sites = {worker["site"] for worker in info if str(worker["id"]).startswith("gpu")}
        texts = [text.replace(" ", "") for text in cluster.job_script().splitlines() if text.startswith("Tags")]
    assert (found.error, found.out, found.ran) == ("", stages.inline, resources_scene.ALL)
    assert groups_of(found) == {**OTHERS, "score": {"gpu"}}
    assert sites == {SITE_GPU}
    assert texts == ['Tags={"GPU"};']


def test_without_a_group_that_has_a_gpu_the_other_stages_are_done_and_the_error_says_how_to_get_one(
    stages: resources_scene.Scene, cluster_of: Callable[..., DiracCluster]
) -> None:
    with Client(cluster_of(groups=[CPU]), set_as_default=False) as client:
        found = stages.run(client)
        done = {"select": 4, "features": 4, "number": 4}
        assert found.ran == done
        words = ("score {'GPU': 1}", "4 work items", "WorkerGroup(", "tags=['GPU']", "resources={'GPU': 1}")
        assert [word for word in words if word not in found.error] == []
        assert groups_of(found) == {name: {"cpu"} for name in done}


def test_a_group_with_a_gpu_whose_jobs_never_start_is_told_of_while_the_other_stages_are_done(
    stages: resources_scene.Scene,
    cluster_of: Callable[..., DiracCluster],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coffea_dirac.cluster.cluster.TELL_S", 2.0)
    cluster = cluster_of(groups=[CPU, WorkerGroup("gpu", sites={NOWHERE: 1}, tags=["GPU"], resources={"GPU": 1})])
    cluster.no_worker_deadline_s = 20.0
    with (
        Client(cluster, set_as_default=False) as client,
        caplog.at_level(logging.WARNING),
        pytest.raises(JobServiceError, match=rf"(?s)no worker with .*GPU.*waiting at {NOWHERE} since 20.*Pilot Agent"),
    ):
        stages.run(client)
    told = [record.getMessage() for record in caplog.records if NOWHERE in record.getMessage()]
    assert "No worker of the group 'gpu' yet" in told[-1]
    assert "Pilot Agent Submission" in told[-1]
    assert stages.done == {"select": 4, "features": 4, "number": 4}
