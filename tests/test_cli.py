"""The commands say what a cache holds, keep it in order, and refuse what they cannot understand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scenario import Scenario
from typer.testing import CliRunner

from coffea_dirac import packs
from coffea_dirac.cli import app
from coffea_dirac.stores import open_store

pytestmark = pytest.mark.core


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
    assert (stage["stage"], stage["versions"], stage["work_items"], stage["events"]) == ("Analysis", 2, 8, 400)
    assert stage["merged"] >= 2
    by_dataset = {row["dataset"]: row for row in run("du", "--by", "dataset", "--cache", str(cache), "--json")}
    assert by_dataset["ttbar"]["records"] == by_dataset["wjets"]["records"] == 4
    assert "Analysis" in run("ls", "--cache", str(cache))
    assert "of 20.0 GB" in run("du", "--cache", str(cache)).splitlines()[0]


@pytest.mark.parametrize("command", [["ls"], ["du"], ["verify"], ["gc", "--dry-run"]], ids=" ".join)
def test_a_command_without_another_argument_takes_the_place_as_it_is(cache: Path, command: list[str]) -> None:
    assert run(*command, str(cache), "--json") == run(*command, "--cache", str(cache), "--json")


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
    assert damaged["blob"].endswith(pack.name)
    run("verify", "--cache", place, "--delete", code=1)
    assert run("verify", "--cache", place, "--json")["damaged"] == []
    again = scenario.run()
    assert again.out == first.out


def test_verify_removes_blobs_that_are_torn(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    first = scenario.run()
    place = str(tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("v1/s/*/i/0.idx")
    pack = max((tmp_path / "cache").glob("v1/s/*/p/b*.pack"))
    for path in (index, pack):
        path.write_bytes(path.read_bytes()[:-20])
    torn = run("verify", "--delete", "--cache", place, "--json", code=1)["damaged"]
    assert {Path(found["blob"]).name for found in torn} == {index.name, pack.name}
    assert not index.exists()
    assert not pack.exists()
    assert run("verify", "--cache", place, "--json")["damaged"] == []
    again = scenario.run()
    assert (again.out, again.warnings) == (first.out, [])


def test_explain_says_what_became_of_a_key(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.run()
    place = str(tmp_path / "cache")
    index = packs.Index(open_store(place))
    index.refresh()
    kept, gone = [row for row in index if row.info.get("dataset") == "ttbar"]
    run("rm", gone.key, "--cache", place)
    assert run("explain", kept.key[:12], "--cache", place, "--json") == [{"key": kept.key, "state": "kept"}]
    ((state),) = run("explain", gone.key[:12], "--cache", place, "--json")
    assert "was kept in" in state["state"]
    assert "never computed" in run("explain", "0" * 12, "--cache", place, code=2)


KILLED = """
        import os, time
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            pass
        if events.metadata["filename"] == "two.root" and events.metadata["entrystart"]:
            os.kill(os.getpid(), 9)
"""


def test_gc_removes_what_only_a_killed_run_has_kept(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.run()
    scenario.edit("analysis.py", "        return {", KILLED + "        return {")
    with pytest.raises(AssertionError, match="exit -9"):
        scenario.run()
    place = str(tmp_path / "cache")
    dead = max((tmp_path / "cache" / "v1" / "s").iterdir())
    assert list(dead.glob("p/b*.pack"))
    assert run("gc", "--unreferenced", "--dry-run", "--cache", place, "--json")["packs"] == 0, "it may still run"
    for path in dead.rglob("*"):
        os.utime(path, (time.time() - 8 * 86400.0,) * 2)
    assert run("gc", "--unreferenced", "--cache", place, "--json")["packs"] >= 1
    assert not dead.exists()
    (stage,) = run("ls", "--cache", place, "--json")
    assert stage["work_items"] == 4


def test_gc_says_what_would_go_and_does_it(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.run()
    place = str(tmp_path / "cache")
    would = run("gc", "--quota", "1 kB", "--dry-run", "--cache", place, "--json")
    assert would["packs"] > 0
    assert run("gc", "--cache", place, "--json")["packs"] == 0
    did = run("gc", "--quota", "1 kB", "--cache", place, "--json")
    assert did["packs"] == would["packs"]
    assert did["left_bytes"] == sum(p.stat().st_size for p in (tmp_path / "cache" / "v1").rglob("*") if p.is_file())
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
    run("explain", "Analysis", "--cache", place)
    run("rm", "--all", "--cache", place)
    assert not (tmp_path / "cache" / "v1").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "zzzz"], "no record's key begins"),
        (["show", "a"], "give 4 digits or more"),
        (["rm", "0"], "give 8 digits or more"),
        (["rm", "Nobodies"], "no stage is called so"),
        (["explain", "Nobody"], "'Nobody' is no stage"),
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
    done = subprocess.run(
        [Path(sys.executable).with_name("coffea-dirac"), "cache", "--help"],
        env=env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert all(name in done.stdout for name in ("ls", "du", "show", "explain", "verify", "gc", "rm"))
    off = subprocess.run(
        [sys.executable, "-m", "coffea_dirac", "cache", "ls"],
        env={**env, "COFFEA_DIRAC_CACHE": "off"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert off.returncode == 2
    assert "--cache PATH" in off.stderr


def test_a_place_without_a_cache_is_said_to_be_none(tmp_path: Path) -> None:
    said = run("verify", "--cache", str(tmp_path / "typo"), code=2)
    assert "there is no" in said
    assert "typo" in said
    assert "nothing is kept" in run("ls", "--cache", str(tmp_path))
    (tmp_path / "file").write_text("notes")
    assert "is a file" in run("ls", "--cache", str(tmp_path / "file"), code=2)


def test_no_command_reads_a_pickle_or_runs_code_of_the_user(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    import cloudpickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read")

    for module in (pickle, cloudpickle):
        for name in ("load", "loads"):
            monkeypatch.setattr(module, name, refuse)
    monkeypatch.setitem(sys.modules, "analysis", None)
    for command in (["ls"], ["du"], ["verify"], ["explain", "Analysis"], ["gc", "--dry-run"]):
        run(*command, "--cache", str(cache), "--json")
