"""Stages that cannot be kept as they are called or written: each is an error that names the stage and what to write."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from coffea.processor import IterativeExecutor, ProcessorABC, Runner
from scenario import write_nano

from coffea_dirac import DiracExecutor, File, StageCache, stage
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, InputError, StageError
from coffea_dirac.worker.failures import chain

pytestmark = pytest.mark.core


@stage
def plus(x: Any, y: Any = 1) -> Any:
    return x if y == 0 else x + y


def opened() -> Any:
    return Path(os.devnull).open()


@stage
def made(kind: str) -> Any:
    values = {
        "generator": (n for n in range(3)),
        "file": opened(),
        "object": object(),
        "local": type("L", (), {})(),
    }
    return values[kind]


@stage
def spoiling(values: Any, how: str) -> Any:
    if how == "list":
        values.append(1)
    elif how == "inner":
        values["a"]["b"] = 1
    elif how == "numpy":
        values[0] = 7.0
    elif how == "awkward":
        values["new"] = values.x
    return 1


@stage
def reading(path: Any) -> Any:
    return Path(path).read_text()


@stage
def nothing() -> None:
    return None


@stage
def endless(n: int) -> Any:
    return endless(n - 1) if n else 0


@stage
def ping(n: int) -> Any:
    return pong(n - 1) if n else 0


@stage
def pong(n: int) -> Any:
    return ping(n - 1) if n else 0


@stage
def caught(n: int) -> Any:
    try:
        return caught(n - 1)
    except Exception:
        return 0


COUNTS = {"calls": 0}


@stage
def counting(x: Any) -> Any:
    COUNTS["calls"] += 1
    return x


class Fit:
    def __init__(self) -> None:
        self.steps = [1]

    @stage
    def step(self, x: Any) -> Any:
        self.steps.append(2)
        return x


CASES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "an argument that is an open file": (
        lambda: plus(opened()),
        ["plus(x=...)", "without a fingerprint"],
    ),
    "an argument that is a generator": (lambda: plus(1, y=(n for n in range(2))), ["plus(y=...)", "generator"]),
    "a connection in a list in a dict": (
        lambda: plus(1, y={"a": [sqlite3.connect(":memory:")]}),
        ["plus(y=...)", "Connection"],
    ),
    "an argument that is a handle in a set": (lambda: plus({plus(1)}), ["plus(x=...)", "Handles are found as values"]),
    "a result that is a generator": (lambda: made("generator").compute(), ["stage made", "generator", "return a list"]),
    "a result that is an open file": (lambda: made("file").compute(), ["stage made", "TextIOWrapper", "return a list"]),
    "a result that is an object": (lambda: made("object").compute(), ["stage made", "no codec", "keep=False"]),
    "a list that is changed": (lambda: spoiling([0], "list").compute(), ["stage spoiling", "argument values", "copy"]),
    "a dict in a dict that is changed": (
        lambda: spoiling({"a": {}}, "inner").compute(),
        ["stage spoiling", "values['a']", "copy"],
    ),
    "a numpy array that is changed": (
        lambda: spoiling(plus(np.zeros(3)), "numpy").compute(),
        ["stage spoiling", "array among its arguments", "copy"],
    ),
    "an awkward array that is changed": (
        lambda: spoiling(ak.Array([{"x": 1}]), "awkward").compute(),
        ["stage spoiling", "argument values", "copy"],
    ),
    "a global that is changed": (
        lambda: counting(1).compute(),
        ["stage counting changes what it reads (counting -> COUNTS", "copy"],
    ),
    "an instance that is changed": (
        lambda: Fit().step(1).compute(),
        ["stage Fit.step changes its instance (", "steps", "copy"],
    ),
    "a stage that calls itself": (
        lambda: endless(2).compute(),
        ["stage endless is called while it runs", "plain function"],
    ),
    "two stages that call each other": (
        lambda: ping(3).compute(),
        ["stage ping is called while it runs", "plain function"],
    ),
    "too many arguments": (lambda: plus(1, 2, 3), ["plus()", "too many positional arguments"]),
    "an argument that does not exist": (lambda: plus(1, z=3), ["plus()", "'z'"]),
    "a handle as a number": (lambda: plus(1) + 1, ["__add__()", "handle of plus", ".compute()"]),
    "a handle in a condition": (lambda: 1 if plus(1) else 2, ["__bool__()", "handle of plus", ".compute()"]),
    "a loop over a handle": (lambda: list(plus(1)), ["__iter__()", "handle of plus", ".compute()"]),
    "an attribute of a handle": (lambda: plus(1).pt, [".pt", "handle of plus", ".compute()"]),
    "a handle that is rounded": (lambda: round(plus(1)), ["__round__()", "handle of plus", ".compute()"]),
    "a handle in a text with digits": (lambda: f"{plus(1):.2f}", ["format '.2f'", "handle of plus", ".compute()"]),
    "a handle in numpy": (lambda: np.sum(plus(1)), ["handle of plus", ".compute()"]),
    "a File that has vanished": (lambda: reading(File("gone.json")), ["File('gone.json') cannot be read", "moved"]),
    "a File of a Path": (lambda: reading(File(Path("gone.json"))), ["File('gone.json') cannot be read", "moved"]),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_in_a_block_it_is_named_and_the_block_goes_on(tmp_path: Path, case: str) -> None:
    call, words = CASES[case]
    with StageCache(tmp_path) as cache:
        assert plus(20, 3).compute() == 23
        with pytest.raises((CoffeaDiracError, TypeError)) as error:
            call()
        assert [word for word in words if word not in str(error.value)] == []
        assert plus(20, 4).compute() == 24
    with StageCache(tmp_path) as cache:
        assert [plus(20, 3).compute(), plus(20, 4).compute()] == [23, 24]
    assert cache.report.counts["loaded"] == 2, "what was done is kept"


def test_a_recursion_that_is_caught_is_still_no_result_of_its_own(tmp_path: Path) -> None:
    # The stage has caught the error and gone on: what it returns is what it returns.
    with StageCache(tmp_path):
        assert caught(1).compute() == 0


def test_a_handle_that_is_used_after_its_block_is_named(tmp_path: Path) -> None:
    with StageCache(tmp_path):
        handle = plus(1)
    with pytest.raises(StageError, match=r"handle of plus.*used after its run"):
        handle.compute()
    with pytest.raises(StageError, match=r"plus is called with <handle of plus.*outside of the run"):
        plus(handle)
    with StageCache(tmp_path), pytest.raises(StageError, match=r"plus\(x=...\).*belongs to another run"):
        plus(handle)


def test_none_is_a_result_like_others(tmp_path: Path) -> None:
    for outcome in ("computed", "loaded"):
        with StageCache(tmp_path) as cache:
            assert nothing().compute() is None
        assert cache.report.counts[outcome] == 1


def test_a_file_that_vanishes_between_the_call_and_the_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cuts.json"
    path.write_text("1")
    with StageCache(tmp_path / "cache"):
        handle = reading(File(str(path)))
        path.unlink()
        with pytest.raises((InputError, OSError), match=r"cuts\.json"):
            handle.compute()


@pytest.mark.parametrize("how", ["virtual", "eager"])
def test_arrays_that_are_not_read_are_no_argument_and_read_ones_are(tmp_path: Path, how: Any) -> None:
    path = write_nano(tmp_path / "nano.root")
    events = NanoEventsFactory.from_root({str(path): "Events"}, schemaclass=NanoAODSchema, mode=how).events()
    with StageCache(tmp_path / "cache"):
        if how == "eager":
            assert len(plus(events.Jet.pt, 0).compute()) == 100
            return
        with pytest.raises(StageError, match=r"plus\(x=...\).*columns are not read yet.*`events` itself"):
            plus(events[ak.num(events.Jet.pt) > 1].Jet, 0)
        assert len(plus(ak.materialize(events.Jet.pt), 0).compute()) == 100


@stage
def all_pt(numbers: Any) -> float:
    """Read another column of the events that the numbers were taken out of, as coffea's cross-references do."""
    return float(ak.sum(numbers.attrs["@events_factory"].events().Jet.pt))


