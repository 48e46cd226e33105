"""What a report says of graphs: why something is computed, by the function that is another one, and how long it took."""

from __future__ import annotations

import gc
import textwrap
import time

import dask
import dask.array as da
import dask.bag
import dask.threaded
import numpy as np
import pytest

from coffea_dirac import StageCache, stage

pytestmark = pytest.mark.core


def defined(path, source):
    """Return what a file defines, as code of the user's that has lines."""
    path.write_text(textwrap.dedent(source))
    names = {"__name__": path.stem}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


ANALYSIS = """
    def read(n):
        return list(range(n))

    def helper(x):
        return x > 30

    def select(values):
        return [v for v in values if helper(v)]

    def scale(values, by):
        return [v * by for v in values]
"""


def edited(tmp_path, old="", new=""):
    return defined(tmp_path / "analysis.py", ANALYSIS.replace(old, new) if old else ANALYSIS)


def of_delayed(f, n=50):
    return dask.delayed(sum)(dask.delayed(f["scale"])(dask.delayed(f["select"])(dask.delayed(f["read"])(n)), 2))


def of_dict(f, n=50):
    graph = {"r": (f["read"], n), "s": (f["select"], "r"), "t": (sum, (f["scale"], "s", 2))}
    return graph, "t"


def of_array(f, n=50):
    return da.arange(n, chunks=25).map_blocks(lambda block, of=f["helper"]: np.array([of(v) for v in block]))


def computed(tmp_path, value):
    """Compute in a block; return the reasons of the report."""
    with StageCache(tmp_path / "cache") as cache:
        dask.get(*value) if isinstance(value, tuple) else value.compute(scheduler="sync")
    return [reason for reason, _ in cache.report.reasons], cache.report


@pytest.mark.parametrize("make", [of_delayed, of_dict, of_array])
def test_the_function_that_an_output_comes_from_is_named(tmp_path, make):
    first, _ = computed(tmp_path, make(edited(tmp_path)))
    assert first == ["first run"]
    reasons, _ = computed(tmp_path, make(edited(tmp_path, "30", "25")))
    assert reasons == ["new code: helper, line 6: `30` became `25`"]
    reasons, _ = computed(tmp_path, make(edited(tmp_path, "30", "25"), n=60))
    assert reasons == (["new input"] if make is of_array else ["new argument: read: `50` became `60`"])


def test_several_edits_are_named_together(tmp_path):
    computed(tmp_path, of_delayed(edited(tmp_path)))
    source = ANALYSIS.replace("30", "25").replace("v * by", "v - by")
    reasons, _ = computed(tmp_path, of_delayed(defined(tmp_path / "analysis.py", source)))
    assert reasons == ["new code: helper, line 6: `30` became `25`; scale, line 12: `Mult` became `Sub`"]


def test_only_what_comes_from_an_edited_function_is_explained_by_it(tmp_path):
    def values(f, n):
        read = dask.delayed(f["read"])(n)
        return [
            dask.delayed(sum)(dask.delayed(f["select"])(read)),
            dask.delayed(len)(dask.delayed(f["scale"])(read, 2)),
        ]

    with StageCache(tmp_path / "cache"):
        dask.compute(values(edited(tmp_path), 50), scheduler="sync")
    with StageCache(tmp_path / "cache") as cache:
        dask.compute(values(edited(tmp_path, "30", "25"), 51), scheduler="sync")
    told = {o.stage: o.reason for o in cache.report.computed}
    assert told["len"] == {"reason": "new argument", "where": "read: `50` became `51`"}
    assert told["sum"]["reason"] == "new code" and told["sum"]["where"].startswith("helper, line 6")


def test_two_functions_of_one_name_are_not_taken_for_an_edit(tmp_path):
    def value(*more):
        f = [lambda x: x + 1, lambda x: x * 2, *more]
        return dask.delayed(sum)([dask.delayed(one)(n) for n, one in enumerate(f)])

    computed(tmp_path, value())
    reasons, _ = computed(tmp_path, value(lambda x: x - 3))
    assert reasons == ["first run: <lambda>"]


def spelled(text, cut=30):
    return [text, cut]


def with_options(*, cut):
    return cut


LITERALS = {
    "argument of a call": (
        lambda n: dask.delayed(sum)(dask.delayed(spelled)("a", n)[1:]),
        30,
        25,
        "spelled: `30` became `25`",
    ),
    "keyword of a call": (lambda n: dask.delayed(spelled)("a", cut=n), 30, 25, "spelled: `cut=30` became `cut=25`"),
    "inside a list": (lambda n: dask.delayed(sum)([1, dask.delayed(abs)(n)]), -3, -4, "abs: `-3` became `-4`"),
    "text": (lambda v: dask.delayed(spelled)(v), "nominal", "up", "spelled: `'nominal'` became `'up'`"),
    "number and an array": (lambda n: (da.arange(10, chunks=5) > n).sum(), 3, 4, "gt: `3` became `4`"),
    "function of a bag": (lambda n: dask.bag.from_sequence(range(9)).map(divmod, n), 3, 4, "divmod: `3` became `4`"),
    "several": (
        lambda n: dask.delayed(spelled)(n, cut=n),
        3,
        4,
        "spelled: `3` became `4`, spelled: `cut=3` became `cut=4`",
    ),
}


