"""A run over several sites: files are read where they lie, slow workers are helped, bad ones get nothing more."""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from coffea.nanoevents import NanoAODSchema
from sites_scene import CHUNK, ENTRIES, ITEMS, Scene

from coffea_dirac import DiracCluster
from coffea_dirac.dirac import cluster_jobs
from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.errors import CodeMismatchError, JobServiceError, ProcessingError
from coffea_dirac.interfaces import Job, JobFacts
from coffea_dirac.testing_jobs import wait_until

pytestmark = pytest.mark.core

UK, IT, FR = "LCG.UKI-A.uk", "LCG.CNAF.it", "LCG.CC-LYON.fr"
AT_A_SITE = """
import os, runpy, sys

os.environ["DIRACSITE"] = {site!r}


class Nothing:
    def find_spec(self, name, *_):
        if name == "wave":
            raise ModuleNotFoundError("No module named 'wave'", name=name)


def hide(path):
    # No directory of the submitter's is seen here.
    if path == {hidden!r}:
        return Nothing()
    raise ImportError


sys.path_hooks.insert(0, hide)
sys.path_importer_cache.clear()
sys.meta_path.insert(0, Nothing())
runpy.run_module("coffea_dirac.dirac.start_worker", run_name="__main__", alter_sys=True)
"""


class JobsAtSites(LocalJobs):
    """Processes of this machine, each of which takes itself to be at the site that its job names."""

    def __init__(self, hidden: Path) -> None:
        super().__init__()
        self._hidden = str(hidden)
        self._sites: dict[str, str] = {}

    def submit(self, jobs: Sequence[Job]) -> Sequence[str]:
        sites = [job.sites[0] for job in jobs]
        code = [AT_A_SITE.format(site=site, hidden=self._hidden) for site in sites]
        ids = super().submit(
            [replace(job, arguments=("-c", text, job.arguments[-1])) for job, text in zip(jobs, code, strict=True)]
        )
        self._sites.update(zip(ids, sites, strict=True))
        return ids

    def describe(self, ids: Sequence[str]) -> Mapping[str, JobFacts]:
        return {job: replace(facts, site=self._sites[job]) for job, facts in super().describe(ids).items()}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(NanoAODSchema, "warn_missing_crossrefs", False)
    # What sleeps in a work item does not leave, and is killed.
    monkeypatch.setattr(cluster_jobs, "LEAVE_S", 1.0)
    clusters: list[DiracCluster] = []

    def start(sites: Mapping[str, int]) -> DiracCluster:
        clusters.append(DiracCluster(sum(sites.values()), sites=sites, service=JobsAtSites(tmp_path)))
        return clusters[-1]

    yield Scene(tmp_path, start, {UK: "UK", IT: "IT", FR: "FR"})
    for cluster in clusters:
        cluster.close()


def test_work_items_run_where_their_file_lies(scene: Scene) -> None:
    fileset = scene.files(one="UK", two="IT", three="UK", four="IT")
    out, _ = scene.run(fileset, {UK: 1, IT: 1}, "time.sleep(0.02)")
    home = {"mc:one.root": UK, "mc:two.root": IT, "mc:three.root": UK, "mc:four.root": IT}
    at_home = Counter(home[place.rpartition(":")[0]] == site for site, place in scene.ran)
    assert at_home.total() == 4 * ITEMS
    assert at_home[True] >= 0.9 * 4 * ITEMS
    assert out["n"] == 4 * ENTRIES


def test_a_site_without_workers_is_not_waited_for(scene: Scene) -> None:
    out, _ = scene.run(scene.files(one="UK", two="FR"), {UK: 1})
    assert out["n"] == 2 * ENTRIES
    assert {site for site, _ in scene.ran} == {UK}


def test_what_a_slow_worker_has_is_done_by_another_one_that_has_nothing_to_do(scene: Scene) -> None:
    slow = f"time.sleep(60 if site == {IT!r} else 0.1)"
    started = time.monotonic()
    out, executor = scene.run(scene.files(one="UK", two="UK"), {UK: 1, IT: 1}, slow)
    assert out["n"] == 2 * ENTRIES
    assert time.monotonic() - started < 60
    ran = Counter(place for _, place in scene.ran)
    assert len(ran) == 2 * ITEMS
    again = {place for place, n in ran.items() if n > 1}
    assert 1 <= len(again) <= 2
    assert {place for site, place in scene.ran if site == IT} == again
    # Each counts once.
    assert executor.report.counts["computed"] == 2 * ITEMS
    assert executor.report.complete


BROKEN = f"if site == {IT!r}: raise RuntimeError('no space left on scratch disk')"