@pytest.mark.parametrize("how", ["virtual", "eager"])
def test_an_array_refers_to_the_events_it_was_taken_out_of_and_these_count_too(tmp_path: Path, how: Any) -> None:
    """In both files the events have the same numbers."""
    paths = [write_nano(tmp_path / f"{seed}.root", seed=seed) for seed in (1, 2)]

    def numbers(path: Path) -> Any:
        events = NanoEventsFactory.from_root({str(path): "Events"}, schemaclass=NanoAODSchema, mode=how).events()
        return ak.materialize(events.event)

    with StageCache(tmp_path / "cache"):
        first = [all_pt(numbers(path)).compute() for path in paths]
    assert first[0] != first[1]
    with StageCache(tmp_path / "cache") as cache:
        assert [all_pt(numbers(path)).compute() for path in paths] == first
    assert cache.report.counts == {"loaded": 2, "computed": 0, "cut": 0}


def test_an_array_of_events_that_are_not_those_of_the_work_item_is_named_with_what_to_pass(tmp_path: Path) -> None:
    other = write_nano(tmp_path / "other.root", seed=2)
    fileset = {"one": {"files": [str(write_nano(tmp_path / "one.root"))]}}

    def process(events: Any) -> Any:
        friend = NanoEventsFactory.from_root({str(other): "Events"}, schemaclass=NanoAODSchema).events()
        assert len(events.event) == len(friend.event)
        numbers = ak.materialize(friend.event)
        return {
            "own": plus(ak.materialize(events.event)),
            "alone": plus(ak.Array(numbers.layout)),
            "tied": plus(numbers),
        }

    run = Runner(executor=DiracExecutor(cache=tmp_path / "cache", inline=True, status=False), schema=NanoAODSchema)
    with pytest.raises(CoffeaDiracError, match=r"plus\(x=...\): it belongs to events that are not those of this work"):
        run(fileset, process, treename="Events")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: stage(plus), "goes on a function"),
        (lambda: stage(len), "goes on a function"),
        (lambda: stage(staticmethod(abs)), "goes below @staticmethod"),
        (lambda: stage(resources=["GPU"])(plus.function), "it is a dict"),
        (lambda: stage(depends="file.json")(plus.function), "it is a list"),
    ],
)
def test_stage_on_something_else_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_stage_on_a_generator_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match=r"numbers is a generator.*return a list"):

        @stage
        def numbers() -> Any:
            yield 1


