"""Dask graphs through ``with StageCache(...)``: what is loaded, what is computed, and that results are plain dask's."""

from __future__ import annotations

import linecache
import logging
import operator
import os
import random
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Mapping
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import dask.threaded
import numpy as np
import pytest
from dask.highlevelgraph import HighLevelGraph
from hypothesis import given, settings
from hypothesis import strategies as st

import coffea_dirac
from coffea_dirac import StageCache, stage
from coffea_dirac.cache import CacheWarning
from coffea_dirac.errors import ConfigurationError

pytestmark = pytest.mark.core


def inc(x):
    return x + 1


def add(a, b):
    return a + b


def in_cache(folder, compute, **options):
    """Return what `compute` returns inside a block, and the block's counts."""
    with StageCache(folder, **options) as cache:
        result = compute()
    return result, cache.report.counts


def outcome(report):
    """Return the names of the stages that were loaded and computed, sorted."""
    return sorted(o.stage for o in report.loaded), sorted(o.stage for o in report.computed)


# ------------------------------------------------------------------------------------------------------------ the doors


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_second_compute_loads_its_output(tmp_path, scheduler):
    def value():
        return dask.delayed(add)(dask.delayed(inc)(1), dask.delayed(inc)(2))

    cold = in_cache(tmp_path, lambda: value().compute(scheduler=scheduler))
    warm = in_cache(tmp_path, lambda: value().compute(scheduler=scheduler))
    assert cold == (5, {"loaded": 0, "computed": 1, "cut": 0})
    assert warm == (5, {"loaded": 1, "computed": 0, "cut": 0})


def test_a_delayed_collection_is_loaded_like_any_other(tmp_path):
    # The newest dask makes a bare reference of it.
    for n in range(2):
        value = dask.delayed(da.arange(10, chunks=3) + 1)
        found, counts = in_cache(tmp_path, lambda value=value: value.compute(scheduler="sync"))
        assert np.array_equal(found, np.arange(1, 11))
        assert counts == {"loaded": n, "computed": 1 - n, "cut": 0}


def test_arrays_bags_and_nested_containers_come_out_as_from_dask(tmp_path):
    x = da.arange(10, chunks=3) + 1
    values = {"sum": x.sum(), "all": [x, dask.delayed(inc)(1)], "plain": 3}
    (plain,) = dask.compute(values)
    for n in range(2):
        with StageCache(tmp_path) as cache:
            (found,) = dask.compute(values)
        assert found["sum"] == plain["sum"] and type(found["sum"]) is type(plain["sum"])
        assert np.array_equal(found["all"][0], plain["all"][0]) and found["all"][1] == 2 and found["plain"] == 3
        assert bool(cache.report.counts["computed"]) is (n == 0)


def test_persist_goes_through_the_cache(tmp_path):
    x = da.arange(10, chunks=5) + 1
    _, cold = in_cache(tmp_path, lambda: x.persist(scheduler="sync").sum().compute(scheduler="sync"))
    result, warm = in_cache(tmp_path, lambda: x.persist(scheduler="sync").sum().compute(scheduler="sync"))
    assert (result, cold["computed"], warm["computed"]) == (55, 3, 0)


@pytest.mark.parametrize("get", [dask.get, dask.threaded.get])
def test_a_plain_dict_graph_goes_through_the_cache(tmp_path, get):
    name = get.__module__

    def compute():
        graph = {"a": 1, "b": (inc, "a"), "c": (add, "b", 10), "d": (sum, ["b", "c"])}
        found = dask.threaded.get if name == "dask.threaded" else dask.get
        return found(graph, ["d", ["c"]])

    assert in_cache(tmp_path, compute) == ((14, (12,)), {"loaded": 0, "computed": 2, "cut": 0})
    assert in_cache(tmp_path, compute) == ((14, (12,)), {"loaded": 2, "computed": 0, "cut": 0})


def number_in(path):
    with open(path) as file:
        return int(file.read())


