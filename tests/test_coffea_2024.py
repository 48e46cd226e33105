"""coffea 2024.11 has dask-awkward and no executors: its graphs go through the cache in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agc_example.generate import write_file

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).parent / "dask_mode.py"
CASES = ("from_root", "correction", "report", "fileset", "partitions")

NO_COFFEA = """
import sys
sys.modules["coffea"] = None
from collections import Counter, defaultdict
import dask
from coffea_dirac import DiracClient, StageCache
with StageCache(sys.argv[1]) as cache:
    value = dask.delayed(Counter)("abca").compute(scheduler="sync"), dask.delayed(defaultdict)(int).compute(scheduler="sync")
assert value == (Counter("abca"), defaultdict(int)), value
print(cache.report.counts)
try:
    from coffea_dirac import DiracExecutor
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.core
def test_graphs_go_through_the_cache_without_coffea(tmp_path: Path) -> None:
    for counts in ("{'loaded': 0, 'computed': 2, 'cut': 0}", "{'loaded': 2, 'computed': 0, 'cut': 0}"):
        command = [sys.executable, "-c", NO_COFFEA, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found, refused = done.stdout.splitlines()
        assert found == counts
        assert refused.startswith("MissingPackageError DiracExecutor needs coffea 2025.12 or newer")


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter of an environment with coffea 2024.11, set up if it is not there."""
    venv = ROOT / ".venv-coffea-2024"
    command = ["scripts/set-up", venv.name, "requirements/coffea-2024.lock"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, check=True, timeout=1800)
    return str(venv / "bin" / "python")


def run(python: str, cache: Path, scheduler: str, seed: int, files: list[str]) -> Any:
    env = {**os.environ, "PYTHONHASHSEED": str(seed)}
    command = [python, str(PROGRAM), str(cache), scheduler, ",".join(CASES), *files]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_dask_graphs_of_coffea_2024_are_loaded_in_a_new_process(python: str, tmp_path: Path) -> None:
    files = [str(write_file(tmp_path, ("ttbar", "nominal"), number=n, events=300, enriched=True)) for n in (0, 1)]
    plain = run(python, tmp_path / "cache", "plain", 0, files)
    cold = run(python, tmp_path / "cache", "sync", 1, files)
    for scheduler in ("threads", "distributed"):
        warm = run(python, tmp_path / "cache", scheduler, 2, files)
        for case in CASES:
            assert cold[case]["value"] == warm[case]["value"] == plain[case]["value"]
            assert cold[case]["counts"]["computed"] > 0
            assert warm[case]["counts"]["computed"] == 0
            assert warm[case]["counts"]["loaded"] > 0


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_coffea_2024_has_no_executor_and_the_error_says_what_does(python: str) -> None:
    command = [python, "-c", "from coffea_dirac import DiracExecutor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "MissingPackageError: DiracExecutor needs coffea 2025.12 or newer" in done.stderr
    assert "with StageCache(...)" in done.stderr
