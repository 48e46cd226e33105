"""What coffea's users do with an executor: each case does with DiracExecutor what it does with coffea's own."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea import processor
from coffea.nanoevents import BaseSchema, NanoAODSchema
from coffea.processor import IterativeExecutor, Runner
from scenario import write_nano

from coffea_dirac import DiracExecutor
from coffea_dirac.cache import CacheWarning
from coffea_dirac.errors import ProcessingError

pytestmark = pytest.mark.core


class Sums(processor.ProcessorABC):  # type: ignore[misc]
    def process(self, events: Any) -> Any:
        return {"n": len(events), "x": float(ak.sum(events.x)), "of": {events.metadata["dataset"]: len(events)}}

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator


class Jets(Sums):
    def process(self, events: Any) -> Any:
        return {"n": len(events), "pt": float(ak.sum(events.Jet.pt))}


class Nothing(Sums):
    def process(self, events: Any) -> Any:
        return None


class Exits(Sums):
    def process(self, events: Any) -> Any:
        sys.exit(4)


class Doubles(Sums):
    def postprocess(self, accumulator: Any) -> Any:
        return {**accumulator, "n": 2 * accumulator["n"]}


def flat(path: Path, *, n: int = 30, tree: str = "Events", seed: int = 1, kind: str = "tree") -> str:
    """Write a flat tree, or an RNTuple, of x and y."""
    rng = np.random.default_rng(seed)
    columns = {"x": rng.normal(size=n), "y": rng.normal(size=n)}
    with uproot.recreate(path) as file:
        make = file.mktree if kind == "tree" else file.mkrntuple
        made = make(tree, {name: np.dtype("f8") for name in columns})
        for start in range(0, n, 10):
            made.extend({name: column[start : start + 10] for name, column in columns.items()})
    return str(path)


@pytest.fixture
def ours(tmp_path: Path) -> Callable[..., DiracExecutor]:
    return functools.partial(DiracExecutor, cache=tmp_path / "cache", inline=True, status=False)


def outcome(executor: Any, fileset: Any, what: Any, call: dict[str, Any], **options: Any) -> Any:
    """Return what a run returned or the types of what it raised."""
    run = Runner(executor=executor, **{"schema": BaseSchema, "chunksize": 7, "metadata_cache": {}, **options})
    source = fileset(run) if callable(fileset) else fileset
    try:
        with warnings.catch_warnings():
            # coffea's executor warns of each file that it skips.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", CacheWarning)
            return run(source, what, **call)
    except Exception as error:
        return error


def agree(found: Any, expected: Any) -> None:
    """Sums of floats may be made in another order, all else is equal."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value)


