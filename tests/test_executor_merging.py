"""Merged results are kept: what did not change is read as one record, and what did redoes one path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scenario import Scenario, write_nano

from coffea_dirac.packs.pack import read_footer
from coffea_dirac.stores import open_store

pytestmark = pytest.mark.core

CHUNKS = {"runner": {"chunksize": 5}}
ITEMS = 40
WORKERS = "executor = DiracExecutor(**{'cache': 'cache', 'workers': 2, 'status': False, **options})"
INLINE = "executor = DiracExecutor(**{'cache': 'cache', 'inline': True, 'status': False, **options})"


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path)


@pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])
def test_an_unchanged_run_reads_one_record(scenario: Scenario, make: str) -> None:
    cold = scenario.run(make=make, compare=True, **CHUNKS)
    assert cold.error is None
    assert (cold.counts["computed"], cold.counts["loaded"], cold.misses) == (ITEMS, 0, ITEMS)
    assert cold.out == pytest.approx(cold.plain, rel=1e-12)
    warm = scenario.run(**CHUNKS)
    assert (warm.counts["loaded"], warm.hits, warm.misses) == (1, ITEMS, 0)
    assert warm.out == cold.out


def test_another_file_is_computed_and_the_rest_is_loaded_as_it_was_merged(scenario: Scenario) -> None:
    scenario.run(**CHUNKS)
    write_nano(scenario.folder / "three.root", seed=3)
    scenario.fileset["wjets"]["files"].append("three.root")
    more = scenario.run(compare=True, **CHUNKS)
    assert (more.counts["loaded"], more.counts["computed"]) == (2, 20)
    assert (more.hits, more.misses) == (ITEMS, 20)
    assert more.out == pytest.approx(more.plain, rel=1e-12)
    scenario.fileset["wjets"]["files"].pop()
    again = scenario.run(**CHUNKS)
    assert (again.counts["loaded"], again.misses) == (1, 0)


def test_a_part_of_the_datasets_is_loaded_as_whole_datasets(scenario: Scenario) -> None:
    scenario.run(**CHUNKS)
    for name in ("ttbar", "wjets"):
        part = scenario.run(fileset={name: scenario.fileset[name]}, compare=True, **CHUNKS)
        assert (part.counts["loaded"], part.hits, part.misses) == (1, 20, 0)
        assert part.out == pytest.approx(part.plain, rel=1e-12)
    turned = dict(reversed(scenario.fileset.items()))
    other = scenario.run(fileset=turned, **CHUNKS)
    assert (other.counts["loaded"], other.misses) == (2, 0)


def test_a_trial_of_one_work_item_counts_towards_the_whole(scenario: Scenario) -> None:
    trial = scenario.run(runner={"chunksize": 5, "maxchunks": 1})
    assert trial.misses == 2
    whole = scenario.run(compare=True, **CHUNKS)
    assert (whole.hits, whole.misses) == (2, ITEMS - 2)
    assert whole.out == pytest.approx(whole.plain, rel=1e-12)


@pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])
def test_a_record_counts_wherever_its_file_is_listed(scenario: Scenario, make: str) -> None:
    scenario.fileset = {"ttbar": {"files": ["one.root"], "metadata": {"xsec": 2.5}}}
    scenario.run(runner={"chunksize": 100})
    scenario.fileset["again"] = {"files": ["one.root", "two.root", "one.root"], "metadata": {"xsec": 2.5}}
    result = scenario.run(make=make, compare=True, runner={"chunksize": 100})
    assert result.error is None
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    assert (result.hits, result.misses) == (3, 1)


@pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])
def test_many_known_records_are_merged_while_others_are_computed(scenario: Scenario, make: str) -> None:
    scenario.run(fileset={"ttbar": scenario.fileset["ttbar"]}, runner={"chunksize": 2, "maxchunks": 49})
    more = scenario.run(make=make, compare=True, runner={"chunksize": 2})
    assert more.error is None
    assert more.out == pytest.approx(more.plain, rel=1e-12)
    assert (more.hits, more.misses) == (49, 51)
    write_nano(scenario.folder / "three.root", seed=3)
    scenario.fileset["ttbar"]["files"].append("three.root")
    for pack in packs(scenario):
        if pack.name.startswith("m"):
            pack.unlink()
    again = scenario.run(make=make, compare=True, runner={"chunksize": 2})
    assert again.error is None
    assert again.out == pytest.approx(again.plain, rel=1e-12)
    assert (again.hits, again.misses) == (100, 50)


def packs(scenario: Scenario) -> list[Path]:
    return sorted((scenario.folder / "cache").glob("v1/s/*/p/*.pack"))


@pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])
def test_a_merged_record_that_got_lost_is_merged_again_from_its_parts(scenario: Scenario, make: str) -> None:
    cold = scenario.run(**CHUNKS)
    for pack in packs(scenario):
        if pack.name.startswith("m"):
            pack.write_bytes(bytes(len(pack.read_bytes())))
    warm = scenario.run(make=make, **CHUNKS)
    assert warm.out == cold.out
    assert warm.misses == 0
    assert warm.hits == ITEMS
    assert warm.counts["loaded"] == ITEMS


@pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])
def test_when_all_payloads_are_damaged_everything_is_computed_again(scenario: Scenario, make: str) -> None:
    cold = scenario.run(**CHUNKS)
    store = open_store(scenario.folder / "cache")
    for pack in packs(scenario):
        data = bytearray(pack.read_bytes())
        table = read_footer(store, str(pack.relative_to(scenario.folder / "cache")))
        for row in map(table.row, range(len(table))):
            data[row.offset + row.length - 8 : row.offset + row.length] = b"damaged!"
        pack.write_bytes(data)
    again = scenario.run(make=make, **CHUNKS)
    assert again.error is None
    assert again.out == cold.out
    assert again.hits + again.misses == ITEMS
    assert again.misses > ITEMS // 2
    third = scenario.run(**CHUNKS)
    assert (third.out, third.misses) == (cold.out, 0)


def test_metrics_of_a_full_hit_are_complete_and_count_bytes_of_this_run_only(scenario: Scenario) -> None:
    make = INLINE + "\n        runner['savemetrics'] = True"
    cold = scenario.run(make=make, **CHUNKS)
    warm = scenario.run(make=make, **CHUNKS)
    (out, cold_metrics), (warm_out, warm_metrics) = cold.out, warm.out
    for metrics in (cold_metrics, warm_metrics):
        # coffea makes a list of a set, in the order of this process.
        metrics["columns"].sort()
    assert warm_out == out
    assert cold_metrics["bytesread"] > 0
    assert warm_metrics == {**cold_metrics, "bytesread": 0, "processtime": 0.0}
    assert warm_metrics["entries"] == 200
    assert warm_metrics["chunks"] == ITEMS
    assert len(warm_metrics["columns"]) > 0


def test_a_skipped_file_leaves_the_result_that_a_run_without_it_has(scenario: Scenario) -> None:
    names = [f"f{i}.root" for i in range(80)]
    for i, name in enumerate(names):
        write_nano(scenario.folder / name, events=10, seed=i)
    bad = scenario.folder / names[17]
    bad.write_bytes(bad.read_bytes()[:300])
    scenario.fileset = {"ttbar": {"files": names, "metadata": {"xsec": 2.5}}}
    with_bad = scenario.run(runner={"chunksize": 10, "skipbadfiles": True})
    names.pop(17)
    without = scenario.run(runner={"chunksize": 10}, cache="other")
    assert with_bad.out == without.out
    assert list(with_bad.missing["ttbar"]["files"]) == ["f17.root"]


def test_without_a_cache_the_result_is_the_same_to_the_bit(scenario: Scenario) -> None:
    write_nano(scenario.folder / "long.root", events=700, seed=5)
    scenario.fileset["ttbar"]["files"].append("long.root")
    kept = scenario.run(**CHUNKS)
    shutil.rmtree(scenario.folder / "cache")
    for make in (INLINE, WORKERS):
        assert scenario.run(make=make, cache=None, **CHUNKS).out == kept.out
    assert scenario.run(make=WORKERS, **CHUNKS).out == kept.out
