"""What is planned for the ttbar analysis after an edit is what the run then computes and cuts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agc_example.edits import EDITS, Edit, copy_of_package
from agc_example.generate import generate

ROOT = Path(__file__).parent.parent
DRIVER = """
import json, sys
from pathlib import Path
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from agc_example.analysis import TtbarAnalysis
from agc_example.inputs import fileset_from
from coffea_dirac import DiracExecutor, StageCache
NanoAODSchema.warn_missing_crossrefs = False
cache = StageCache(sys.argv[2])
executor = DiracExecutor(cache=cache, inline=True, status=False)
run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=200, metadata_cache={})
fileset, analysis = fileset_from(Path(sys.argv[1])), TtbarAnalysis(use_ml=True)
plan = cache.plan(run, fileset, analysis, treename="Events")
run(fileset, analysis, treename="Events")
report = run.executor.report
print("RESULT " + json.dumps({
    "planned": plan.counts["computed"], "done": report.counts["computed"] + report.counts["cut"],
    "stages": {name: n["computed"] for name, n in plan.stages.items()},
    "ran": {name: n["computed"] + n["cut"] for name, n in report.stages.items()},
    "unknown": plan.not_looked_up,
}))
"""


def run(edit: Edit, folder: Path, inputs: Path, cache: Path, seed: int) -> dict[str, Any]:
    edit.change(copy_of_package(folder))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(inputs), str(cache)],
        cwd=inputs.parent,
        env={
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "PYTHONHASHSEED": str(seed),
            "AGC_EXECUTIONS": os.devnull,
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "RESULT " in done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT ")[2])
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("plan")
    inputs = generate(root / "data", files=1, events=200)
    cold = run(Edit("first run"), root / "original", inputs, root / "cache", seed=1)
    assert cold["planned"] == cold["done"] > 9
    return root, inputs


@pytest.mark.parametrize("name", ["nothing", "binning", "model file"])
def test_the_plan_of_an_edit_is_what_happens(place: tuple[Path, Path], name: str) -> None:
    root, inputs = place
    edit = next(edit for edit in EDITS if edit.name == name)
    found = run(edit, root / name.replace(" ", "_"), inputs, root / "cache", seed=len(name))
    assert found["planned"] == found["done"]
    assert {s: n for s, n in found["stages"].items() if n} == {s: n for s, n in found["ran"].items() if n}
    assert (found["planned"] == 0) == (name == "nothing")
    assert found["unknown"] == 0