def test_a_worker_that_fails_at_everything_wastes_three_work_items_at_most_and_is_replaced(scene: Scene) -> None:
    out, executor = scene.run(scene.files(one="UK", two="UK"), {UK: 2, IT: 1}, BROKEN)
    assert out["n"] == 2 * ENTRIES
    wasted = [place for site, place in scene.ran if site == IT]
    assert 1 <= len(wasted) <= 3
    (told,) = [text for text in executor.report.notes if "gets no more work" in text]
    assert "no space left on scratch disk" in told
    assert IT in told
    cluster = scene.cluster
    assert cluster is not None
    wait_until(lambda: "worker-2" not in cluster.workers, timeout_s=30, what="the bad worker is replaced")


def test_an_error_of_the_analysis_is_told_as_one_also_with_several_sites(scene: Scene) -> None:
    body = "if events.metadata['entrystart'] == 50: raise ValueError('my own mistake')"
    with pytest.raises(ProcessingError, match="my own mistake"):
        scene.run(scene.files(one="UK"), {UK: 1, IT: 1}, body)
    failed = [place for _, place in scene.ran if place.endswith(":50")]
    assert 1 <= len(failed) <= 2


def test_an_error_at_every_worker_ends_the_run_and_blames_none(scene: Scene) -> None:
    with pytest.raises(ProcessingError, match="always"):
        scene.run(scene.files(one="UK"), {UK: 1, IT: 1}, "raise ValueError('always')")
    assert len(scene.ran) <= 5


def test_with_errors_collected_a_bad_worker_costs_no_work_item(scene: Scene) -> None:
    body = BROKEN + "\nif events.metadata['entrystart'] == 50: raise ValueError('my own mistake')"
    with pytest.raises(ProcessingError, match="my own mistake") as raised:
        scene.run(scene.files(one="UK"), {UK: 1, IT: 1}, body, errors="collect")
    assert raised.value.partial_output["n"] == ENTRIES - CHUNK
    assert "scratch disk" not in str(raised.value)


def test_modules_of_the_users_travel_and_an_edit_of_one_is_seen_by_workers_that_live_on(scene: Scene) -> None:
    fileset = scene.files(one="UK")
    out, _ = scene.run(fileset, {UK: 1})
    assert out["n"] == ENTRIES
    (scene.folder / f"{scene.helper}.py").write_text("def number(events):\n    return 2 * len(events)\n")
    again, _ = scene.run(fileset, {UK: 1})
    assert again["n"] == 2 * ENTRIES
    # One that is new, and that the analysis has not imported before.
    (scene.folder / f"{scene.helper}.py").write_text(f"from new_{scene.helper} import number\n")
    (scene.folder / f"new_{scene.helper}.py").write_text("def number(events):\n    return 3 * len(events)\n")
    third, _ = scene.run(fileset, {UK: 1})
    assert third["n"] == 3 * ENTRIES
    assert {site for site, _ in scene.ran} == {UK}


def test_a_package_that_is_missing_at_a_worker_is_named_with_what_adds_it(scene: Scene) -> None:
    (scene.folder / f"{scene.helper}.py").write_text("import wave\ndef number(events):\n    return len(events)\n")
    with pytest.raises(CodeMismatchError, match=f"{UK} has no module 'wave'.*setup='pip install wave'"):
        scene.run(scene.files(one="UK"), {UK: 1})


def test_the_scheduler_listens_where_it_is_told_to_or_says_why_it_cannot(tmp_path: Path) -> None:
    def cluster(place: str) -> DiracCluster:
        return DiracCluster(1, sites={UK: 1}, service=JobsAtSites(tmp_path), transport=f"tcp://{place}")

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = "{}:{}".format(*other.getsockname())
        with pytest.raises(JobServiceError, match=r"could not be started.*\n.*port \d+ is in use: choose another"):
            cluster(place).wait_for(1, timeout=120)
    with pytest.raises(JobServiceError, match=r"could not be started.*\n.*192.0.2.7 is none of this machine's"):
        cluster("192.0.2.7").wait_for(1, timeout=120)
    with cluster(place) as made:
        made.wait_for(1, timeout=120)
        assert made.scheduler_address == f"tcp://{place}"


def test_a_file_of_the_analysis_is_there_where_a_worker_does_not_find_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its working directory is the one in which the cluster was started.
    scene.up({UK: 1})
    here = scene.folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "more.txt").write_text("7")
    helper = "from coffea_dirac import File\nMORE = File('more.txt')\n"
    helper += "def number(events):\n    return len(events) + int(open(MORE).read())\n"
    (scene.folder / f"{scene.helper}.py").write_text(helper)
    out, _ = scene.run(scene.files(one="UK"), {UK: 1}, "assert not os.path.exists('more.txt')")
    assert out["n"] == ENTRIES + 7 * ITEMS
