"""Nothing, A, D or Y is edited: each form of a graph loads what is left, counted in the report and at the store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coffea_dirac import open_store
from coffea_dirac.packs import Index

pytestmark = pytest.mark.core

PROGRAM = Path(__file__).with_name("four_cases.py")
FORMS = ("delayed", "dict", "awkward")
CASES = {"nothing": ("Y", ""), "A": ("D", "ABY"), "D": ("BC", "DY"), "Y": ("BD", "Y")}


def run(cache: Path, form: str, edited: str, seed: int) -> Any:
    """Run in a new process with a hash seed of its own; return what it printed."""
    command = [sys.executable, str(PROGRAM), str(cache), form, edited]
    env = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kept(cache: Path) -> Counter[str]:
    """Return how many results of each stage a store has."""
    index = Index(open_store(cache))
    index.refresh()
    return Counter(str(row.info["stage"]) for row in index if "stage" in row.info)


@pytest.fixture(scope="module", params=FORMS)
def cold(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    if request.param == "awkward":
        pytest.importorskip("dask_awkward", reason="dask-awkward is on stack A only")
    cache = tmp_path_factory.mktemp("cold")
    found = run(cache, request.param, "nothing", 0)
    assert found["value"] == found["plain"] and found["computed"] == sorted("ABCDY") and not found["loaded"]
    assert kept(cache) == dict.fromkeys("ABCDY", 1)
    return request.param, cache


@pytest.mark.parametrize("edited", CASES)
def test_an_edit_costs_what_depends_on_it(cold: tuple[str, Path], tmp_path: Path, edited: str) -> None:
    form, cache = cold
    shutil.copytree(cache, tmp_path / "cache")
    loaded, computed = CASES[edited]
    found = run(tmp_path / "cache", form, edited, seed=1 + "ADY".find(edited))
    assert found["value"] == found["plain"]
    assert ("".join(found["loaded"]), "".join(found["computed"])) == (loaded, computed)
    assert kept(tmp_path / "cache") - kept(cache) == Counter(computed)
    assert len(found["reasons"]) == bool(computed) and all(f"new code: {edited}" in r for r in found["reasons"])