def test_calls_inside_of_calls_and_lists_get_what_was_read_and_follow_it(tmp_path):
    path = tmp_path / "number.txt"
    graph = {
        "a": (number_in, str(path)),
        "b": (add, (inc, "a"), (inc, (inc, "a"))),
        "c": (sum, ["a", (inc, "a"), (max, ["a", (inc, "b")])]),
    }
    for text, right in (("12", (27, 12 + 13 + 28)), ("20", (43, 20 + 21 + 44))):
        path.write_text(text)
        for n_loaded in (0, 2):
            found, counts = in_cache(tmp_path / "cache", lambda: dask.get(graph, ["b", "c"]))
            assert found == right
            assert counts["loaded"] == n_loaded


def test_after_the_block_dask_is_as_it_was(tmp_path):
    names = ("collections_to_dsk", "collections_to_expr", "compute", "persist")
    before = [getattr(dask.base, name, None) for name in names] + [dask.get, dask.threaded.get]
    with StageCache(tmp_path), StageCache(tmp_path / "other"):
        pass
    assert before == [getattr(dask.base, name, None) for name in names] + [dask.get, dask.threaded.get]


def test_optimizing_is_not_computing(tmp_path):
    with StageCache(tmp_path) as cache:
        (again,) = dask.optimize(da.ones(3))
    assert cache.report.outcomes == [] and again.sum().compute() == 3


def test_schedulers_see_the_names_of_functions(tmp_path):
    found = []

    def name(dsk, keys, **options):
        graph = dict(dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__())
        found.extend(dask.utils.funcname(task.func) for task in graph.values() if hasattr(task, "func"))
        return dask.get(dsk, keys)

    with StageCache(tmp_path):
        assert dask.delayed(inc)(1).compute(scheduler=name) == 2
    assert "inc" in found


def test_an_error_is_that_of_plain_dask(tmp_path):
    def fail():
        raise ZeroDivisionError("of the user")

    with StageCache(tmp_path), pytest.raises(ZeroDivisionError, match="of the user"):
        dask.delayed(fail)().compute(scheduler="sync")


def test_a_policy_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'marked'"):
        StageCache(tmp_path, policy="some")


def test_one_file_knows_dasks_task_classes():
    package = Path(coffea_dirac.__file__).parent
    assert [p.name for p in package.rglob("*.py") if "_task_spec" in p.read_text()] == ["nodes.py"]


# ----------------------------------------------------------------------------------------------------- names of no weight


def renamed(graph, rng):
    """Return a graph with other keys, in another order."""
    names = {key: uuid.UUID(int=rng.getrandbits(128)).hex for key in graph}

    def other(part):
        if isinstance(part, tuple | list):
            return type(part)(map(other, part))
        return names.get(part, part) if isinstance(part, str) else part

    items = [(names[key], other(task)) for key, task in graph.items()]
    rng.shuffle(items)
    return dict(items), names


FUNCTIONS = [add, operator.add, operator.sub, max]


@st.composite
def graphs(draw):
    """A graph of calls, each of earlier keys and numbers."""
    graph = {"k0": (inc, draw(st.integers(0, 3)))}
    for n in range(1, draw(st.integers(2, 12))):
        key = st.sampled_from(sorted(graph))
        operand = st.one_of(key, st.integers(0, 3), st.floats(0, 1))
        func = draw(st.sampled_from(FUNCTIONS))
        graph[f"k{n}"] = (
            (func, draw(operand), draw(operand)) if draw(st.booleans()) else (sum, [draw(operand), draw(key)])
        )
    return graph


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 2**32))
def test_a_graph_whose_keys_are_renamed_is_all_hits(tmp_path_factory, graph, seed):
    folder = tmp_path_factory.mktemp("cache")
    other, names = renamed(graph, random.Random(seed))
    wanted = sorted(graph)
    cold, _ = in_cache(folder, lambda: dask.get(graph, wanted))
    warm, counts = in_cache(folder, lambda: dask.get(other, [names[key] for key in wanted]))
    assert warm == cold and counts["computed"] == 0


