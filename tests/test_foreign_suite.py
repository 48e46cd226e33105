"""coffea's own tests of its executors, with DiracExecutor in place of FuturesExecutor.

The tests are those of the coffea that is installed, from its source distribution.  They run three times: as they are,
then with DiracExecutor on an empty cache, then once more in new processes on the cache that has been filled.  What passes
as it is must pass in the other two; what came of it is written into the documentation.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.core, pytest.mark.timeout(5400)]

ROOT = Path(__file__).parent.parent
FILES = ("test_local_executors.py", "test_checkpointing.py", "test_preloading.py", "test_processor.py")
PAGE = ROOT / "docs" / "reference" / "coffea-suite.md"
# What asks for FuturesExecutor's own options.
EXCLUDED = {
    "test_futures_mergepool_forms": "is about FuturesExecutor's option `mergepool`: merging is a tree on the workers here",
    "test_tailtimeout_deprecation_warns_once": "is about FuturesExecutor's deprecated option `tailtimeout`",
}


def fetch(version: str) -> Path:
    """Return the folder of coffea's source distribution, from the package index if it is not here yet."""
    folder = ROOT / ".foreign"
    unpacked = folder / f"coffea-{version}"
    if not unpacked.exists():
        folder.mkdir(exist_ok=True)
        subprocess.run(
            f"{sys.executable} -m pip download --quiet --no-deps --no-binary :all: coffea=={version}".split(),
            cwd=folder,
            check=True,
            timeout=600,
        )
        with tarfile.open(folder / f"coffea-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked


def outcomes(folder: Path, report: Path, *, plugin: bool, env: dict[str, str]) -> dict[str, str]:
    """Run the tests in a process of their own and return what came of each case."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-k", "not IterativeExecutor", *(["-p", "use_dirac"] if plugin else [])]
    command += [f"tests/{name}" for name in FILES if (folder / "tests" / name).exists()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "foreign"), **env}
    subprocess.run(command, cwd=folder, env=environment, timeout=2400, check=False, stdout=subprocess.DEVNULL)
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds.pop() if kinds else "passed"
    return found


def test_what_passes_with_futures_executor_passes_with_dirac_executor(tmp_path: Path) -> None:
    version = importlib.metadata.version("coffea")
    folder = fetch(version)
    stock = outcomes(folder, tmp_path / "stock.xml", plugin=False, env={})
    options = json.dumps({"workers": 2})
    env = {"COFFEA_DIRAC_CACHE": str(tmp_path / "cache"), "FOREIGN_OPTIONS": options}
    cold = outcomes(folder, tmp_path / "cold.xml", plugin=True, env=env)
    warm = outcomes(folder, tmp_path / "warm.xml", plugin=True, env=env)
    assert sum(outcome == "passed" for outcome in stock.values()) > 50, "the suite itself did not run"
    assert stock.keys() == cold.keys() == warm.keys()
    write_page(version, stock, cold, warm)
    expected = {case for case, outcome in stock.items() if outcome == "passed" and not is_excluded(case)}
    assert [case for case in sorted(expected) if cold[case] != "passed" or warm[case] != "passed"] == []


def is_excluded(case: str) -> bool:
    return any(name in case for name in EXCLUDED)


def write_page(version: str, *runs: dict[str, str]) -> None:
    """Write the result of this stack into the page, and leave that of the other as it is."""
    stock, cold, warm = runs
    stack = f"coffea {version}, dask {importlib.metadata.version('dask')}, Python {sys.version.split()[0]}"
    tests = {case.partition("[")[0] for case in stock}
    lines = [f"## {stack}", "", f"Run on {time.strftime('%Y-%m-%d')}.", ""]
    lines += ["| test | cases | FuturesExecutor | DiracExecutor, cold | warm |", "|---|---|---|---|---|"]
    for test in sorted(tests):
        cases = [case for case in stock if case.partition("[")[0] == test]
        passed = [Counter(run[case] for case in cases)["passed"] for run in (stock, cold, warm)]
        lines.append(f"| `{test.removeprefix('tests.')}` | {len(cases)} | " + " | ".join(map(str, passed)) + " |")
    head, *old = (PAGE.read_text() if PAGE.exists() else HEAD).split("\n## ")
    kept = [part for part in old if not part.startswith(stack)]
    PAGE.write_text(
        "\n## ".join([head.rstrip() + "\n", *(k.rstrip() + "\n" for k in kept), "\n".join(lines)[3:] + "\n"])
    )


HEAD = """# coffea's own tests

`make test-long` runs coffea's tests of its executors with `DiracExecutor` wherever they name `FuturesExecutor`, on an
empty cache and once more on the filled one. Cases that pass and fail alike without it are included. Excluded are:

""" + "\n".join(f"- `{name}`: {why}." for name, why in EXCLUDED.items())
