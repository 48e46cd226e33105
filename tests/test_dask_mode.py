"""Analyses in coffea's dask mode: the values are those without a cache, and other processes load them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agc_example.generate import write_file

pytest.importorskip("dask_awkward")
pytestmark = pytest.mark.timeout(1800)

PROGRAM = Path(__file__).parent / "dask_mode.py"
CASES = ("from_root", "correction", "report", "fileset", "partitions")
EVENTS = 300
Runs = dict[str, dict[str, Any]]


def run(cache: Path, scheduler: str, seed: int, files: list[Path], cases: tuple[str, ...] = CASES) -> Any:
    """Run cases in a new process and return what it printed."""
    command = [sys.executable, str(PROGRAM), str(cache), scheduler, ",".join(cases), *map(str, files)]
    env = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def file_in(folder: Path, number: int) -> Path:
    return write_file(folder, ("ttbar", "nominal"), number=number, events=EVENTS, enriched=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("dask_mode")
    files = [file_in(folder, number) for number in (0, 1)]
    return {
        "plain": run(folder / "cache", "plain", 0, files),
        "cold": run(folder / "cache", "sync", 1, files),
        "threads": run(folder / "cache", "threads", 2, files),
        "distributed": run(folder / "cache", "distributed", 3, files),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["cold", "threads", "distributed"])
def test_values_and_types_are_those_without_a_cache(runs: Runs, case: str, how: str) -> None:
    assert runs[how][case]["value"] == runs["plain"][case]["value"]


@pytest.mark.parametrize("case", CASES)
def test_what_one_process_has_computed_others_load(runs: Runs, case: str) -> None:
    assert runs["cold"][case]["counts"]["computed"] > 0
    for how in ("threads", "distributed"):
        counts = runs[how][case]["counts"]
        assert counts["computed"] == 0, how
        assert counts["loaded"] > 0, how


def test_an_overwritten_file_is_computed_again(tmp_path: Path) -> None:
    cases = ("from_root", "fileset")
    path = file_in(tmp_path, 0)
    before = run(tmp_path / "cache", "sync", 1, [path], cases)
    file_in(tmp_path / "other", 1).replace(path)
    after, plain = run(tmp_path / "cache", "sync", 1, [path], cases), run(tmp_path, "plain", 1, [path], cases)
    for case in cases:
        assert after[case]["value"] == plain[case]["value"] != before[case]["value"]


def test_what_could_not_be_read_is_read_again(tmp_path: Path) -> None:
    good, torn = file_in(tmp_path, 0), file_in(tmp_path, 1)
    whole = tmp_path / "whole.root"
    shutil.copy(torn, whole)
    torn.write_bytes(whole.read_bytes()[:20_000])
    first = run(tmp_path / "cache", "sync", 1, [good, torn], ("report",))
    assert first["report"]["value"]["report"][:2] == [None, None]
    assert None not in first["report"]["value"]["report"][2:]
    whole.replace(torn)
    second = run(tmp_path / "cache", "sync", 1, [good, torn], ("report",))
    assert second["report"]["value"] == run(tmp_path, "plain", 1, [good, torn], ("report",))["report"]["value"]
    assert second["report"]["value"]["report"] == [None] * 4


def test_records_with_another_class_of_a_library_are_computed_again(tmp_path: Path) -> None:
    import awkward as ak
    import dask_awkward as dak
    from coffea.nanoevents.methods import vector

    from coffea_dirac import StageCache

    lazy = dak.from_awkward(ak.Array([1.0, 2.0]), npartitions=1)

    def counts(kind: type) -> dict[str, int]:
        with StageCache(tmp_path) as cache:
            points = dak.zip({"x": lazy, "y": lazy}, with_name="P", behavior={("*", "P"): kind})
            ak.num(points.x, axis=0).compute(scheduler="sync")
        return cache.report.counts

    kinds = (vector.TwoVectorArray, vector.PolarTwoVectorArray, vector.TwoVectorArray)
    assert [counts(kind)["loaded"] for kind in kinds] == [0, 0, 1]
