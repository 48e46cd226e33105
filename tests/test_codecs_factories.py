"""Factories of ``defaultdict``: types, partials, functions and lambdas, in this process and in another one."""

from __future__ import annotations

import functools
import os
import shutil
import types
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
from coffea.processor import accumulate, defaultdict_accumulator
from scenario import Scenario

from coffea_dirac.codecs import decode, encode, live, offer, tree
from coffea_dirac.errors import CodecError, PayloadError

pytestmark = pytest.mark.core


class Zeros(defaultdict_accumulator):  # type: ignore[misc]
    pass


class Total:
    def __init__(self) -> None:
        self.n = 0

    def __add__(self, other: Total) -> Total:
        return self


def of_a_module() -> int:
    return 7


def with_default(n: int = 3) -> list[int]:
    return [0] * n


class Maker:
    """Holds factories in every place where the methods of a processor may have them."""

    in_class = staticmethod(lambda: "class")

    def __init__(self, bins: int = 4) -> None:
        self.bins = bins
        self.kept = {"state": [defaultdict(lambda: "state")]}

    def plain(self) -> Any:
        return defaultdict(lambda: defaultdict(float))

    def around(self) -> Any:
        bins, axis = self.bins, hist.axis.Regular(3, 0, 1, name="x")
        empty = np.arange(2.0)
        return defaultdict(lambda: [hist.Hist(axis, storage=hist.storage.Weight()), empty.copy(), [0] * bins, inner()])

    def defaults(self) -> Any:
        return defaultdict(lambda n=self.bins, *, m=2: [n, m])

    def nested(self) -> Any:
        def make() -> Any:
            return defaultdict(lambda: bins)

        bins = self.bins
        return defaultdict(make)

    def of_self(self) -> Any:
        return defaultdict(lambda: self.bins)

    def counting(self) -> Any:
        n = 0

        def count() -> int:
            nonlocal n
            n += 1
            return n

        return defaultdict(count)

    @property
    def asked(self) -> Any:
        return defaultdict(lambda: "property")

    @functools.cached_property
    def cached(self) -> Any:
        return defaultdict(lambda: "cached")


def inner() -> str:
    return "inner"


def round_trip(value: Any) -> Any:
    payload = encode(value)
    found = decode(*payload)
    assert encode(found) == payload
    return found


@pytest.fixture
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_functions", "_codes", "_classes"):
        monkeypatch.setattr(live, name, {})


@pytest.mark.usefixtures("nothing_is_known")
@pytest.mark.parametrize("place", ["plain", "nested", "defaults", "asked", "cached", "in_class", "kept"])
def test_factories_are_found_wherever_a_processor_has_them(place: str) -> None:
    maker = Maker()
    offer(maker)
    made = {"in_class": lambda: defaultdict(maker.in_class), "kept": lambda: maker.kept["state"][0]}
    make = made.get(place) or (lambda: getattr(maker, place))
    value = make()
    value = value() if isinstance(value, types.MethodType) else value
    value["a"] = 1
    found = round_trip(value)
    assert (type(found), found, found["new"]) == (type(value), value, value["new"])


@pytest.mark.usefixtures("nothing_is_known")
def test_variables_around_a_lambda_travel_with_it() -> None:
    maker = Maker(bins=5)
    offer(maker)
    found = round_trip(maker.around())
    offer(Maker(bins=9))
    h, empty, zeros, text = found["new"]
    assert h == hist.Hist(hist.axis.Regular(3, 0, 1, name="x"), storage="weight")
    assert (empty.tolist(), zeros, text) == ([0.0, 1.0], [0] * 5, "inner")
    assert round_trip(maker.nested())["a"]["b"] == 5
    assert round_trip(Maker(bins=6).defaults())["a"] == [6, 2]


@pytest.mark.usefixtures("nothing_is_known")
def test_merging_goes_on_with_the_factory_of_the_kept_value() -> None:
    maker = Maker()
    offer(maker)
    one, other = maker.plain(), maker.plain()
    one["a"]["x"] += 1.0
    other["b"]["y"] += 2.0
    merged = accumulate([round_trip(one), round_trip(other)])
    merged["c"]["z"] += 3.0
    assert merged == {"a": {"x": 1.0}, "b": {"y": 2.0}, "c": {"z": 3.0}}


@pytest.mark.usefixtures("nothing_is_known")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Maker.of_self, "no plain value: give it what it needs of self"),
        (Maker.counting, "assigns to variables around it"),
        (lambda _: defaultdict([].copy), "cannot be found from the processor"),
        (lambda _: defaultdict(Path), "cannot be kept|has its own|defines|neither"),
        (lambda _: defaultdict(functools.partial(os.removedirs, "x")), "cannot be found from the processor"),
    ],
)
def test_what_cannot_be_found_again_or_would_behave_otherwise_is_refused(make: Any, words: str) -> None:
    offer(Maker)
    with pytest.raises(CodecError, match=words):
        encode({"d": make(Maker())})


