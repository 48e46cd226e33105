"""Classes of the user's: what comes back is equal, of the same class, and adds as before."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import json
import subprocess
import sys
from collections import OrderedDict
from typing import Any, ClassVar, NamedTuple

import hist
import numpy as np
import pandas as pd
import pytest
from coffea.analysis_tools import PackedSelection, Weights, WeightStatistics
from coffea.lumi_tools import LumiList
from coffea.processor import AccumulatorABC, accumulate, dict_accumulator, set_accumulator, value_accumulator
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.codecs import decode, encode
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


class Shade(enum.Flag):
    LIGHT = 1
    DARK = 2


class Energy(float):
    pass


class Ordered(OrderedDict):  # type: ignore[type-arg]
    pass


class Vertex(tuple):  # type: ignore[type-arg]
    __slots__ = ()


@dataclasses.dataclass
class Fitted:
    a: int
    start: dataclasses.InitVar[int] = 3
    total: int = dataclasses.field(init=False)

    def __post_init__(self, start: int) -> None:
        self.total = self.a + start


class Watched:
    """Whatever runs while it is kept or comes back leaves a trace."""

    ran: ClassVar[list[str]] = []

    def __init__(self) -> None:
        Watched.ran.append("__init__")
        self.__dict__.update(x=1, y=[2])

    def __add__(self, other: Watched) -> Watched:
        return self

    def __setattr__(self, name: str, value: object) -> None:
        Watched.ran.append(f"__setattr__ {name}")

    def __getattr__(self, name: str) -> Any:
        Watched.ran.append(f"__getattr__ {name}")
        raise AttributeError(name)

    @property
    def x(self) -> int:
        Watched.ran.append("x")
        return 5

    @x.setter
    def x(self, value: int) -> None:
        Watched.ran.append("x =")


class Counting(value_accumulator):  # type: ignore[misc]
    pass


class Spectrum(hist.Hist):  # type: ignore[misc]
    pass


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
    Shade.LIGHT | Shade.DARK,
    Shade(0),
    Energy(1.5),
    Ordered(b=1, a=2),
    Vertex((1, [2])),
    Fitted(1),
    {Cut("pt", 30.0): 1, Energy(2.0): 2},
    {Cut("pt", 30.0), Cut("eta", 2.4)},
    collections.UserList([1]),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_it_comes_back_equal_and_of_the_same_class(value: Any) -> None:
    found = round_trip(value)
    assert type(found) is type(value)
    assert found == value
    assert getattr(found, "__dict__", None) == getattr(value, "__dict__", None)


def test_attributes_with_private_names_come_back() -> None:
    assert round_trip(Mean(1.0, 4))._Mean__private == [4]


def test_nothing_of_a_class_runs_while_it_is_kept_and_comes_back() -> None:
    value = Watched()
    Watched.ran.clear()
    found = decode(*encode(value))
    assert Watched.ran == []
    assert vars(found) == {"x": 1, "y": [2]}


def test_subclasses_of_accumulators_and_histograms_add_as_before() -> None:
    found = round_trip(Counting(int, 2))
    assert (type(found), found.value, found.identity().value) == (Counting, 2, 0)
    h = Spectrum(hist.axis.Regular(2, 0, 1, name="x"), storage="weight")
    h.fill([0.1, 0.7], weight=[0.5, 2])
    h.note = {"kept": [1]}
    back = round_trip(h)
    assert (type(back), back, back.note) == (Spectrum, h, {"kept": [1]})
    assert back + back == h + h
    moved = Ordered(a=1, b=2)
    moved.move_to_end("a")
    assert list(round_trip(moved).items()) == [("b", 2), ("a", 1)]


def test_a_dataclass_with_other_fields_is_not_loaded() -> None:
    payload = encode([Cut("pt", 30.0)])
    for one, other in ((b'"inner"', b'"other"'), (b'["name","value","inner"]', b'["name","value"]')):
        data = payload.data[8:].replace(one, other)
        size = len(json.dumps(json.JSONDecoder().raw_decode(data.decode())[0], separators=(",", ":")))
        with pytest.raises(PayloadError, match="fields of"):
            decode(payload.codec, size.to_bytes(8, "little") + data[:size] + bytes(-size % 8))


def test_two_classes_of_one_name_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Gone()
    monkeypatch.setattr(sys.modules[__name__], "Gone", type("Gone", (Gone,), {"__module__": __name__}))
    with pytest.raises(CodecError, match="another class"):
        encode(old)


def test_a_value_that_fails_when_it_is_looked_at_is_refused_and_stops_nothing() -> None:
    class Broken(dict):  # type: ignore[type-arg]
        pass

    frame = pd.DataFrame({"a": [1]})
    frame.attrs["here"] = object()
    with pytest.raises(CodecError, match="object"):
        encode({"a": frame})
    hostile = np.empty(1, object)
    hostile[0] = Broken()
    with pytest.raises(CodecError, match="inside a function"):
        encode(hostile)
    folded = hist.Hist(hist.axis.Regular(2, 0, 1))
    del folded.__dict__["_variance_known"]
    folded._hist = None
    with pytest.raises(CodecError, match=r"result\['h'\].*looking at it raised"):
        encode({"h": folded})


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
    for kept in (selection, selection.cutflow("one", "two"), selection.nminusone("one", "two"), Weights(3)):
        assert str(vars(round_trip(kept))) == str(vars(kept))


def test_cut_flows_of_different_kinds_come_back_side_by_side() -> None:
    selection = PackedSelection()
    selection.add("one", np.array([True, False]))
    weights = Weights(2)
    weights.add("w", np.array([1.0, 2.0]))
    flows = [
        selection.cutflow("one").result(),
        selection.cutflow("one", weights=weights, weightsmodifier=None).result(),
    ]
    assert [found._fields for found in round_trip(flows)] == [flow._fields for flow in flows]


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


class Asked:
    def __add__(self, other: Any) -> Any:
        return self

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class Errors(Exception):
    def __add__(self, other: Any) -> Any:
        return self


@pytest.mark.parametrize("kind", [Reduced, Finalized, Plain, Asked, Errors])
def test_what_cannot_be_put_together_from_its_attributes_is_refused(kind: type) -> None:
    with pytest.raises(CodecError, match="register_codec"):
        encode({"a": kind()})


def test_a_payload_cannot_name_a_class_that_could_not_be_kept() -> None:
    data = encode([Gone()]).data.replace(b"Gone", b"Plain").replace(b'"x"', b'"y"')
    with pytest.raises(PayloadError):
        decode("tree/1", data)
    for module, name in (("subprocess", "Popen"), ("tempfile", "TemporaryDirectory"), ("builtins", "eval")):
        for node in (
            ["object", module, name, None, [], None],
            ["enum", module, name, "A"],
            ["namedtuple", module, name, [], []],
        ):
            tree = json.dumps([["list", node], []]).encode()
            with pytest.raises(PayloadError):
                decode("tree/1", len(tree).to_bytes(8, "little") + tree + bytes(-len(tree) % 8))