# -------------------------------------------------------------------------------------------------- in a processor


@stage
def jets(events: Any) -> Any:
    return {"pt": events.Jet.pt}


@stage
def total(selected: Any, bad: str) -> float:
    if ak.any(selected["pt"] > 1e9) or bad == "yes":
        raise ValueError("no luck")
    return float(ak.sum(selected["pt"]))


def failing_for_one(events: Any) -> Any:
    is_bad = events.metadata["dataset"] == "two" and events.metadata["entrystart"] == 0
    return {"sum": total(jets(events), "yes" if is_bad else "no")}


def well(events: Any) -> Any:
    return {"sum": total(jets(events), "no")}


def test_a_stage_that_fails_for_one_item_loses_no_other(tmp_path: Path) -> None:
    names = enumerate(("one", "two", "three"))
    fileset = {name: {"files": [str(write_nano(tmp_path / f"{name}.root", seed=seed))]} for seed, name in names}
    executor = DiracExecutor(cache=tmp_path / "cache", inline=True, status=False, errors="collect")
    run = Runner(executor=executor, schema=NanoAODSchema, chunksize=50)
    with pytest.raises(CoffeaDiracError) as error:
        run(fileset, failing_for_one, treename="Events")
    text = str(error.value) + "".join(getattr(error.value, "__notes__", ()))
    assert [w for w in ("no luck", "two.root", "entries 0 to 50", "in stage total") if w not in text] == []
    out = run(fileset, well, treename="Events")
    assert out["sum"] > 0
    assert run.executor.report.stages == {
        "total": {"loaded": 5, "computed": 1, "cut": 0},
        "jets": {"loaded": 1, "computed": 0, "cut": 0},
    }


def swallowing(events: Any) -> Any:
    try:
        return {"sum": total(jets(events), "no") + 1}
    except Exception:
        return {"sum": 0.0}


class Hoarding(ProcessorABC):
    def process(self, events: Any) -> Any:
        self.first = vars(self).setdefault("first", total(jets(events), "no"))
        return {"sums": [plus(self.first)]}

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator


def test_a_handle_taken_for_its_result_is_an_error_also_if_that_is_caught(tmp_path: Path) -> None:
    fileset = {"one": {"files": [str(write_nano(tmp_path / "one.root"))]}}
    for executor, work in (
        (DiracExecutor(cache=tmp_path / "cache", inline=True, status=False), swallowing),
        (IterativeExecutor(status=False), StageCache(tmp_path / "wrapped").wrap(swallowing)),
    ):
        with pytest.raises(Exception, match=r".") as error:
            Runner(executor=executor, schema=NanoAODSchema)(fileset, work, treename="Events")
        words = r"__add__\(\) of <handle of total.*Pass the handle to another @stage"
        assert any(re.search(words, str(e), re.DOTALL) for e in chain(error.value))


def test_a_handle_of_another_work_item_is_named_with_what_to_do(tmp_path: Path) -> None:
    fileset = {"one": {"files": [str(write_nano(tmp_path / "one.root"))]}}
    executor = DiracExecutor(cache=tmp_path / "cache", inline=True, status=False)
    words = r"plus\(x=...\): <handle of total.*belongs to another run.*call its stage again"
    with pytest.raises(CoffeaDiracError, match=words):
        Runner(executor=executor, schema=NanoAODSchema, chunksize=50)(fileset, Hoarding(), treename="Events")


def test_under_other_executors_the_error_names_stage_and_argument(tmp_path: Path) -> None:
    fileset = {"one": {"files": [str(write_nano(tmp_path / "one.root"))]}}
    run = Runner(executor=IterativeExecutor(status=False), schema=NanoAODSchema)
    wrapped = StageCache(tmp_path / "cache").wrap(lambda events: {"sum": total(events.Jet, "no")})
    with pytest.raises(Exception, match="attempt") as error:
        run(fileset, wrapped, treename="Events")
    assert any("total(selected=...)" in str(e) and "columns are not read yet" in str(e) for e in chain(error.value))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: File(None), "File(None): it takes the path of a file"),  # type: ignore[arg-type]
        (lambda: File(b"cuts.json"), "File(b'cuts.json'): it takes the path of a file"),  # type: ignore[arg-type]
        (lambda: stage(keep="no")(opened), "keep is 'no': it is True or False"),  # type: ignore[call-overload]
        (lambda: stage(resources={"GPU": "one"})(opened), "as in resources={'GPU': 1}"),  # type: ignore[dict-item]
    ],
)
def test_options_that_cannot_be_meant_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(CoffeaDiracError, match=re.escape(words)):
        make()
