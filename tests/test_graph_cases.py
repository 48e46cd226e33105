"""What a cache of dask graphs must tell apart, what it must not, and which results must come back as they were."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import awkward as ak
import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pandas as pd
import pytest
import uproot
from dask.highlevelgraph import HighLevelGraph
from dask.utils import SerializableLock

from coffea_dirac import DiracClient, StageCache

pytestmark = pytest.mark.core
_numbers = itertools.count()


def defined(source, name="f", module="analysis", **names):
    """Return a function from its source; helpers and globals are defined beside it."""
    namespace = {"__name__": module, **names}
    exec(source, namespace)
    return namespace[name]


def closure(cut):
    def above(x):
        return x > cut

    return above


def array(middle):
    found = np.zeros(20_000)
    found[10_000] = middle
    return found


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


def pair(make, *arguments):
    """Return two tasks that differ by an argument of what makes their function."""
    return [(make(a), 3) for a in arguments]


DIFFERENT = {
    "an edited body": pair(defined, "def f(x): return x + 1", "def f(x): return x + 2"),
    "an edited helper": pair(
        defined, "def g(x): return x\ndef f(x): return g(x)", "def g(x): return -x\ndef f(x): return g(x)"
    ),
    "an edited global": pair(defined, "CUT = 1\ndef f(x): return x > CUT", "CUT = 5\ndef f(x): return x > CUT"),
    "another closure": pair(closure, 1, 5),
    "another default": pair(defined, "def f(x, n=1): return x * n", "def f(x, n=2): return x * n"),
    "another keyword default": pair(defined, "def f(x, *, n=1): return x * n", "def f(x, *, n=2): return x * n"),
    "another argument of a partial": pair(lambda n: functools.partial(pow, n), 2, 3),
    "another keyword of a partial": pair(lambda n: functools.partial(round, ndigits=n), 1, 2),
    "two lambdas": [((lambda x: x + 1), 3), ((lambda x: x + 2), 3)],
    "two partials of two functions": [(functools.partial(max, 5), 3), (functools.partial(min, 5), 3)],
    "the same name in another module": [
        (defined("def f(x): return x + 1", module="one"), 3),
        (defined("def f(x): return x - 1", module="two"), 3),
    ],
    "the middle of a large array": [(np.sum, array(1.0)), (np.sum, array(2.0))],
    "another object of a class": pair(Scaled, 2, 3),
    "an int and a float": [(repr, 3), (repr, 3.0)],
    "a bool and an int": [(repr, True), (repr, 1)],
    "an int and a string": [(repr, 3), (repr, "3")],
    "zeros of two signs": [(repr, 0.0), (repr, -0.0)],
    "neighbouring strings": [("".join, ["ab", "c"]), (repr, ["a", "bc"])],
    "a list and a tuple": [(repr, [1, 2]), (repr, (1, 2))],
    "the order of a dict": [(list, {"a": 1, "b": 2}), (list, {"b": 2, "a": 1})],
    "a nested value": [(repr, {"a": [1, {"b": 2}]}), (repr, {"a": [1, {"b": 3}]})],
    "a dataframe": [(len, pd.DataFrame({"a": [1, 2]})), (len, pd.DataFrame({"a": [1, 2, 3]}))],
    "the order of arguments": [(divmod, 7, 2), (divmod, 2, 7)],
    "the order of keywords": [
        (functools.partial(lambda **named: list(named), a=1, b=2),),
        (functools.partial(lambda **named: list(named), b=2, a=1),),
    ],
    "a method of another object": [(Scaled(2).__call__, 3), (Scaled(3).__call__, 3)],
    "another base class": pair(
        lambda n: defined(f"class B:\n    n = {n}\nclass F(B):\n    def __call__(self, x): return self.n\nf = F()"),
        1,
        2,
    ),
    "another decorator": pair(
        lambda n: defined(f"def by(g):\n    return lambda x: g(x) * {n}\n@by\ndef f(x): return x"), 1, 2
    ),
    "another precision": [(repr, np.zeros(2, "f4")), (repr, np.zeros(2, "f8"))],
    "another shape": [(np.shape, np.zeros((2, 3))), (np.shape, np.zeros((3, 2)))],
    "another mask": [(str, np.ma.array([1, 2], mask=[0, 1])), (str, np.ma.array([1, 2], mask=[1, 0]))],
    "the order of fields": [(ak.fields, ak.Array([{"x": 1, "y": 2}])), (ak.fields, ak.Array([{"y": 2, "x": 1}]))],
    "another name of records": [(repr, ak.with_name([{"x": 1}], name)) for name in ("P", "Q")],
    "a bit of a large number": [(divmod, 10**3000 + n, 7) for n in (1, 2)],
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_a_miss(tmp_path, case):
    for task in DIFFERENT[case]:
        graph = {"y": tuple(task)}
        plain = dask.get(graph, "y")
        with StageCache(tmp_path) as cache:
            found = dask.get(graph, "y")
        assert repr(found) == repr(plain) and cache.report.counts == {"loaded": 0, "computed": 1, "cut": 0}


# Both members would be in the first place: which of them is depends on who came first.
_A_SET, _ANOTHER_SET = {0, 8}, {8, 0}
EQUAL = {
    "a comment": pair(defined, "def f(x): return x + 1", "def f(x):\n    # of no weight\n    return x + 1"),
    "a line further down": pair(defined, "def f(x): return x + 1", "\n\n\ndef f(x): return x + 1"),
    "equal lambdas": [((lambda x: x + 1), 3), ((lambda x: x + 1), 3)],
    "an equal array in other strides": [
        (np.sum, np.arange(6.0).reshape(2, 3)),
        (np.sum, np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    ],
    "an equal object": pair(Scaled, 2, 2),
    "an equal dataframe": [(len, pd.DataFrame({"a": [1]})), (len, pd.DataFrame({"a": [1]}))],
    "a set in another order": [(len, _A_SET), (len, _ANOTHER_SET)],
    # As dask 2025 writes it for delayed calls.
    "a set listed in another order": [(len, (set, [*_A_SET])), (len, (set, [*_ANOTHER_SET]))],
    "a lock that dask makes": [(lambda lock, x: x, SerializableLock(), 3), (lambda lock, x: x, SerializableLock(), 3)],
}


@pytest.mark.parametrize("case", EQUAL)
def test_what_is_equal_is_a_hit(tmp_path, case):
    counts = []
    for task in EQUAL[case]:
        with StageCache(tmp_path) as cache:
            dask.get({"y": tuple(task)}, "y")
        counts.append(cache.report.counts["loaded"])
    assert counts == [0, 1]


def make(kind):
    """Return a value of a kind."""
    return {
        "scalar": 3.5,
        "numpy scalar": np.float32(1.5),
        "str": "a text",
        "dict": {"a": 1, "b": [1, (2, 3)]},
        "tuple": (1, "b", None),
        "none": None,
        "3-D": np.arange(24).reshape(2, 3, 4),
        "strided": np.arange(24).reshape(4, 6)[::2, ::3],
        "awkward": ak.Array([[1.0, 2.0], [], [3.0]]),
        "dataframe": pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
        "series": pd.Series([1.0, 2.0], name="s"),
    }[kind]


KINDS = "scalar;numpy scalar;str;dict;tuple;none;3-D;strided;awkward;dataframe;series".split(";")


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_comes_back_as_it_was_and_can_be_changed(tmp_path, kind):
    plain = make(kind)
    for n in range(2):
        with StageCache(tmp_path) as cache:
            found = dask.delayed(make)(kind).compute(scheduler="sync")
        assert cache.report.counts["loaded"] == n and type(found) is type(plain)
        if isinstance(plain, np.ndarray):
            assert np.array_equal(found, plain) and found.dtype == plain.dtype
            found[...] = 0
        elif isinstance(plain, ak.Array):
            assert ak.array_equal(found, plain)
        elif isinstance(plain, pd.DataFrame | pd.Series):
            assert found.equals(plain)
        else:
            assert found == plain


# ------------------------------------------------------------------------------------------------ the slides' example


def a(frame):
    return frame.assign(x=frame.x + 1)


def b(frame):
    return frame[frame.x > 2]


def c(frame, n):
    return frame.assign(y=frame.x * n)


def d(frame):
    return int(frame.y.sum())


def e(total, other):
    return total + other


FRAME = pd.DataFrame({"x": [1, 2, 3, 4]})


def as_dict():
    graph = {"a": (a, FRAME), "b": (b, "a"), "c": (c, "b", 10), "d": (d, "c"), "e": (e, "d", 1)}
    return dask.get(graph, ["e", "c"])


def as_delayed():
    frame = dask.delayed(c)(dask.delayed(b)(dask.delayed(a)(FRAME)), 10)
    return dask.compute(dask.delayed(e)(dask.delayed(d)(frame), 1), frame)


def as_layers():
    blocks = {("frames", i): (c, (b, (a, FRAME)), 10 * (i + 1)) for i in range(2)}
    graph = HighLevelGraph.from_collections("frames", blocks)
    totals = {("totals", i): (np.atleast_1d, (d, ("frames", i))) for i in range(2)}
    graph = HighLevelGraph({**graph.layers, "totals": totals}, {"frames": set(), "totals": {"frames"}})
    return da.Array(graph, "totals", chunks=((1, 1),), dtype=int).compute().tolist(), None


@pytest.mark.parametrize(("way", "value"), [(as_dict, 121), (as_delayed, 121), (as_layers, [120, 240])])
def test_the_example_of_five_functions_in_every_form(tmp_path, way, value):
    cold = way()
    for n in range(2):
        with StageCache(tmp_path) as cache:
            found = way()
        assert found[0] == cold[0] == value and type(found[0]) is type(cold[0])
        if cold[1] is not None:
            assert found[1].equals(cold[1])
        assert cache.report.counts == {"loaded": 2 * n, "computed": 2 - 2 * n, "cut": 0}
    with DiracClient(processes=False, n_workers=1, dashboard_address=":0", cache=tmp_path) as client:
        assert way()[0] == value
    assert client.cache.report.counts["computed"] == 0


# --------------------------------------------------------------------------------------------- what is read and written


def test_a_set_of_results_is_the_same_in_whatever_order_dask_makes_it(tmp_path):
    # The keys of its members are random: dask lists them in the order of their hashes.
    for n in range(5):
        with StageCache(tmp_path) as cache:
            value = dask.delayed(sorted)({dask.delayed(abs)(-n) for n in range(6)})
            assert value.compute(scheduler="sync") == [0, 1, 2, 3, 4, 5]
        assert cache.report.counts["loaded"] == (n > 0)


def test_an_overwritten_file_that_an_argument_names_is_a_miss(tmp_path):
    path = tmp_path / "data.csv"
    found = []
    for text in ("x\n1", "x\n2", "x\n1"):
        path.write_text(text)
        with StageCache(tmp_path / "cache") as cache:
            frame = dask.delayed(pd.read_csv)(str(path)).compute(scheduler="sync")
        found.append((int(frame.x.sum()), cache.report.counts["loaded"]))
    assert found == [(1, 0), (2, 0), (1, 1)]


def with_argument(read, path):
    return dask.delayed(read)(path)


def with_two_arguments(read, path):
    return dask.delayed(lambda path, name: read(path))(path, "h")


def in_a_bag(read, path):
    return db.from_sequence([path, path], npartitions=1).map(read)


def in_a_dict(read, path):
    return dask.delayed(lambda named: read(next(iter(named))))({path: "h"})


def in_the_code(read, path):
    return dask.delayed(defined(f"def f(): return read({path!r})", read=read))()


def contents(path):
    with uproot.open(path) as file:
        return file["h"].values().tolist()


@pytest.mark.parametrize("name", [with_argument, with_two_arguments, in_a_bag, in_a_dict, in_the_code])
def test_a_root_file_that_the_users_own_function_reads_is_a_miss_if_it_is_overwritten(tmp_path, name):
    path = str(tmp_path / "data.root")
    for n in (1, 2):
        with uproot.recreate(path) as file:
            file["h"] = np.histogram([n], bins=3, range=(0, 3))
        for loaded in (0, 1):
            with StageCache(tmp_path / "cache") as cache:
                found = name(contents, path).compute(scheduler="sync")
            assert np.ravel(found).tolist()[:3] == contents(path)
            assert cache.report.counts["loaded"] == loaded


def read_cut(folder):
    return int(Path(folder, "cuts" + ".txt").read_text())


def add(x, y):
    return x + y


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_a_file_with_a_computed_name_is_seen_by_all_that_comes_after(tmp_path, scheduler):
    found = []
    for text in ("1", "2", "1"):
        (tmp_path / "cuts.txt").write_text(text)
        with StageCache(tmp_path / "cache") as cache:
            value = dask.delayed(add)(dask.delayed([dask.delayed(read_cut)(str(tmp_path))])[0], 10)
            found.append((value.compute(scheduler=scheduler), cache.report.counts["loaded"]))
    assert found == [(11, 0), (12, 0), (11, 1)]


def written(folder):
    Path(folder, "out.txt").write_text("done")
    return 1


def test_what_writes_a_file_is_computed_each_time(tmp_path):
    for _ in range(2):
        (tmp_path / "out.txt").unlink(missing_ok=True)
        with pytest.warns(match=r"writes .*out\.txt"), StageCache(tmp_path / "cache") as cache:
            assert dask.delayed(add)(dask.delayed(written)(str(tmp_path)), 1).compute(scheduler="sync") == 2
        assert (tmp_path / "out.txt").exists() and cache.report.counts["computed"] == 1


@pytest.mark.parametrize("is_wanted_first", [True, False])
def test_what_one_kind_of_collection_is_wanted_for_and_another_is_made_of_follows_its_file(tmp_path, is_wanted_first):
    (tmp_path / "cuts").mkdir()
    for cut in (3, 5, 5):
        (tmp_path / "cuts" / "cuts.txt").write_text(str(cut))
        number = dask.delayed(read_cut)(str(tmp_path / "cuts"))
        collections = [number, da.from_delayed(number, (), int).map_blocks(np.add, 1)]
        with StageCache(tmp_path / "cache") as cache:
            found = dask.compute(*collections[:: 1 if is_wanted_first else -1], scheduler="sync")
        assert sorted(found) == [cut, cut + 1]
    assert cache.report.counts == {"loaded": 2, "computed": 0, "cut": 0}


def test_a_partition_may_be_wanted_as_delayed_beside_what_is_made_of_it(tmp_path):
    bag = db.from_sequence([1, 2, 3, 4], npartitions=2)
    collections = [bag.filter(lambda x: x % 2), bag.to_delayed()[0], bag.sum()]
    for _ in range(2):
        with StageCache(tmp_path / "cache"):
            # Not compared with plain dask: that of 2026 returns unlike collections in another order than asked for.
            assert dask.compute(*collections, scheduler="sync") == ([1, 3], [1, 2], 10)


def test_an_attribute_of_a_function_that_is_changed_between_two_graphs_is_seen(tmp_path):
    def f():
        return f.cut

    def g(*, k=1):
        return k

    with StageCache(tmp_path):
        for cut in (1, 2):
            f.cut = g.__kwdefaults__["k"] = cut
            assert dask.compute(dask.delayed(f)(), dask.delayed(g)(), scheduler="sync") == (cut, cut)
