"""coffea's own tests of its executors, with DiracExecutor in place of FuturesExecutor.

The tests are those of the coffea that is installed, from its source distribution.  They run three times: as they are,
then with DiracExecutor on an empty cache, then once more in new processes on the cache that has been filled.  What passes
as it is must pass in the other two; what came of it is written into the documentation.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import foreign_suites
import pytest
from foreign_suites import Outcomes

pytestmark = [pytest.mark.long, pytest.mark.core, pytest.mark.timeout(5400)]

FILES = ("test_local_executors.py", "test_checkpointing.py", "test_preloading.py", "test_processor.py")
PAGE = foreign_suites.ROOT / "docs" / "reference" / "coffea-suite.md"
# What asks for FuturesExecutor's own options.
EXCLUDED = {
    "test_futures_mergepool_forms": "is about FuturesExecutor's option `mergepool`: merging is a tree on the workers here",
    "test_tailtimeout_deprecation_warns_once": "is about FuturesExecutor's deprecated option `tailtimeout`",
}


def outcomes(folder: Path, report: Path, *, plugin: bool, env: dict[str, str]) -> Outcomes:
    """Run the tests in a process of their own and return what came of each case."""
    files = [f"tests/{name}" for name in FILES if (folder / "tests" / name).exists()]
    options = ["-n", "2", "-k", "not IterativeExecutor"]
    plug_in = "use_dirac" if plugin else None
    return foreign_suites.outcomes(folder, files, report, plugin=plug_in, env=env, options=options)


def test_what_passes_with_futures_executor_passes_with_dirac_executor(tmp_path: Path) -> None:
    version = importlib.metadata.version("coffea")
    folder = foreign_suites.source_of("coffea", version)
    stock = outcomes(folder, tmp_path / "stock.xml", plugin=False, env={})
    options = json.dumps({"workers": 2})
    env = {"COFFEA_DIRAC_CACHE": str(tmp_path / "cache"), "FOREIGN_OPTIONS": options}
    cold = outcomes(folder, tmp_path / "cold.xml", plugin=True, env=env)
    warm = outcomes(folder, tmp_path / "warm.xml", plugin=True, env=env)
    assert sum(outcome == "passed" for outcome in stock.values()) > 50, "the suite itself did not run"
    assert stock.keys() == cold.keys() == warm.keys()
    stack = f"coffea {version}, dask {importlib.metadata.version('dask')}, Python {sys.version.split()[0]}"
    heads = ("FuturesExecutor", "DiracExecutor, cold", "warm")
    lines = [f"Run on {time.strftime('%Y-%m-%d')}.", "", *foreign_suites.table(heads, (stock, cold, warm))]
    foreign_suites.renew(PAGE, HEAD, stack, lines)
    assert foreign_suites.lost(stock, EXCLUDED, cold, warm) == []


HEAD = """# coffea's own tests

`make test-long` runs coffea's tests of its executors with `DiracExecutor` wherever they name `FuturesExecutor`, on an
empty cache and once more on the filled one. Cases that pass and fail alike without it are included. Excluded are:

""" + "\n".join(f"- `{name}`: {why}." for name, why in EXCLUDED.items())
