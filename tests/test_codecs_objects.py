"""Classes of the user's, factories, and pandas: what comes back is equal, of the same class, and adds as before."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from coffea.analysis_tools import PackedSelection, WeightStatistics
from coffea.lumi_tools import LumiList
from coffea.processor import AccumulatorABC, accumulate, defaultdict_accumulator, dict_accumulator, set_accumulator
from hypothesis import given
from hypothesis import strategies as st
from scenario import Scenario

from coffea_dirac.codecs import decode, encode, offer
from coffea_dirac.codecs.live import _functions
from coffea_dirac.errors import CodecError, PayloadError

pytestmark = pytest.mark.core


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: int
    y: str = "up"


@dataclasses.dataclass
class Yield:
    total: float = 0.0
    by_channel: dict[str, int] = dataclasses.field(default_factory=dict)

    def __add__(self, other: Yield) -> Yield:
        return Yield(self.total + other.total, accumulate([self.by_channel, other.by_channel]))


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    name: str
    value: float
    inner: Cut | None = None


class Mean(AccumulatorABC):
    __slots__ = ("__private", "n", "total")

    def __init__(self, total: float = 0.0, n: int = 0) -> None:
        self.total, self.n, self.__private = total, n, [n]

    def identity(self) -> Mean:
        return Mean()

    def add(self, other: Mean) -> None:
        self.total += other.total
        self.n += other.n

    def __eq__(self, other: object) -> bool:
        return type(other) is Mean and (other.total, other.n) == (self.total, self.n)

    __hash__ = None  # type: ignore[assignment]


class Cutflow(dict_accumulator):  # type: ignore[misc]
    note = "class"


class Tagged(list):  # type: ignore[type-arg]
    pass


class Zeros(defaultdict_accumulator):  # type: ignore[misc]
    pass


def make_zeros() -> Any:
    return defaultdict(lambda: defaultdict(float))


def of_a_module() -> int:
    return 7


def round_trip(value: Any) -> Any:
    payload = encode(value)
    found = decode(*payload)
    assert encode(found) == payload
    return found


def tagged() -> Tagged:
    found = Tagged([1, 2])
    found.label = "kept"  # type: ignore[attr-defined]
    return found


VALUES = [
    Colour.BLUE,
    Point(3, "down"),
    Yield(1.5, {"ee": 2}),
    Cut("pt", 30.0, Cut("eta", 2.4)),
    Mean(2.0, 3),
    Cutflow({"all": 3}),
    tagged(),
    {"deep": [Yield(), {"x": Point(1)}]},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_it_comes_back_equal_and_of_the_same_class(value: Any) -> None:
    found = round_trip(value)
    assert type(found) is type(value)
    assert found == value
    assert getattr(found, "__dict__", None) == getattr(value, "__dict__", None)


def test_attributes_with_private_names_come_back() -> None:
    assert round_trip(Mean(1.0, 4))._Mean__private == [4]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=5))
def test_merging_what_was_kept_is_merging_what_was_computed(totals: list[float]) -> None:
    values = [{"mean": Mean(t, 1), "yield": Yield(t, {"ee": 1}), "flow": Cutflow({"all": Mean(t, 2)})} for t in totals]
    kept = [round_trip(value) for value in values]
    assert accumulate(kept) == accumulate(copy.deepcopy(values))


def test_coffeas_own_results_come_back() -> None:
    weights = WeightStatistics(1.0, 2.0, -1.0, 3.0, 4)
    assert vars(round_trip(weights)) == vars(weights)
    lumis = LumiList(np.array([1, 1]), np.array([2, 3]), delayed=False)
    assert np.array_equal(round_trip(lumis).array, lumis.array)
    selection = PackedSelection()
    selection.add("one", np.array([True, False, True]))
    selection.add("two", np.array([True, True, False]))
    flow = selection.cutflow("one", "two").result()
    found = round_trip(flow)
    assert found._fields == flow._fields
    assert type(found).__name__ == type(flow).__name__
    assert all(np.array_equal(a, b) for a, b in zip(found, flow, strict=True))
    assert round_trip(set_accumulator({3, 1})) == {1, 3}


class Gone:
    def __init__(self) -> None:
        self.x = 1

    def __add__(self, other: Gone) -> Gone:
        return self


def test_a_class_that_this_process_has_not_is_named() -> None:
    data = encode([Gone()])
    script = f"from coffea_dirac.codecs import decode\ntry: decode({data.codec!r}, {data.data!r})\nexcept Exception as e: print(type(e).__name__, e)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith("PayloadError")
    assert "this process has no such class" in said


class Reduced:
    def __add__(self, other: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        return print, ("run",)


class Finalized(Reduced):
    def __del__(self) -> None:
        pass


class Plain:
    pass


class Errors(Exception):
    def __add__(self, other: Any) -> Any:
        return self


@pytest.mark.parametrize("kind", [Reduced, Finalized, Plain, Errors])
def test_what_cannot_be_put_together_from_its_attributes_is_refused(kind: type) -> None:
    with pytest.raises(CodecError, match="register_codec"):
        encode({"a": kind()})


def test_a_payload_cannot_name_a_class_that_could_not_be_kept() -> None:
    data = encode([Gone()]).data.replace(b"Gone", b"Plain").replace(b'"x"', b'"y"')
    with pytest.raises(PayloadError):
        decode("tree/1", data)
    for module, name in (("subprocess", "Popen"), ("tempfile", "TemporaryDirectory"), ("builtins", "eval")):
        tree = f'[["list",["object","{module}","{name}",[],null,[]]],[]]'.encode()
        with pytest.raises(PayloadError):
            decode("tree/1", len(tree).to_bytes(8, "little") + tree + bytes(-len(tree) % 8))


# ------------------------------------------------------------------------------------------------------- factories


def test_lambdas_of_a_processor_are_found_again() -> None:
    offer(make_zeros)
    value = make_zeros()
    value["a"]["b"] += 2.0
    found = round_trip(value)
    assert found == value
    found["new"]["x"] += 1.0
    assert found["new"]["x"] == 1.0


def test_functions_of_modules_and_partials_of_them_are_found_by_name() -> None:
    offer(test_functions_of_modules_and_partials_of_them_are_found_by_name)
    for factory in (of_a_module, functools.partial(defaultdict, of_a_module)):
        found = round_trip(defaultdict(factory, {"a": 1}))
        assert type(found.default_factory) is type(factory)
    assert round_trip(defaultdict(of_a_module))["x"] == 7
    assert round_trip(Zeros(int, {"a": 3}))["b"] == 0


def test_a_lambda_that_nobody_can_find_again_is_refused() -> None:
    number = 3
    with pytest.raises(CodecError, match="uses variables around it or cannot be found"):
        encode(defaultdict(lambda: number))


def test_an_edited_lambda_is_not_taken_for_the_old_one() -> None:
    offer(make_zeros)
    payload = encode(make_zeros())
    saved = dict(_functions)
    _functions.clear()
    try:
        with pytest.raises(PayloadError, match="not known here"):
            decode(*payload)
    finally:
        _functions.update(saved)


# ---------------------------------------------------------------------------------------------------------- pandas

FRAMES = [
    pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan]}),
    pd.DataFrame({"s": ["x", None], "t": ["x", "y"]}, index=["p", "q"]),
    pd.DataFrame({"s": pd.array(["x", None], dtype="string"), "n": pd.array([1, None], dtype="Int64")}),
    pd.DataFrame({"f": pd.array([1.5, None], dtype="Float64"), "k": pd.array([True, None], dtype="boolean")}),
    pd.DataFrame({"c": pd.Categorical(["u", "d", "u"], categories=["d", "u"], ordered=True)}),
    pd.DataFrame({"w": pd.date_range("2026-01-01", periods=2, tz="Europe/Zurich"), "d": pd.to_timedelta([1, 2], "s")}),
    pd.DataFrame(index=pd.RangeIndex(3)),
    pd.DataFrame(columns=["a", "b"]),
    pd.DataFrame([[1, 2.5]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None])),
    pd.DataFrame({"x": [1, 2, 3]}, index=pd.MultiIndex.from_product([["r"], [1, 2, 3]], names=["run", "lumi"])),
    pd.DataFrame({"x": [1, 2]}, index=pd.date_range("2026-01-01", periods=2, freq="D", name="day")),
    pd.DataFrame({"o": [{"a": 1}, (2, 3)]}),
    pd.DataFrame([[1, 2]], columns=["same", "same"]),
    pd.DataFrame({"u": np.array([1, 2], "u1"), "h": np.array([1, 2], "f2")}),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda f: ",".join(map(str, f.dtypes)) or "empty")
def test_data_frames_come_back(frame: pd.DataFrame) -> None:
    found = round_trip({"frame": frame})["frame"]
    pd.testing.assert_frame_equal(found, frame, check_freq=True, check_column_type=True)
    assert type(found.index) is type(frame.index)
    for name in range(frame.shape[1]):
        one, two = frame.iloc[:, name], found.iloc[:, name]
        pd.testing.assert_series_equal(round_trip(one), one)
        assert one.dtype == two.dtype


def test_frames_add_as_they_did() -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=["a", "b"])
    other = pd.DataFrame({"n": [5]}, index=["b"])
    pd.testing.assert_frame_equal(
        round_trip(frame).add(round_trip(other), fill_value=0), frame.add(other, fill_value=0)
    )


def test_a_frame_that_would_lose_something_is_refused() -> None:
    frame = pd.DataFrame({"n": [1]})
    frame.attrs["lumi"] = 3
    with pytest.raises(CodecError, match="attrs"):
        encode(frame)
    with pytest.raises(CodecError, match="PeriodIndex"):
        encode(pd.DataFrame({"n": [1]}, index=pd.period_range("2026", periods=1)))
    with pytest.raises(CodecError, match="interval"):
        encode(pd.Series(pd.interval_range(0, 2)))


PROCESS = """
        found = {"zeros": defaultdict(lambda: defaultdict(float)), "yield": helper.Yield(total, {"ee": len(events)})}
        found["zeros"]["a"]["b"] += total
        return found
"""
HELPER = """
import dataclasses


@dataclasses.dataclass
class Yield:
    total: float
    by_channel: dict

    def __add__(self, other):
        return Yield(self.total + other.total, {"ee": self.by_channel["ee"] + other.by_channel["ee"]})
"""


@pytest.mark.parametrize("workers", [None, 2], ids=["inline", "workers"])
def test_another_process_loads_results_with_lambdas_and_classes_of_the_users(
    tmp_path: Path, workers: int | None
) -> None:
    scenario = Scenario(tmp_path)
    scenario.edit("analysis.py", '        return {"n"', PROCESS + '        return {"n"')
    scenario.edit("analysis.py", "import helper", "import helper\nfrom collections import defaultdict")
    scenario.write("helper.py", (tmp_path / "helper.py").read_text() + HELPER)
    make = "executor = DiracExecutor(cache='cache', inline=True, status=False)"
    if workers:
        make = "executor = DiracExecutor(cache='cache', workers=2, status=False)"
    cold = scenario.run(make=make, compare=True)
    assert (cold.error, cold.warnings) == (None, [])
    assert cold.misses == 4
    warm = scenario.run(make=make)
    assert (warm.hits, warm.counts["loaded"], warm.out) == (4, 1, cold.out)
