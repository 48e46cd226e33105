"""A cache on a storage element: what one process keeps another loads, bit for bit, and with few objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import uproot
from memory_store import MemoryStore, keep, key
from s3_server import S3Server
from scenario import Scenario
from typer.testing import CliRunner

from agc_example.generate import generate
from coffea_dirac.cli import app
from coffea_dirac.grid.server import free_port
from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.interfaces import Record
from coffea_dirac.packs import Index
from coffea_dirac.stores import open_store

KINDS = ["root", "root with token", "https with token", "s3"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new folder on the storage that the test's parameter names."""
    kind = request.param
    if kind == "s3":
        server: S3Server | XRootDServer = request.getfixturevalue("s3")
        base = server.url
    elif kind == "root":
        base = request.getfixturevalue("xrootd").root
    else:
        request.getfixturevalue("token")
        server = request.getfixturevalue("xrootd_with_tokens")
        base = server.root if kind.startswith("root") else server.http.replace("https", "davs")
    return f"{base}/{tmp_path.name}-{os.getpid()}/stages"


def _needs(kind: str) -> object:
    return pytest.param(kind, marks=pytest.mark.needs("s3" if kind == "s3" else "xrootd"))


on_each = pytest.mark.parametrize("place", list(map(_needs, KINDS)), indirect=True)


@on_each
def test_a_new_process_loads_what_another_has_kept(place: str, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    env = {"XDG_CACHE_HOME": str(tmp_path / "home")}
    cold = scenario.run(cache=place, env=env, compare=True)
    assert (cold.out, cold.error, cold.warnings) == (cold.plain, None, [])
    assert cold.misses == 4
    names = [blob.name for blob in open_store(place).list()]
    # Two files, so two bundles; and what merging made.
    assert sum(name.endswith(".pack") for name in names) <= 2 * 2 + 2
    assert sum(not name.endswith(".pack") for name in names) <= 3
    warm = scenario.run(cache=place, env=env)
    assert (warm.out, warm.misses, warm.warnings) == (cold.out, 0, [])
    scenario.edit("helper.py", "30", "25")
    edited = scenario.run(cache=place, env=env, compare=True)
    assert (edited.out, edited.misses) == (edited.plain, 4)


@pytest.mark.needs("xrootd")
@pytest.mark.parametrize("place", ["root with token"], indirect=True)
def test_workers_keep_on_a_storage_that_wants_a_token(place: str, token: str, tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    env = {"XDG_CACHE_HOME": str(tmp_path / "home")}
    cold = scenario.run(cache=place, env=env, inline=False, workers=1)
    warm = scenario.run(cache=place, env=env)
    assert cold.warnings == warm.warnings == []
    assert (warm.out, warm.misses) == (cold.out, 0)
    assert token not in cold.stderr + warm.stderr


def test_a_dead_storage_changes_no_result_and_costs_seconds(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    begin = time.monotonic()
    result = scenario.run(cache=f"http://127.0.0.1:{free_port()}/stages", compare=True)
    assert result.out == result.plain
    assert time.monotonic() - begin < 60
    (warning,) = result.warnings
    assert "out of use for this run: cannot list http://127.0.0.1" in warning


READ = """
import sys, time
from coffea_dirac.packs import Index
from coffea_dirac.stores import copies_of, open_store
store = open_store(sys.argv[1])
store.read("v1/nothing")
begin = time.perf_counter(), time.process_time()
index = Index(store, copies=copies_of(store))
index.refresh()
print(len(index), time.perf_counter() - begin[0], time.process_time() - begin[1])
"""


@on_each
@pytest.mark.long
def test_a_cold_index_of_100000_keys_is_read_in_seconds(place: str, tmp_path: Path) -> None:
    memory = MemoryStore()
    index = Index(memory)
    session = index.open_session()
    rows = []
    for number in range(100):
        of_pack = [
            Record(key=key(f"{number} {i}"), payload=b"x", codec="bytes", info={"stage": "s"}) for i in range(1000)
        ]
        rows += keep(memory, session, of_pack, f"w{number}")
    index.close_session(session, rows)
    store = open_store(place)
    for name, data in memory.blobs.items():
        store.create(name, data)
    for _ in range(2):  # far away, then from the copy near by
        command = [sys.executable, "-c", READ, place]
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
        n_keys, wall_s, cpu_s = map(float, done.stdout.split())
        print(f"{place}: {n_keys:.0f} keys in {wall_s:.2f} s, {cpu_s:.2f} s of CPU")
        assert n_keys == 100_000
        assert cpu_s < 2


@on_each
def test_the_doctor_finds_a_storage_sound_and_leaves_nothing_behind(place: str) -> None:
    result = CliRunner().invoke(app, ["doctor", place])
    assert result.exit_code == 0, result.output
    assert "a cache can be kept here" in result.output
    assert open_store(place).list() == []


def test_the_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "stages").write_text("in the way")
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "stages")])
    assert result.exit_code == 1
    assert "checks failed" in result.output
    # A table folds long lines.
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "stages"), "--json"])
    assert result.exit_code == 1
    assert "is a file" in json.loads(result.stdout)[-1]["problem"]


def test_the_doctor_knows_that_a_published_cache_is_only_read() -> None:
    result = CliRunner().invoke(app, ["doctor", "rucio://user.jdoe:ttbar-cache"])
    assert result.exit_code == 2
    assert "is only read: check the storage where its packs lie" in result.stderr


@on_each
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_ttbar_analysis_is_warm_from_a_storage_element(place: str, tmp_path: Path) -> None:
    inputs = generate(tmp_path / "data", files=1, events=2000, enriched=True)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[1])}

    def run(cache: str) -> tuple[dict[str, Any], Any]:
        output = tmp_path / f"output-{len(list(tmp_path.glob('output-*.json')))}"
        options = {
            "--inputs": inputs,
            "--cache": cache,
            "--output": output,
            "--workers": 1,
            "--summary": f"{output}.json",
        }
        command = [sys.executable, "-m", "agc_example.run", *(str(part) for pair in options.items() for part in pair)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        with uproot.open(output / "histograms.root") as file:
            values = {name: h.to_numpy(flow=True)[0].tobytes() for name, h in file.items(filter_classname="TH*")}
        return json.loads(Path(f"{output}.json").read_text()), values

    cold, histograms = run(place)
    n_items = cold["misses"]
    names = [blob.name for blob in open_store(place).list()]
    n_packs = sum(name.endswith(".pack") for name in names)
    warm, again = run(place)
    elsewhere, off = run("off")
    print(f"{place}: {n_items} work items, {n_packs} packs, {len(names) - n_packs} other objects")
    assert histograms
    assert histograms == again == off
    assert (warm["misses"], elsewhere["hits"]) == (0, 0)
    assert n_packs <= 2 * n_items
    assert len(names) - n_packs <= 6
