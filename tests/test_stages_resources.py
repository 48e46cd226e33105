"""Stages with ``resources=`` run where these are, and the others elsewhere; each stage notes the process it runs in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from coffea.nanoevents import NanoAODSchema
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster
from resources_scene import ALL, OTHERS, Ran, Scene

from coffea_dirac import DiracCluster, WorkerGroup
from coffea_dirac.dirac.local import LocalJobs
from coffea_dirac.interfaces import Outcome, Row
from coffea_dirac.running.dispatch import Offer
from coffea_dirac.running.lanes import MOST_STOPS, Lanes
from coffea_dirac.stages.resources import ORDINARY, Blocked, Grant, places, resources_of

pytestmark = pytest.mark.core

GPU = resources_of({"GPU": 1})


@pytest.fixture(scope="module")
def mixed() -> Iterator[Client]:
    """One worker without a GPU, and one with."""
    spec = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "resources": resources}}
        for name, resources in (("cpu", {}), ("gpu", {"GPU": 1}))
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0"}}
    cluster = SpecCluster(spec, scheduler=scheduler)
    try:
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
            yield client
    finally:
        # On a busy machine its workers take longer to end than it waits for them.
        with suppress(TimeoutError):
            cluster.close(timeout=60)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("coffea_dirac.running.stream.FITTING_DEADLINE_S", 0.5)
    monkeypatch.setattr(NanoAODSchema, "warn_missing_crossrefs", False)
    found = Scene(tmp_path)
    yield found
    sys.modules.pop(found.name, None)


def apart(gpu: tuple[str, ...] = ("score",), cpu: tuple[str, ...] = OTHERS) -> dict[str, set[str]]:
    return {**{name: {"cpu"} for name in cpu}, **{name: {"gpu"} for name in gpu}}


def computed(ran: Ran) -> dict[str, int]:
    return {name: n["computed"] for name, n in ran.report.stages.items() if n["computed"]}


def test_a_stage_with_resources_runs_on_workers_that_have_them_and_the_others_elsewhere(
    scene: Scene, mixed: Client
) -> None:
    found = scene.run(mixed)
    assert (found.error, found.out) == ("", scene.inline)
    assert found.ran == ALL == computed(found)
    assert found.where == apart()
    # Each result counts once, also if a work item found it again after it had been elsewhere.
    assert {name: n["loaded"] for name, n in found.report.stages.items()} == dict.fromkeys(ALL, 0)
    assert scene.run(mixed).report.work_items == {"hits": 4, "misses": 0}
    scene.edit("return float(ak.sum(scores))", "return 2 * float(ak.sum(scores))")
    edited = scene.run(mixed)
    assert (edited.where, edited.out) == ({"total": {"cpu"}}, scene.inline)


MORE = """
@stage(resources={"GPU": 1})
def again(values):
    ran("again")
    return values + 1


@stage
def shift(values):
    ran("shift")
    return values - 3


class Analysis"""


def test_stages_in_turn_with_and_without_resources_each_run_where_they_belong(scene: Scene, mixed: Client) -> None:
    scene.edit("\nclass Analysis", MORE)
    scene.edit("total(score(features(select(events))))", "total(again(shift(score(features(select(events))))))")
    found = scene.run(mixed)
    assert (found.error, found.out) == ("", scene.inline)
    assert found.ran == {**ALL, "again": 4, "shift": 4} == computed(found)
    assert found.where == apart(("score", "again"), (*OTHERS, "shift"))


def test_where_all_workers_have_them_every_stage_runs(scene: Scene) -> None:
    options = {"threads_per_worker": 1, "processes": False, "resources": {"GPU": 1}, "dashboard_address": ":0"}
    with LocalCluster(2, **options) as cluster, Client(cluster, set_as_default=False) as client:
        found = scene.run(client)
    assert (found.out, found.ran) == (scene.inline, ALL)


@pytest.mark.parametrize("errors", ["fail", "collect"])
def test_without_such_a_worker_all_else_is_done_and_kept_and_the_error_says_how_to_get_one(
    scene: Scene, mixed: Client, errors: str
) -> None:
    scene.edit('{"GPU": 1}', '{"TPU": 1}')
    found = scene.run(mixed, errors=errors)
    words = (
        "score {'TPU': 1}",
        "4 work items",
        '--resources "TPU=1"',
        "LocalCluster(resources={'TPU': 1})",
        "inline=True",
    )
    assert [word for word in words if word not in found.error] == []
    assert found.ran == {"select": 4, "features": 4, "number": 4} == computed(found)
    # What a stage needs changes no fingerprint; features are not kept for anybody but a worker elsewhere.
    scene.edit('{"TPU": 1}', '{"GPU": 1}')
    later = scene.run(mixed)
    assert (later.out, later.ran) == (scene.inline, {"features": 4, "score": 4, "total": 4})
    assert later.where == apart(cpu=("features", "total"))


OTHER = """
@stage
def other(events):
    ran("other")
    return 1