@pytest.mark.usefixtures("nothing_is_known")
def test_a_lambda_never_takes_the_events_along() -> None:
    def process(events: Any) -> Any:
        pt = events["pt"]
        return defaultdict(lambda: pt)

    offer(process)
    with pytest.raises(CodecError, match="no plain value"):
        encode(process({"pt": np.zeros(10**6)}))


def test_types_partials_and_functions_of_modules_are_found_by_name() -> None:
    offer(test_types_partials_and_functions_of_modules_are_found_by_name)
    for factory in (of_a_module, with_default, Total, deque, functools.partial(defaultdict, of_a_module)):
        found = round_trip(defaultdict(factory, {"a": 1})).default_factory
        assert found is factory or found.args == factory.args  # type: ignore[attr-defined]
    assert round_trip(defaultdict(of_a_module))["x"] == 7
    assert round_trip(Zeros(int, {"a": 3}))["b"] == 0
    assert round_trip(defaultdict(functools.partial(np.zeros, 3)))["x"].tolist() == [0, 0, 0]
    made = functools.partial(hist.Hist, hist.axis.Integer(0, 2), storage=hist.storage.Weight())
    assert round_trip(defaultdict(made))["x"] == made()


@pytest.mark.usefixtures("nothing_is_known")
def test_an_edited_lambda_is_not_taken_for_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(Maker)
    payloads = [encode(make(Maker())) for make in (Maker.plain, Maker.defaults)]
    for name in ("_functions", "_codes"):
        monkeypatch.setattr(live, name, {})
    for payload in payloads:
        with pytest.raises(PayloadError, match="not known here"):
            decode(*payload)


def test_a_payload_cannot_name_functions_of_packages_that_the_analysis_does_not_use() -> None:
    for function in (os.removedirs, shutil.rmtree, functools.wraps):
        name = live.function_name(function) or f"{function.__module__}:{function.__qualname__}:"
        for factory in (["function", name], ["closure", name, None, None, []]):
            node = ["collections:defaultdict", ["partial", factory, [["value", "x"]], []]]
            with pytest.raises(PayloadError, match="not known here"):
                decode("tree/1", tree.Encoder().finish(node))
    for module, name in (("subprocess", "Popen"), ("pathlib", "Path"), ("tempfile", "TemporaryDirectory")):
        with pytest.raises(PayloadError):
            decode("tree/1", tree.Encoder().finish(["collections:defaultdict", ["class", module, name]]))


PROCESS = """
        bins = int(self.scale)
        found = {
            "zeros": defaultdict(lambda: defaultdict(float)),
            "yield": helper.Yield(total, {"ee": len(events)}),
            "around": defaultdict(lambda: np.zeros(bins)),
        }
        found["zeros"]["a"]["b"] += total
        found["around"]["a"] += total
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
    scenario.edit(
        "analysis.py", "import helper", "import helper\nimport numpy as np\nfrom collections import defaultdict"
    )
    scenario.write("helper.py", (tmp_path / "helper.py").read_text() + HELPER)
    make = "executor = DiracExecutor(cache='cache', inline=True, status=False)"
    if workers:
        make = "executor = DiracExecutor(cache='cache', workers=2, status=False)"
    cold = scenario.run(make=make, compare=True)
    assert (cold.error, cold.warnings) == (None, [])
    assert cold.misses == 4
    warm = scenario.run(make=make)
    assert (warm.hits, warm.counts["loaded"], warm.out) == (4, 1, cold.out)


SCRIPT = """
import collections, dataclasses, enum
import numpy as np

class Channel(enum.Enum):
    EE = 1

@dataclasses.dataclass
class Yield:
    total: float
    def __add__(self, other):
        return Yield(self.total + other.total)

class Analysis(processor.ProcessorABC):
    bins = 3
    def process(self, events):
        bins = self.bins
        found = collections.defaultdict(lambda: collections.defaultdict(lambda: np.zeros(bins)))
        found["a"]["b"] += float(len(events))
        return {"yield": Yield(float(len(events))), "zeros": found, "channel": {Channel.EE}}
    def postprocess(self, accumulator):
        accumulator["zeros"]["new"]["x"] += 1
        return accumulator
"""


def test_classes_and_lambdas_of_a_script_are_found_in_the_next_session(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    options: dict[str, Any] = {"before": SCRIPT, "processor": "Analysis()"}
    make = "executor = DiracExecutor(cache='cache', workers=2, status=False)"
    cold = scenario.run(make=make, compare=True, **options)
    assert (cold.error, cold.warnings, cold.misses) == (None, [], 4)
    assert cold.out == cold.plain
    warm = scenario.run(make=make, **options)
    assert (warm.error, warm.hits, warm.counts["loaded"], warm.out) == (None, 4, 1, cold.out)
