"""The submitter's memory stays flat, however many large results there are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scenario import write_nano

SCRIPT = """
import json, sys
import numpy as np
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor, StageCache
NanoAODSchema.warn_missing_crossrefs = False
import big

def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024

n, cache, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
cache = StageCache(cache, quota=None) if cache else None
run = processor.Runner(executor=DiracExecutor(cache=cache, status=False, **options), chunksize=1, maxchunks=n)
out = run({"ttbar": ["nano.root"]}, big.Big(), treename="Events")
assert out["n"] == n and out["array"][0] == n and out["array"].nbytes == 10_000_000, out
print(json.dumps({"peak_mb": peak(), "items": run.executor.report.work_items, "counts": run.executor.report.counts}))
"""
BIG = """
import numpy as np
from coffea import processor


class Big(processor.ProcessorABC):
    def process(self, events):
        return {"n": len(events), "array": np.full(1_250_000, 1.0)}

    def postprocess(self, accumulator):
        return accumulator
"""
# A merge at work holds a partial sum and a result for each level, with their encoded forms: a few times 10 MB.  All
# results of the smaller run together would be 150 MB, of the larger one 800 MB or 4.8 GB.
MORE_MB = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_nano(tmp_path / "nano.root", events=500)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "big.py").write_text(BIG)
    return tmp_path


def run(folder: Path, n: int, cache: str, **options: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "script.py", str(n), cache, json.dumps(options)],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("cache", "options"),
    [("cache", {"workers": 2}), ("", {"workers": 2}), ("cache", {"inline": True})],
    ids=["workers", "workers without a cache", "inline"],
)
def test_eighty_results_of_ten_megabytes_need_no_more_than_fifteen(
    folder: Path, cache: str, options: dict[str, object]
) -> None:
    few = run(folder, 15, cache and "few", **options)
    many = run(folder, 80, cache and "many", **options)
    assert many["peak_mb"] < few["peak_mb"] + MORE_MB
    if cache:
        warm = run(folder, 80, "many", **options)
        assert warm["counts"]["loaded"] == 1  # type: ignore[index]
        assert warm["peak_mb"] < few["peak_mb"] + MORE_MB
        packs = sorted((folder / "many").rglob("*.pack"))
        computed = [pack for pack in packs if pack.name.startswith("b")]
        for pack in {*packs}.difference(computed[1:]):
            pack.unlink()
        again = run(folder, 80, "many", **options)
        assert 0 < again["items"]["misses"] < 80  # type: ignore[index]
        assert again["peak_mb"] < few["peak_mb"] + MORE_MB
    for name in ("few", "many"):
        shutil.rmtree(folder / name, ignore_errors=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_five_hundred_results_of_ten_megabytes_need_no_more_than_fifteen(folder: Path) -> None:
    few = run(folder, 15, "few", workers=2)
    many = run(folder, 480, "many", workers=2)
    assert many["peak_mb"] < few["peak_mb"] + MORE_MB
    shutil.rmtree(folder / "many")
