"""What a report says of graphs: why something is computed, by the function that is another one, and how long it took."""

from __future__ import annotations

import gc
import textwrap
import time

import dask
import dask.array as da
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
    assert reasons == ["new input"]


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
    assert told["len"] == {"reason": "new input"}
    assert told["sum"]["reason"] == "new code" and told["sum"]["where"].startswith("helper, line 6")


def test_two_functions_of_one_name_are_not_taken_for_an_edit(tmp_path):
    def value(*more):
        f = [lambda x: x + 1, lambda x: x * 2, *more]
        return dask.delayed(sum)([dask.delayed(one)(n) for n, one in enumerate(f)])

    computed(tmp_path, value())
    reasons, _ = computed(tmp_path, value(lambda x: x - 3))
    assert reasons == ["first run: <lambda>"]


def test_marked_nodes_name_the_cause_too(tmp_path):
    def value(f):
        return dask.delayed(sum)(dask.delayed(stage(f["scale"]))(dask.delayed(stage(f["select"]))(range(50)), 2))

    computed(tmp_path, value(edited(tmp_path)))
    reasons, report = computed(tmp_path, value(edited(tmp_path, "30", "25")))
    assert reasons == ["new code: helper, line 6: `30` became `25`"] and report.counts["computed"] == 3


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