@pytest.mark.parametrize(("make", "old", "new", "told"), LITERALS.values(), ids=LITERALS)
def test_a_changed_literal_is_named_with_its_operation_and_both_values(tmp_path, make, old, new, told):
    computed(tmp_path, make(old))
    reasons, report = computed(tmp_path, make(new))
    assert reasons == [f"new argument: {told}"]
    assert {dict(o.reason)["reason"] for o in report.computed} == {"new argument"}
    reasons, _ = computed(tmp_path, make(old))
    assert reasons == []


def of_cuts(first, second, n=50):
    return (((da.arange(n, chunks=25) > first) + 1) > second).sum()


def test_equal_operations_at_other_places_keep_their_values_apart(tmp_path):
    computed(tmp_path, of_cuts(30, 1))
    reasons, _ = computed(tmp_path, of_cuts(25, 0))
    assert reasons == ["new argument: gt: `1` became `0`; gt: `30` became `25`"]


def test_new_data_are_no_new_argument_and_earlier_values_are_remembered(tmp_path):
    for cut in (30, 25):
        computed(tmp_path, of_cuts(cut, 1))
    reasons, _ = computed(tmp_path, of_cuts(20, 1))
    assert reasons == ["new argument: gt: `25` became `20`"]
    data = np.arange(50)
    for n, told in enumerate((["first run"], ["new input"])):
        value = dask.delayed(np.dot)(dask.delayed(data + n), 3)
        reasons, _ = computed(tmp_path, value)
        assert reasons == told


def test_a_literal_and_a_function_that_changed_are_named_together(tmp_path):
    def value(f, n):
        return dask.delayed(sum)(dask.delayed(f["scale"])(dask.delayed(f["select"])(dask.delayed(f["read"])(50)), n))

    computed(tmp_path, value(edited(tmp_path), 2))
    reasons, _ = computed(tmp_path, value(edited(tmp_path, "30", "25"), 3))
    assert reasons == ["new code: helper, line 6: `30` became `25`; scale: `2` became `3`"]


def silent(url, token):
    return len(url)


def test_what_is_secret_in_a_graph_is_neither_told_nor_kept(tmp_path):
    def value(token):
        return dask.delayed(silent)(url=f"https://me:{token}@x.org/", token=token)

    computed(tmp_path, value("s3cret"))
    reasons, _ = computed(tmp_path, value("unlike"))
    assert reasons == ["new input"]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert b"x.org" in kept and b"s3cret" not in kept and b"unlike" not in kept


def test_marked_nodes_name_the_cause_too(tmp_path):
    def value(f):
        return dask.delayed(sum)(dask.delayed(stage(f["scale"]))(dask.delayed(stage(f["select"]))(range(50)), 2))

    computed(tmp_path, value(edited(tmp_path)))
    reasons, report = computed(tmp_path, value(edited(tmp_path, "30", "25")))
    assert reasons == ["new code: helper, line 6: `30` became `25`"] and report.counts["computed"] == 3


def test_tasks_that_dask_has_fused_are_called_by_what_comes_out_of_them(tmp_path):
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")

    def kept(by):
        frame = dd.from_pandas(pd.DataFrame({"x": range(9)}), npartitions=3)
        with StageCache(tmp_path) as cache:
            ((frame.x + 1) * by).compute(scheduler="sync")
        assert {outcome.stage for outcome in cache.report.outcomes} <= {"mul", "_concat"}
        return [text for text, _ in cache.report.reasons]

    assert kept(2) == ["first run"]
    assert kept(3) == ["new argument: mul: `2` became `3`"]


# ----------------------------------------------------------------------------------------------------------- how long


def spin(seconds):
    """Take some time, without sleeping."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_a_report_has_the_seconds_of_what_was_computed_and_loaded(tmp_path, scheduler):
    for outcome in ("computed", "loaded"):
        with StageCache(tmp_path) as cache:
            dask.delayed(spin)(0.2).compute(scheduler=scheduler)
        (found,) = cache.report.outcomes
        assert found.outcome == outcome and 0.2 <= found.seconds < 60


def test_garbage_is_collected_after_a_plan_as_before(tmp_path):
    with StageCache(tmp_path):
        dask.delayed(spin)(0.0).compute(scheduler="sync")
        assert gc.isenabled()
        gc.disable()
        try:
            dask.delayed(spin)(0.001).compute(scheduler="sync")
            assert not gc.isenabled()
        finally:
            gc.enable()