def same(ours: Any, fileset: Any, what: Any = None, *, call: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run with coffea's executor, with ours on an empty cache and on the filled one; all must agree."""
    what = what or Sums()
    call = {"treename": "Events"} if call is None else call
    expected = outcome(IterativeExecutor(status=False), fileset, what, call, **options)
    cold_executor, warm_executor = ours(), ours()
    cold = outcome(cold_executor, fileset, what, call, **options)
    warm = outcome(warm_executor, fileset, what, call, **options)
    if isinstance(expected, Exception):
        assert isinstance(cold, Exception), cold
        assert isinstance(warm, Exception), warm
        return cold
    for found in (cold, warm):
        assert not isinstance(found, Exception), found
        if options.get("savemetrics"):
            agree(found[0], expected[0])
            assert found[1].keys() == expected[1].keys()
            assert {k: found[1][k] for k in ("entries", "chunks")} == {k: expected[1][k] for k in ("entries", "chunks")}
            assert set(found[1]["columns"]) == set(expected[1]["columns"])
        else:
            agree(found, expected)
    assert warm_executor.report.work_items["misses"] == 0
    assert cold_executor.report.complete
    return cold


def test_flat_trees_in_directories(tmp_path: Path, ours: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root", tree="some/where/flat")]}
    assert same(ours, fileset, call={"treename": "some/where/flat"}, savemetrics=True)[0]["n"] == 30


def test_tree_names_by_dataset_and_by_file(tmp_path: Path, ours: Any) -> None:
    one, two = flat(tmp_path / "a.root", tree="One"), flat(tmp_path / "b.root", tree="Two", seed=2)
    fileset = {"a": {"files": {one: "One", two: "Two"}}, "b": {"treename": "One", "files": [one]}}
    assert same(ours, fileset, call={})["of"] == {"a": 60, "b": 30}


def test_rntuples(tmp_path: Path, ours: Any) -> None:
    assert same(ours, {"a": [flat(tmp_path / "a.root", kind="rntuple")]})["n"] == 30


@pytest.mark.parametrize("savemetrics", [False, True])
def test_parquet(tmp_path: Path, ours: Any, savemetrics: bool) -> None:
    path = tmp_path / "a.parquet"
    ak.to_parquet(ak.Array({"x": np.arange(20.0)}), path)
    same(ours, {"a": [str(path)]}, format="parquet", savemetrics=savemetrics)


@pytest.mark.parametrize("align", [False, True])
def test_nanoaod_with_metrics(tmp_path: Path, ours: Any, align: bool) -> None:
    path = str(write_nano(tmp_path / "nano.root"))
    out = same(ours, {"a": [path]}, Jets(), schema=NanoAODSchema, savemetrics=True, align_clusters=align)
    assert out[0]["n"] == 100


@pytest.mark.parametrize(
    "what",
    [Sums().process, lambda events: {"n": len(events)}, functools.partial(lambda k, e: {"n": k * len(e)}, 2)],
    ids=["method", "lambda", "partial"],
)
def test_callables_as_processors(tmp_path: Path, ours: Any, what: Any) -> None:
    same(ours, {"a": [flat(tmp_path / "a.root")]}, what)


def test_postprocess_runs_each_time_on_a_fresh_copy(tmp_path: Path, ours: Any) -> None:
    assert same(ours, {"a": [flat(tmp_path / "a.root")]}, Doubles())["n"] == 60


def test_a_processor_that_returns_nothing_is_an_error_as_with_coffea(tmp_path: Path, ours: Any) -> None:
    error = same(ours, {"a": [flat(tmp_path / "a.root")]}, Nothing())
    assert "None" in str(error)


@pytest.mark.parametrize("where", [{"inline": True}, {"workers": 1}], ids=["inline", "workers"])
@pytest.mark.parametrize("kind", ["root", "parquet"])
def test_a_processor_that_calls_exit_fails_as_with_any_error_and_ends_no_worker(
    tmp_path: Path, where: Any, kind: str
) -> None:
    path = flat(tmp_path / "a.root") if kind == "root" else str(tmp_path / "a.parquet")
    if kind == "parquet":
        ak.to_parquet(ak.Array({"x": np.arange(20.0)}), path)
    executor = DiracExecutor(cache=tmp_path / "cache", status=False, **where)
    error = outcome(executor, {"a": [path]}, Exits(), {"treename": "Events"}, format=kind)
    assert isinstance(error, ProcessingError), error
    assert "SystemExit: 4" in str(error)
    assert "sys.exit(4)" in str(error)


@pytest.mark.parametrize("fileset", [{}, {"a": []}, {"a": {"files": {}}}])
def test_empty_filesets(ours: Any, fileset: Any) -> None:
    error = same(ours, fileset)
    assert "No chunks" in str(error)


@pytest.mark.parametrize("skip", [True, (FileNotFoundError,), (OSError, KeyError)])
def test_files_that_are_all_bad(tmp_path: Path, ours: Any, skip: Any) -> None:
    error = same(ours, {"a": [str(tmp_path / "gone.root")]}, skipbadfiles=skip)
    assert "No chunks" in str(error)


def test_skipped_files_are_named_and_mended_ones_are_processed(tmp_path: Path, ours: Any) -> None:
    good, bad = flat(tmp_path / "a.root"), flat(tmp_path / "b.root", seed=2)
    sound = Path(bad).read_bytes()
    Path(bad).write_bytes(sound[:200])
    fileset = {"a": {"files": {good: "Events", bad: "Events"}, "metadata": {"xsec": 1.0}}}
    for _ in range(2):
        executor = ours()
        out = outcome(executor, fileset, Sums(), {}, skipbadfiles=(Exception,))
        assert out["n"] == 30
        report = executor.report
        assert list(report.datasets["a"].failed) == [bad]
        assert report.missing == {"a": {"files": {bad: "Events"}, "metadata": {"xsec": 1.0}}}
        assert (report.datasets["a"].files_processed, report.datasets["a"].files_expected) == (1, 2)
        assert not report.complete
        assert "1 file missing" in str(report)
    Path(bad).write_bytes(sound)
    executor = ours()
    assert outcome(executor, fileset, Sums(), {}, skipbadfiles=(Exception,))["n"] == 60
    assert executor.report.complete
    assert executor.report.work_items == {"hits": 4, "misses": 4}


def test_a_file_that_breaks_in_the_middle_loses_its_bad_items_only(tmp_path: Path, ours: Any) -> None:
    path = Path(flat(tmp_path / "a.root", n=40))
    with uproot.open(path) as file:
        seek = int(file["Events"]["x"].member("fBasketSeek")[3])
    raw = bytearray(path.read_bytes())
    raw[seek + 60 : seek + 90] = bytes(30)
    path.write_bytes(raw)
    fileset = {"a": [str(path)]}
    options = {"skipbadfiles": (Exception,), "chunksize": 10}
    expected = outcome(IterativeExecutor(status=False), fileset, Sums(), {"treename": "Events"}, **options)
    executor = ours()
    found = outcome(executor, fileset, Sums(), {"treename": "Events"}, **options)
    agree(found, expected)
    assert executor.report.datasets["a"].events_processed == found["n"] == 30
    again = ours()
    assert outcome(again, fileset, Sums(), {"treename": "Events"}, **options)["n"] == 30
    assert again.report.work_items == {"hits": 3, "misses": 0}
    assert list(again.report.missing["a"]["files"]) == [str(path)]


@pytest.mark.parametrize("bad", [False, True])
def test_results_as_ok_or_err(tmp_path: Path, ours: Any, bad: bool) -> None:
    if not hasattr(processor, "Ok"):
        pytest.skip("this coffea has no result types")
    path = str(tmp_path / "gone.root") if bad else flat(tmp_path / "a.root")
    run = Runner(executor=ours(), schema=BaseSchema, use_result_type=True, skipbadfiles=(FileNotFoundError,))
    found = run.run({"a": [path]}, Sums(), treename="Events")
    assert isinstance(found, processor.Err if bad else processor.Ok)


def test_a_trial_of_one_chunk_counts_towards_the_whole(tmp_path: Path, ours: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")], "b": [flat(tmp_path / "b.root", seed=2)]}
    same(ours, fileset, maxchunks=1)
    executor = ours()
    outcome(executor, fileset, Sums(), {"treename": "Events"})
    assert executor.report.work_items == {"hits": 2, "misses": 6}


@pytest.mark.parametrize("make", [list, tuple, lambda chunks: chunks, lambda chunks: (item for item in chunks)])
def test_lists_of_work_items_and_generators(tmp_path: Path, ours: Any, make: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")]}
    assert same(ours, lambda run: make(run.preprocess(fileset, treename="Events")), call={})["n"] == 30


def test_work_items_in_another_order_doubled_or_a_part_of_them(tmp_path: Path, ours: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")], "b": [flat(tmp_path / "b.root", seed=2)]}
    for change, n in ((lambda items: items[::-1], 60), (lambda items: 2 * items, 120), (lambda items: items[1:3], 16)):
        items = functools.partial(lambda c, run: c(list(run.preprocess(fileset, treename="Events"))), change)
        assert same(ours, items, call={})["n"] == n


@pytest.mark.parametrize("make", [iter, lambda items: map(copy.copy, items)])
def test_other_iterators_are_refused_by_the_runner_itself(tmp_path: Path, ours: Any, make: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")]}
    error = same(ours, lambda run: make(list(run.preprocess(fileset, treename="Events"))), call={})
    assert "object is not subscriptable" in str(error)


def test_an_executor_called_by_hand_takes_any_iterable_of_work_items(tmp_path: Path, ours: Any) -> None:
    seen: list[Any] = []

    class Noting(IterativeExecutor):  # type: ignore[misc]
        def __call__(self, items: Any, function: Any, accumulator: Any) -> Any:
            seen.append((items, function))
            return super().__call__(items, function, accumulator)

    run = Runner(executor=Noting(status=False), pre_executor=ours(), schema=BaseSchema, chunksize=7, metadata_cache={})
    run({"a": [flat(tmp_path / "a.root")]}, Sums(), treename="Events")
    ((items, function),) = seen
    for source in (iter(items), (item for item in items), tuple(items)):
        assert ours()(source, function, None)[0]["out"]["n"] == 30


def test_files_named_by_paths(tmp_path: Path, ours: Any) -> None:
    flat(tmp_path / "a.root")
    flat(tmp_path / "b.root", seed=2)
    fileset = {"a": [tmp_path / "a.root", str(tmp_path / "b.root")], 1: {"files": {tmp_path / "b.root": "Events"}}}
    assert same(ours, fileset)["n"] == 90
    fileset["a"].append(tmp_path / "gone.root")
    executor = ours()
    assert outcome(executor, fileset, Sums(), {"treename": "Events"}, skipbadfiles=True)["n"] == 90
    assert list(executor.report.missing["a"]["files"]) == [str(tmp_path / "gone.root")]


def test_a_generator_that_is_told_another_chunk_size(tmp_path: Path, ours: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")]}

    def source(run: Any) -> list[Any]:
        chunks = run.preprocess(fileset, treename="Events")
        items = [next(chunks), chunks.send(15)]
        return [*items, *chunks]

    assert same(ours, source, call={})["n"] == 30


def test_options_of_uproot_and_of_iteritems(tmp_path: Path, ours: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")]}
    options = {"timeout": 20, "handler": uproot.source.file.MemmapSource}
    same(ours, fileset, call={"treename": "Events", "uproot_options": options})
    same(ours, fileset, call={"treename": "Events", "iteritems_options": {"filter_name": ["x"]}})


@pytest.mark.parametrize("strategy", ["dask-worker", dict], ids=["dask-worker", "callable"])
def test_a_cache_of_columns(tmp_path: Path, ours: Any, strategy: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")]}
    if strategy == "dask-worker":
        executor = DiracExecutor(cache=tmp_path / "cache", workers=1, status=False)
        found = outcome(executor, fileset, Sums(), {"treename": "Events"}, cachestrategy=strategy)
        assert not isinstance(found, Exception), found
        assert found["n"] == 30
    else:
        same(ours, fileset, cachestrategy=strategy)


def test_preloaded_and_traced_columns(tmp_path: Path, ours: Any) -> None:
    pytest.importorskip("coffea.nanoevents.trace")
    from coffea.nanoevents.trace import trace

    path = flat(tmp_path / "a.root")
    same(ours, {"a": {"files": {path: "Events"}, "preload": ["x"]}}, call={}, savemetrics=True)
    same(ours, {"a": {"files": {path: "Events"}}}, call={"trace": trace})


@pytest.mark.parametrize("compression", [None, 1, 5])
def test_processors_sent_with_or_without_compression(tmp_path: Path, ours: Any, compression: int | None) -> None:
    same(ours, {"a": [flat(tmp_path / "a.root")]}, processor_compression=compression)


def test_executors_of_both_makes_side_by_side(tmp_path: Path, ours: Any) -> None:
    fileset = {"a": [flat(tmp_path / "a.root")]}
    for first, second in ((ours(), IterativeExecutor(status=False)), (IterativeExecutor(status=False), ours())):
        run = Runner(executor=first, pre_executor=second, schema=BaseSchema, chunksize=7, metadata_cache={})
        assert run(fileset, Sums(), treename="Events")["n"] == 30


def test_one_executor_for_two_runners_and_one_runner_twice(tmp_path: Path, ours: Any) -> None:
    executor = ours()
    fileset = {"a": [flat(tmp_path / "a.root")]}
    first = Runner(executor=executor, schema=BaseSchema, chunksize=7)
    second = Runner(executor=executor, schema=BaseSchema, chunksize=10)
    assert first(fileset, Sums(), treename="Events") == first(fileset, Sums(), treename="Events")
    assert executor.report.work_items == {"hits": 4, "misses": 0}
    assert second(fileset, Sums(), treename="Events")["n"] == 30
    assert executor.report.work_items == {"hits": 0, "misses": 3}


def test_a_fileset_in_a_json_file_and_files_as_urls(tmp_path: Path, ours: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    flat(tmp_path / "a.root")
    Path("fileset.json").write_text(json.dumps({"t bar/1": ["a.root"], "b": [f"file://{tmp_path}/a.root"]}))
    assert same(ours, "fileset.json")["of"] == {"t bar/1": 30, "b": 30}


def test_a_metadata_cache_of_the_users_is_filled_and_used(tmp_path: Path, ours: Any) -> None:
    known: dict[Any, Any] = {}
    fileset = {"a": [flat(tmp_path / "a.root")]}
    for _ in range(2):
        out = outcome(ours(), fileset, Sums(), {"treename": "Events"}, metadata_cache=known)
        assert out["n"] == 30
    assert len(known) == 1


def test_an_executor_can_be_copied_and_pickled(ours: Any) -> None:
    executor = ours()
    assert executor.copy(status=True).cache is executor.cache
    assert executor.copy().holder is executor.holder
    again = pickle.loads(pickle.dumps(executor))
    assert again.cache.store == executor.cache.store
    assert again.report is None