def test_another_body_under_equal_names_is_a_miss(tmp_path):
    def named(body):
        namespace = {"__name__": "analysis"}
        exec(f"def f(x):\n    return {body}", namespace)
        return namespace["f"]

    results = [in_cache(tmp_path, lambda b=body: dask.get({"y": (named(b), 3)}, "y"))[0] for body in ("x + 1", "x * 2")]
    assert results == [4, 6]


# ---------------------------------------------------------------------------------------------------- what is asked for


def test_one_output_or_five_have_the_same_fingerprints(tmp_path):
    x = da.arange(12, chunks=4) * 2
    outputs = [x.sum(), x.mean(), x.max(), x, dask.delayed(inc)(1)]
    in_cache(tmp_path, lambda: dask.compute(*outputs, scheduler="sync"))
    for output in outputs:
        _, counts = in_cache(tmp_path, lambda o=output: o.compute(scheduler="sync"))
        assert counts["computed"] == 0


def test_a_further_output_recomputes_no_other(tmp_path):
    x = da.arange(12, chunks=4) * 2
    in_cache(tmp_path, lambda: dask.compute(x.sum(), x.max()))
    found, counts = in_cache(tmp_path, lambda: dask.compute(x.sum(), x.min(), x.max()))
    assert found == (132, 0, 22) and counts == {"loaded": 2, "computed": 1, "cut": 0}


# A logger enters fingerprints by its name: what is counted through it does not change them.
LOG = logging.getLogger("tests of graphs")


@pytest.fixture
def calls():
    """Return a list of what the functions below are called with."""
    found, handler = [], logging.Handler()
    handler.emit = lambda record: found.append(record.args)
    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    yield found
    LOG.removeHandler(handler)


def seen(x):
    LOG.info("%s", x)
    return x * 10


def test_everything_above_a_hit_is_dropped(tmp_path, calls):
    cache = StageCache(tmp_path)

    def value(last):
        return dask.delayed(add)(cache.keep(dask.delayed(seen)(dask.delayed(seen)(1))), last)

    with cache:
        assert value(1).compute(scheduler="sync") == 101
    with cache:
        assert value(2).compute(scheduler="sync") == 102
    assert calls == [(1,), (10,)] and outcome(cache.report) == (["seen"], ["add"])


def test_policy_all_keeps_every_task(tmp_path):
    def value(last):
        return dask.delayed(add)(dask.delayed(inc)(dask.delayed(inc)(1)), last)

    _, cold = in_cache(tmp_path, lambda: value(1).compute(), policy="all")
    _, edited = in_cache(tmp_path, lambda: value(2).compute(), policy="all")
    assert (cold["computed"], edited) == (3, {"loaded": 1, "computed": 1, "cut": 0})


@stage
def selected(x):
    LOG.info("%s", "selected")
    return [v for v in x if v > 1]


def test_a_stage_in_a_graph_is_kept_and_is_a_plain_function_there(tmp_path, calls):

    def value(n):
        return dask.delayed(operator.mul)(dask.delayed(selected)([1, 2, 3]), n)

    for scheduler, n in (("sync", 1), ("threads", 2)):
        with StageCache(tmp_path) as cache:
            assert value(n).compute(scheduler=scheduler) == [2, 3] * n
    assert calls == [("selected",)] and outcome(cache.report) == (["selected"], ["mul"])


# --------------------------------------------------------------------------------------------------------- in other hands


SCRIPT = textwrap.dedent(
    """
    import sys
    import dask
    import dask.array as da
    import numpy as np
    from dask.highlevelgraph import HighLevelGraph
    from coffea_dirac import StageCache

    CUT = 3

    def a(x): return x + 1
    def b(x): return x * 2
    def c(x, y): return x - y
    def e(x): return float(x.sum()) + CUT

    def value():
        x = da.from_array(np.arange(20).reshape(4, 5), chunks=(2, 5)).map_blocks(a)
        return e_of(c_of(x.map_blocks(b), x))

    c_of = lambda x, y: da.map_blocks(c, x, y)
    e_of = lambda x: dask.delayed(e)(x)

    if __name__ == "__main__":
        with StageCache(sys.argv[1]) as cache:
            print(value().compute(scheduler=sys.argv[2]))
        print(cache.report.counts)
    """
)