class Analysis"""


def test_a_stage_brings_workers_of_the_clusters_group_that_has_what_it_needs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of that group is there when the run begins: its first blocked work item is what starts one."""
    monkeypatch.setattr("coffea_dirac.running.stream.FITTING_DEADLINE_S", 240.0)
    groups = [WorkerGroup("cpu", sites={"HERE": 1}), WorkerGroup("gpu", sites={"HERE": 1}, resources={"GPU": 1})]
    with (
        LocalJobs() as service,
        DiracCluster(groups=groups, service=service) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert client.submit(os.getpid).result(timeout=240) > 0
        assert set(cluster.workers) == {"cpu-0"}
        found = scene.run(client)
    assert found.out == scene.inline
    groups_of = {name: {worker.partition("-")[0] for worker in workers} for name, workers in found.where.items()}
    assert groups_of == {name: {"gpu" if name == "score" else "cpu"} for name in found.ran}


def test_without_a_cache_a_work_item_goes_to_such_a_worker_as_a_whole(scene: Scene, mixed: Client) -> None:
    scene.edit("\nclass Analysis", OTHER)
    plain = "if events.metadata['dataset'] == 'wjets':\n            return {'n': other(events)}"
    scene.edit("# before", plain)
    found = scene.run(mixed, cache=None)
    assert (found.out, found.ran) == (scene.inline, {**dict.fromkeys(ALL, 2), "other": 2})
    assert found.where == apart(tuple(ALL), ("other",))


@pytest.mark.filterwarnings("ignore::coffea_dirac.cache.CacheWarning")
def test_a_store_that_cannot_be_written_changes_no_result(scene: Scene, mixed: Client) -> None:
    (scene.folder / "cache").write_text("no folder")
    found = scene.run(mixed)
    assert (found.out, found.ran, found.where["score"]) == (scene.inline, ALL, {"gpu"})


def test_a_processor_that_looks_at_its_events_is_blocked_and_resumed_too(scene: Scene, mixed: Client) -> None:
    scene.edit("# before", "assert len(events.Jet) == len(events)")
    found = scene.run(mixed)
    assert (found.out, found.ran, found.where) == (scene.inline, ALL, apart())


def test_a_processor_that_catches_everything_does_not_swallow_that_it_is_blocked(scene: Scene, mixed: Client) -> None:
    caught = "try:\n            s = score(features(select(events))).compute()\n        except BaseException:\n            s = 0"
    scene.edit("# before", caught)
    scene.edit("total(score(features(select(events))))", "total(s)")
    found = scene.run(mixed)
    assert (found.error, found.out, found.where) == ("", scene.inline, apart())


@pytest.mark.parametrize("stage", ["score", "features"])
def test_a_worker_that_dies_on_the_way_costs_no_result(
    scene: Scene, mixed: Client, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its nanny starts another one.
    monkeypatch.setattr("coffea_dirac.running.stream.FITTING_DEADLINE_S", 60.0)
    (scene.folder / "died").mkdir()
    die = f"    if not os.listdir('{scene.folder}/died') and os.getpid() != {os.getpid()}:\n"
    die += f"        open('{scene.folder}/died/yes', 'w').close()\n        os.kill(os.getpid(), 9)\n"
    scene.edit(f'    ran("{stage}")\n', f'    ran("{stage}")\n{die}')
    found = scene.run(mixed)
    assert list((scene.folder / "died").iterdir())
    assert (found.error, found.out) == ("", scene.inline)
    assert found.ran[stage] == 5
    # The others may have run there while no other worker was left.
    assert found.where["score"] <= {"gpu", "died"}


# ---------------------------------------------------------------- pure parts


def test_workers_that_have_what_stages_need_are_left_to_these_as_long_as_there_are_others() -> None:
    workers = {name: {"nthreads": 4, "resources": {"GPU": n} if n else {}} for name, n in (("a", 0), ("b", 2))}
    assert places(workers, [GPU], ()) == {"a": 4}
    assert places(workers, [GPU], GPU) == {"b": 2}
    assert places(workers, [GPU], resources_of({"GPU": 3})) == {}
    assert places({"b": workers["b"]}, [GPU], ()) == {"b": 4}
    assert places(workers, [], ()) == {"a": 4, "b": 4}


class Named:
    def __init__(self, name: str, **resources: float) -> None:
        self.name, self.resources = name, resources


def test_what_a_blocked_work_item_asks_for_next() -> None:
    gpu, fpga = Named("score", GPU=1), Named("more", FPGA=1)
    part = Grant(GPU, is_whole=False)
    assert Blocked([gpu, fpga], is_kept=True).asks(ORDINARY, has_advanced=True) == part
    assert Blocked([gpu, fpga], is_kept=False).asks(ORDINARY, has_advanced=False) == Grant(
        resources_of({"GPU": 1, "FPGA": 1})
    )
    ordinary = Named("total")
    assert Blocked([ordinary], is_kept=True).asks(part, has_advanced=True) == ORDINARY
    # It did not find there what had been kept for it: all in one place then.
    assert Blocked([ordinary], is_kept=True).asks(part, has_advanced=False) == Grant(GPU)
    assert Blocked([fpga], is_kept=True).asks(Grant(GPU), has_advanced=False) == Grant(
        resources_of({"GPU": 1, "FPGA": 1})
    )


def test_a_work_item_that_is_sent_about_for_ever_goes_to_one_place_as_a_whole() -> None:
    lanes = Lanes([{"GPU": 1}])
    for _ in range(MOST_STOPS):
        lanes.stopped(1, Grant(GPU, is_whole=False))
        assert not lanes.needs(1).is_whole
    lanes.stopped(1, Grant(GPU, is_whole=False))
    assert lanes.needs(1) == Grant(GPU)


def test_what_a_work_item_did_before_it_was_blocked_counts_once() -> None:
    lanes = Lanes([{"GPU": 1}])
    first = [Outcome("select", "aa", "computed", work_items=0), Outcome("b", "bb", "loaded", work_items=0)]
    row = Row("aa", (), "", "", "", "pack", 0, 1)
    lanes.stopped(1, Grant(GPU, is_whole=False), rows=[row], seconds=2.0)
    assert list(lanes.news(1, first)) == first
    second = [Outcome("select", "aa", "loaded", work_items=0), Outcome("score", "cc", "computed", work_items=0)]
    assert list(lanes.news(1, second)) == second[1:]
    assert lanes.rows([(1, "item", "key"), (2, "item", "key")]) == [row]
    assert (lanes.seconds(1), lanes.seconds(2)) == (2.0, 0.0)


def test_blocked_work_items_of_a_file_go_together_and_those_of_lost_workers_alone() -> None:
    lanes = Lanes([{"GPU": 1}])
    for position in range(4):
        lanes.stopped(position, Grant(GPU, is_whole=False))

    class Item:
        dataset, filename = "a", "f"

    for position in range(3):
        assert lanes.add((position, Item, ""))
    assert lanes.add((3, Item, ""), is_again=True)
    assert not lanes.add((4, Item, ""))
    taken = [t[0] for t in lanes.take(Offer(1, resources=GPU), seconds_per_item=0.01)]
    assert taken == [0, 1, 2]
    assert [t[0] for t in lanes.take_all(GPU)] == [3]
    assert len(lanes) == 0 == len(lanes.waiting())
