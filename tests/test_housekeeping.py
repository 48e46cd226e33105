"""A cache stays within its quota; what goes is what was not used for longest, and never what may be needed now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore
from scenario import Scenario
from typer.testing import CliRunner

from coffea_dirac import StageCache, packs
from coffea_dirac.cli import app
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.housekeeping import contents, drop, remove, size_bytes, too_old
from coffea_dirac.interfaces import Record, Row, Store
from coffea_dirac.stores import open_store

pytestmark = pytest.mark.core
DAY = 86400.0


def session(store: Store, sizes: list[int], *, tag: str, used: list[Row] = [], close: bool = True) -> list[Row]:  # noqa: B006
    """Keep records of these sizes, one in each pack, and say which earlier ones were used."""
    index = packs.Index(store)
    name = index.open_session()
    rows: list[Row] = []
    for n, size in enumerate(sizes):
        writer = packs.PackWriter(store, name, f"w{n}")
        writer.add(Record(f"{tag}{n}".encode().hex().ljust(64, "0"), bytes(size), "bytes", info={"stage": tag}))
        rows += writer.close()
    if close:
        index.close_session(name, rows, used=used)
    return rows


def keys(store: Store) -> set[str]:
    index = packs.Index(store)
    index.refresh()
    return {row.key for row in index}


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_bytes(s) for s in ("1kB", "2 MiB", "3GB", "7", 12)] == [1000, 2 << 20, 3 * 10**9, 7, 12]
    for wrong in ("much", "-3 GB", "", None, "3 XB"):
        with pytest.raises(ConfigurationError, match="is no size"):
            size_bytes(wrong)  # type: ignore[arg-type]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = session(store, [10_000, 10_000], tag="first")
    second = session(store, [10_000], tag="second")
    third = session(store, [], tag="third", used=[first[1]])
    assert third == []
    found = contents(store)
    going = too_old(found, found.size_bytes // 2)
    assert going[0] == first[0].pack
    remove(store, found, going[:2])
    assert keys(store) == {first[1].key}
    assert second[0].pack in going


def test_a_session_that_may_still_run_is_let_be_and_a_dead_one_is_not(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = session(store, [1000], tag="open", close=False)
    assert too_old(contents(store), 0) == []
    found = contents(store, now_s=time.time() + 8 * DAY)
    assert too_old(found, 0) == [rows[0].pack]
    remove(store, found, [rows[0].pack])
    assert store.list("v1/") == []


def test_sessions_that_kept_nothing_do_not_pile_up(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = session(store, [100], tag="kept")
    for n in range(60):
        session(store, [], tag=f"idle{n}", used=rows)
    found = contents(store)
    remove(store, found, [])
    left = contents(store)
    assert len(left.blobs) == 51
    assert left.used_s == found.used_s
    assert keys(store) == {rows[0].key}


@given(
    st.lists(st.lists(st.integers(0, 4000), max_size=4), min_size=1, max_size=6),
    st.integers(0, 12_000),
    st.integers(0, 10_000),
)
def test_the_quota_is_kept_and_no_more_goes_than_has_to(sizes: list[list[int]], quota: int, seed: int) -> None:
    store = MemoryStore()
    rows: list[Row] = []
    for n, these in enumerate(sizes):
        used = [row for i, row in enumerate(rows) if (seed >> i) % 2]
        rows += session(store, these, tag=f"s{n}", used=used)
    found = contents(store)
    going = too_old(found, quota)
    sizes_of = {name: blob.size_bytes for name, blob in found.packs.items()}
    left = found.size_bytes - sum(sizes_of[name] for name in going)
    assert left <= quota or set(going) == set(found.packs)
    if going:
        assert found.size_bytes > quota
        assert left + sizes_of[going[-1]] > 0.9 * quota
    stays = [found.used_s[name] for name in found.packs if name not in going]
    assert all(found.used_s[name] <= min(stays, default=float("inf")) for name in going)
    remove(store, found, going)
    assert keys(store) == {row.key for row in rows if row.pack not in going}


def test_dropping_a_record_keeps_its_neighbours(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    index = packs.Index(store)
    name = index.open_session()
    writer = packs.PackWriter(store, name, "w")
    for i in range(5):
        writer.add(Record(f"{i:064x}", bytes([i]) * 50, "bytes", info={"stage": "s", "n": i}))
    rows = writer.close()
    index.close_session(name, rows)
    drop(store, rows[1:3])
    later = packs.Index(store)
    later.refresh()
    found = packs.read(store, list(later))
    assert {row.key: payload for row, payload in found.items()} == {f"{i:064x}": bytes([i]) * 50 for i in (0, 3, 4)}
    assert {row.info["n"] for row in later} == {0, 3, 4}
    assert later.problems == []


def test_a_run_keeps_its_quota_and_what_it_just_used(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    make = (
        "from coffea_dirac import StageCache\n"
        "        cache = StageCache('cache', quota=options.pop('quota'))\n"
        "        executor = DiracExecutor(cache=cache, inline=True, status=False)"
    )
    scenario.run(make=make, quota="1 GB", runner={"chunksize": 5})
    folder = tmp_path / "cache" / "v1"
    full = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    scenario.edit("helper.py", "30", "20")
    second = scenario.run(make=make, quota=int(full * 1.5), runner={"chunksize": 5}, compare=True)
    assert second.out == pytest.approx(second.plain, rel=1e-12)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= full * 1.5
    third = scenario.run(make=make, quota="1 GB", runner={"chunksize": 5})
    assert (third.misses, third.out) == (0, second.out)


def test_the_environment_sets_the_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert StageCache(tmp_path).quota_bytes == 20 * 10**9
    monkeypatch.setenv("COFFEA_DIRAC_CACHE_QUOTA", "3 GB")
    assert StageCache(tmp_path).quota_bytes == 3 * 10**9
    assert StageCache(tmp_path, quota=None).quota_bytes is None
    with pytest.raises(ConfigurationError, match="is no size"):
        StageCache(tmp_path, quota="lots")


# ------------------------------------------------------------------------------------------------------ commands


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = Scenario(tmp_path_factory.mktemp("cli"))
    scenario.run()
    scenario.edit("helper.py", "30", "25")
    scenario.run()
    return scenario.folder / "cache"


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["cache", *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


def test_ls_and_du_say_what_is_there(cache: Path) -> None:
    (stage,) = run("ls", "--cache", str(cache), "--json")
    assert (stage["stage"], stage["work_items"], stage["events"]) == ("Analysis", 8, 400)
    assert stage["merged"] >= 2
    by_dataset = {row["dataset"]: row for row in run("du", "--by", "dataset", "--cache", str(cache), "--json")}
    assert by_dataset["ttbar"]["records"] == by_dataset["wjets"]["records"] == 4
    assert "Analysis" in run("ls", "--cache", str(cache))
    assert "of 20.0 GB" in run("du", "--cache", str(cache))


def test_show_says_everything_of_a_record(cache: Path) -> None:
    index = packs.Index(open_store(cache))
    index.refresh()
    row = next(row for row in index if row.info.get("dataset") == "ttbar")
    (found,) = run("show", row.key[:16], "--cache", str(cache), "--json")
    assert (found["key"], found["file"], found["start"]) == (row.key, "one.root", row.info["start"])
    assert ["file", "weights.json"] in [i[:2] for i in found["inputs"]]
    assert "weights.json" in run("show", row.key[:16], "--cache", str(cache))


def test_explain_says_what_was_edited(cache: Path) -> None:
    first, second = run("explain", "Analysis", "--cache", str(cache), "--json")
    assert first["changes"] == ["first run"]
    assert "`30` became `25`" in " ".join(second["changes"])


def test_verify_finds_damage_and_removes_it(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    first = scenario.run()
    place = str(tmp_path / "cache")
    assert run("verify", "--cache", place, "--json")["damaged"] == []
    pack = max((tmp_path / "cache").glob("v1/s/*/p/b*.pack"))
    data = bytearray(pack.read_bytes())
    data[300] ^= 1
    pack.write_bytes(data)
    (damaged,) = run("verify", "--cache", place, "--json", code=1)["damaged"]
    assert damaged["pack"].endswith(pack.name)
    run("verify", "--cache", place, "--delete", code=1)
    assert run("verify", "--cache", place, "--json")["damaged"] == []
    again = scenario.run()
    assert again.out == first.out


def test_gc_says_what_would_go_and_does_it(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.run()
    place = str(tmp_path / "cache")
    would = run("gc", "--quota", "1 kB", "--dry-run", "--cache", place, "--json")
    assert would["packs"] > 0
    assert run("gc", "--cache", place, "--json")["packs"] == 0
    did = run("gc", "--quota", "1 kB", "--cache", place, "--json")
    assert did["packs"] == would["packs"]
    assert did["left_bytes"] < 1000
    assert scenario.run().misses == 4


def test_rm_removes_a_stage_a_key_or_everything(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    first = scenario.run()
    place = str(tmp_path / "cache")
    index = packs.Index(open_store(place))
    index.refresh()
    row = next(row for row in index if row.info.get("dataset") == "ttbar")
    assert run("rm", row.key[:20], "--cache", place, "--json") == {"removed": 1}
    again = scenario.run()
    assert (again.misses, again.out) == (1, first.out)
    run("rm", "Analysis", "--cache", place)
    assert run("ls", "--cache", place, "--json") == []
    assert scenario.run().misses == 4
    run("rm", "--all", "--cache", place)
    assert not list((tmp_path / "cache").glob("v1/**/*.pack"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "zz"], "no record's key begins"),
        (["explain", "Nobody"], "no stage 'Nobody'"),
        (["du", "--by", "colour"], "none of stage, dataset, session"),
        (["gc", "--quota", "lots"], "is no size"),
        (["rm"], "say what to remove"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cache: Path, arguments: list[str], words: str) -> None:
    said = run(*arguments, "--cache", str(cache), code=2)
    assert words in said
    assert len(said.strip().splitlines()) == 1


def test_the_command_is_installed_and_uses_the_users_cache(cache: Path) -> None:
    env = {**os.environ, "COFFEA_DIRAC_CACHE": str(cache)}
    for command in (["-m", "coffea_dirac"],):
        done = subprocess.run(
            [sys.executable, *command, "cache", "ls", "--json"],
            env=env, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)[0]["stage"] == "Analysis"
    off = subprocess.run(
        [sys.executable, "-m", "coffea_dirac", "cache", "ls"],
        env={**env, "COFFEA_DIRAC_CACHE": "off"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert off.returncode == 2
    assert "--cache PATH" in off.stderr