def test_another_process_with_another_hash_seed_and_scheduler_loads_all(tmp_path):
    script = tmp_path / "graph_script.py"
    script.write_text(SCRIPT)
    told = []
    for seed, scheduler in (("1", "sync"), ("2", "threads"), ("3", "processes")):
        command = [sys.executable, str(script), str(tmp_path / "cache"), scheduler]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        told.append(done.stdout.splitlines())
    assert told[0] == ["213.0", "{'loaded': 0, 'computed': 1, 'cut': 0}"]
    assert told[1] == told[2] == ["213.0", "{'loaded': 1, 'computed': 0, 'cut': 0}"]


def test_a_layer_that_is_written_by_hand_is_like_any_graph(tmp_path):
    x = da.arange(4, chunks=2)
    name = "mine"
    layer = {(name, i): (inc, (x.name, i)) for i in range(2)}
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[x])
    y = da.Array(graph, name, chunks=x.chunks, dtype=x.dtype)
    for n in range(2):
        found, counts = in_cache(tmp_path, lambda: y.compute(scheduler="sync"))
        assert found.tolist() == [1, 2, 3, 4] and counts["loaded"] == 2 * n


# ------------------------------------------------------------------------------------------------------- what goes wrong


def test_a_damaged_record_is_computed_again_with_one_warning(tmp_path, calls):
    value = dask.delayed(seen)(7)
    in_cache(tmp_path, lambda: value.compute(scheduler="sync"))
    (pack,) = tmp_path.glob("v1/s/*/p/graph-*.pack")
    data = bytearray(pack.read_bytes())
    data[60] ^= 0xFF
    pack.write_bytes(data)
    with pytest.warns(CacheWarning, match="unreadable"), StageCache(tmp_path) as cache:
        assert value.compute(scheduler="sync") == 70
    assert calls == [(7,), (7,)] and cache.report.computed[0].reason["reason"] == "unreadable"


def test_an_unwritable_store_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    values = [dask.delayed(inc)(n) for n in range(3)]
    with pytest.warns(CacheWarning) as told:
        found, _ = in_cache(tmp_path / "file" / "cache", lambda: [v.compute(scheduler="sync") for v in values])
    assert found == [1, 2, 3]
    assert len(told) == 1


class Strange:
    def __init__(self, n):
        self.n = n


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_warning_points_to_the_line_of_the_user(tmp_path, scheduler):
    with pytest.warns(CacheWarning, match="generator") as told, StageCache(tmp_path):
        dask.delayed(sum)(n for n in range(3)).compute(scheduler=scheduler)
    (warning,) = told
    assert warning.filename == __file__
    assert "compute(scheduler=scheduler)" in linecache.getline(__file__, warning.lineno)


def test_a_result_without_codec_is_computed_and_named_once(tmp_path):
    import threading

    def lock(n):
        return {"lock": threading.Lock(), "n": n}

    for _ in range(2):
        with pytest.warns(CacheWarning, match="lock") as told, StageCache(tmp_path) as cache:
            found = dask.compute(*(dask.delayed(lock)(n) for n in range(3)), scheduler="sync")
        assert [f["n"] for f in found] == [0, 1, 2] and len(told) == 1
        assert cache.report.counts["computed"] == 3


def test_what_has_no_fingerprint_is_computed_as_it_is_with_one_warning(tmp_path):
    generator = (n for n in range(3))
    with pytest.warns(CacheWarning, match="generator") as told, StageCache(tmp_path) as cache:
        assert dask.get({"y": (list, generator), "z": (inc, 1)}, ["y", "z"]) == ([0, 1, 2], 2)
    assert len(told) == 1 and sorted(o.stage for o in cache.report.computed) == ["inc", "list"]


