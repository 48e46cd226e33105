"""dask's, dask-awkward's and coffea's own tests with the cache switched on.

Each suite runs three times: as it is, then through an empty cache, then once more in a new process, with another hash
seed, through the cache that has been filled.  What passes as it is must pass in the other two; each exclusion has a
reason, and what came of it is written into the documentation.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import shutil
import sys
import tarfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import foreign_suites
import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]

PAGE = foreign_suites.ROOT / "docs" / "reference" / "graph-suites.md"
DASK_FILES = ("tests/test_base.py", "tests/test_delayed.py", "array/tests/test_array_core.py")
# Parts of coffea's tests, each with the files and the choice (-k) of it; every case of the files is in one.
_APPLIED = "apply_to_fileset or tuple_data or recover_failed"
COFFEA_PARTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "apply_to_fileset": (
        ("test_dataset_tools.py", "test_dask_client_fixture.py"),
        f"{_APPLIED} or dask_client_fixture",
    ),
    "preprocess": (("test_dataset_tools.py",), "preprocess and not empty_files"),
    "preprocess of empty files": (("test_dataset_tools.py",), "empty_files"),
    "filesets": (("test_dataset_tools.py",), f"not ({_APPLIED} or preprocess)"),
    "parquet and lumi": (("test_dataset_tools_parquet.py", "test_fix823.py", "test_lumi_tools.py"), ""),
}

EXCLUDED: Mapping[str, str] = {
    "test_compute_no_opt": "counts the tasks that a scheduler sees; what is kept is not fused, and what is loaded is no task.",
    "test_optimize_None": "compares the graph that a scheduler is given with the collection's: it is the smaller one here.",
    "test_from_array_getitem": "sees whether a function was called; a result that is loaded calls none.",
    "test_from_array_with_lock": "counts how often a lock was taken; a result that is loaded takes none.",
    "test_get_scheduler": "asks whether `dask.threaded.get` is one object; in a block it is a function around it.",
    **dict.fromkeys(
        ("test_compute_array_dataframe", "test_compute_delayed_dataframe"),
        "expects the newest dask's warning that it makes one graph of unlike collections; here each kind stays apart.",
    ),
}

HEAD = """# Other projects' tests of graphs

`make test-long` runs tests of dask, dask-awkward and coffea as they are, then with the cache switched on: on an empty
cache, and once more in a new process on the filled one. dask's and dask-awkward's tests run in `with StageCache(...)`, coffea's with
`DiracClient` in place of `distributed.Client`. Cases that pass and fail alike without the cache are included in the numbers.
Excluded are:

""" + ("\n".join(f"- `{name}`: {why}" for name, why in EXCLUDED.items()) or "- none.")

# dask's options and markers that its tests ask for, without its plug-ins and its report.
CONFTEST = """
import dask
import pytest


def pytest_configure(config):
    for name in ("network", "slow", "gpu", "array_expr", "skip_with_pyarrow_strings", "xfail_with_pyarrow_strings"):
        config.addinivalue_line("markers", f"{name}: dask's")


def pytest_runtest_setup(item):
    for name in ("network", "slow", "gpu", "array_expr"):
        if name in item.keywords:
            pytest.skip(f"{name}: not run here")


@pytest.fixture(autouse=True, scope="session")
def allow_distributed_async_clients():
    with dask.config.set({"admin.async-client-fallback": "sync"}):
        yield
"""


def three_times(
    name: str,
    folder: Path,
    files: Sequence[str],
    tmp_path: Path,
    *,
    plugin: str,
    options: Sequence[str] = (),
    at_least: int = 50,
) -> None:
    """Run a suite as it is, cold and warm; write the page and compare."""
    env = {"FOREIGN_CACHE": str(tmp_path / "cache")}
    runs = [
        foreign_suites.outcomes(folder, files, tmp_path / f"{run}.xml", plugin=chosen, env=more, options=options)
        for run, chosen, more in (
            ("plain", None, {}),
            ("cold", plugin, {**env, "PYTHONHASHSEED": "1"}),
            ("warm", plugin, {**env, "PYTHONHASHSEED": "2"}),
        )
    ]
    plain, cold, warm = runs
    assert sum(outcome == "passed" for outcome in plain.values()) >= at_least, "the suite itself did not run"
    assert plain.keys() == cold.keys() == warm.keys()
    title = f"{name}, with dask {importlib.metadata.version('dask')}, Python {sys.version.split()[0]}"
    lines = [f"Run on {time.strftime('%Y-%m-%d')}.", "", *foreign_suites.table(("as it is", "cold", "warm"), runs)]
    foreign_suites.renew(PAGE, HEAD, title, lines)
    assert foreign_suites.lost(plain, EXCLUDED, cold, warm) == []


@pytest.mark.core
def test_what_passes_of_dask_passes_with_a_cache(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("dask")
    assert spec is not None
    assert spec.origin is not None
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    # Copies are code of the user's: closures and lambdas in them enter fingerprints as they are.
    for name in DASK_FILES:
        shutil.copy(Path(spec.origin).parent / name, folder)
    files = [Path(name).name for name in DASK_FILES]
    three_times("dask", folder, files, tmp_path, plugin="use_cache", options=["-n", "2"])


def test_what_passes_of_dask_awkward_passes_with_a_cache(tmp_path: Path) -> None:
    pytest.importorskip("dask_awkward")
    version = importlib.metadata.version("dask-awkward")
    folder = tmp_path / "suite"
    shutil.copytree(dask_awkward_checkout(version) / "tests", folder)
    three_times(f"dask-awkward {version}", folder, ["test_core.py"], tmp_path, plugin="use_cache", options=["-n", "2"])


def dask_awkward_checkout(version: str) -> Path:
    """Return the sources of dask-awkward: its distributions on the package index hold no tests."""
    if given := os.environ.get("DASK_AWKWARD_CHECKOUT"):
        return Path(given)
    folder = foreign_suites.ROOT / ".foreign"
    if not (folder / f"dask-awkward-{version}").exists():
        url = f"https://github.com/dask-contrib/dask-awkward/archive/refs/tags/{version}.tar.gz"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                found = answer.read()
        except OSError as error:
            pytest.skip(f"dask-awkward's tests are on GitHub only ({error}); name a checkout in DASK_AWKWARD_CHECKOUT")
        with tarfile.open(fileobj=io.BytesIO(found)) as archive:
            archive.extractall(folder, filter="data")
    return folder / f"dask-awkward-{version}"


@pytest.mark.parametrize("part", COFFEA_PARTS)
def test_what_passes_of_coffea_passes_with_dirac_client(tmp_path: Path, part: str) -> None:
    pytest.importorskip("dask_awkward")
    version = importlib.metadata.version("coffea")
    folder = foreign_suites.source_of("coffea", version)
    names, choice = COFFEA_PARTS[part]
    files = [f"tests/{name}" for name in names if (folder / "tests" / name).exists()]
    options = ["-k", choice] if choice else []
    three_times(f"coffea {version}, {part}", folder, files, tmp_path, plugin="use_client", options=options, at_least=5)