@pytest.mark.parametrize("graph", [{"a": (inc, "a")}, {"a": (inc, "b"), "b": (inc, "a")}])
def test_a_graph_that_needs_itself_is_dasks_business(tmp_path, graph):
    with pytest.raises(RuntimeError, match="Cycle") as plain:
        dask.get(graph, "a")
    said = pytest.warns(CacheWarning, match="'a' needs itself|'b' needs itself")
    with StageCache(tmp_path), said, pytest.raises(RuntimeError) as found:
        dask.get(graph, "a")
    assert str(found.value) == str(plain.value)


def test_what_writes_into_an_array_writes_again(tmp_path):
    for _ in range(2):
        target = np.zeros(4)
        with pytest.warns(CacheWarning, match="it writes into an array"):
            in_cache(tmp_path, lambda target=target: da.store(da.ones(4, chunks=2), target, compute=False).compute())
        assert target.tolist() == [1.0] * 4


def test_functions_that_optimise_for_the_user_are_heeded(tmp_path):
    def double(dsk, keys):
        return {key: (operator.mul, 2, task) for key, task in dsk.items()}

    if not hasattr(dask.base, "collections_to_dsk"):
        pytest.skip("the newest dask has no such functions any more")
    value = dask.delayed(inc)(1)
    assert in_cache(tmp_path, lambda: value.compute(scheduler="sync"))[0] == 2
    with dask.config.set(delayed_optimize=double):
        right = value.compute(scheduler="sync")
        with pytest.warns(CacheWarning, match="not its own"):
            found, counts = in_cache(tmp_path, lambda: value.compute(scheduler="sync"))
    assert found == right == 4
    assert counts["loaded"] == 0


def test_several_dataframes_at_once_are_those_of_plain_dask(tmp_path):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 3, 4], "b": [5, 5, 3, 3]}), npartitions=2)

    def both():
        return dask.compute(frame.a + 1, frame.a + frame.b, scheduler="sync")

    plain, cold, warm = both(), in_cache(tmp_path, both), in_cache(tmp_path, both)
    for found, counts in (cold, warm):
        assert all(x.equals(y) for x, y in zip(found, plain, strict=True))
        assert counts["loaded"] == (4 if found is warm[0] else 0)


def test_a_stage_is_tried_by_dask_as_the_function_that_it_is(tmp_path):
    @stage
    def doubled(x):
        return x * 2

    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 3]}), npartitions=2)
    with StageCache(tmp_path) as cache:
        x = da.arange(4, chunks=2).map_blocks(doubled).map_blocks(lambda block: doubled(block) + 1)
        assert x.sum().compute() == 28
        assert frame.map_partitions(doubled).a.sum().compute() == 12
    assert cache.report.counts["computed"] == 4


def test_only_a_collection_can_be_marked(tmp_path):
    with pytest.raises(ConfigurationError, match=r"not a list: weights = cache\.keep\(weights\)"):
        StageCache(tmp_path).keep([dask.delayed(1)])


def test_data_that_dask_holds_may_be_asked_for_as_they_are(tmp_path):
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]}), npartitions=2)
    with StageCache(tmp_path):
        found, array = dask.compute(frame, da.from_array(np.arange(4), chunks=2), scheduler="sync")
    assert found.equals(frame.compute(scheduler="sync")) and array.tolist() == [0, 1, 2, 3]


def test_what_comes_of_a_shuffle_by_way_of_files_is_kept(tmp_path):
    for is_warm in (False, True):
        with StageCache(tmp_path) as cache:
            bag = db.from_sequence(range(6), npartitions=2).groupby(lambda x: x % 2)
            assert sorted(map(sorted, dict(bag.compute(scheduler="sync")).values())) == [[0, 2, 4], [1, 3, 5]]
        assert (cache.report.counts["computed"] == 0) == is_warm
