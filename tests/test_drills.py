"""Drills: full and read-only disks, directories that vanish, clocks that jump, many sessions at once, some killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenario import Scenario

from coffea_dirac import packs
from coffea_dirac.stores import open_store

CHUNKS = {"runner": {"chunksize": 5}}
ITEMS = 40
INLINE = "executor = DiracExecutor(**{'cache': 'cache', 'inline': True, 'status': False, **options})"
WORKERS = "executor = DiracExecutor(**{'cache': 'cache', 'workers': 2, 'status': False, **options})"
MAKES = pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path)


@pytest.fixture
def small_disk(scenario: Scenario) -> Iterator[Path]:
    """A file system of 40 kB below the scenario."""
    place = scenario.folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=20).returncode:
        pytest.skip("mounting a file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=20)


def check(scenario: Scenario, **options: Any) -> Any:
    result = scenario.run(compare=True, **CHUNKS, **options)
    assert result.error is None
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    assert len(result.warnings) <= 1, result.warnings
    return result


@MAKES
def test_a_disk_that_gets_full_costs_one_line(scenario: Scenario, small_disk: Path, make: str) -> None:
    result = check(scenario, make=make, cache=str(small_disk / "cache"))
    assert len(result.warnings) == 1
    assert "the disk is full" in result.warnings[0]
    again = check(scenario, make=make, cache=str(small_disk / "cache"))
    assert again.out == result.out
    assert again.hits > 0


@MAKES
def test_a_read_only_disk_is_read_and_costs_one_line(scenario: Scenario, small_disk: Path, make: str) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True, timeout=20)
    scenario.run(runner={"chunksize": 50}, cache=str(small_disk / "cache"))
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True, timeout=20)
    hit = scenario.run(runner={"chunksize": 50}, cache=str(small_disk / "cache"), compare=True)
    assert (hit.hits, hit.misses) == (4, 0)
    assert hit.out == pytest.approx(hit.plain, rel=1e-12)
    assert len(hit.warnings) == 1
    assert "read-only" in hit.warnings[0]
    miss = check(scenario, make=make, cache=str(small_disk / "cache"))
    assert miss.misses == ITEMS
    assert "read-only" in miss.warnings[0]


# Without its capabilities root is bound by permissions as everybody is; others have none to drop.
UNPRIVILEGED = """
import ctypes
assert ctypes.CDLL(None, use_errno=True).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
"""


@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["unwritable", "unreadable"])
def test_a_directory_without_permission_costs_one_line(scenario: Scenario, mode: int) -> None:
    place = scenario.folder / "cache"
    place.mkdir()
    place.chmod(mode)
    try:
        result = check(scenario, before=UNPRIVILEGED)
        assert result.misses == ITEMS
        assert len(result.warnings) == 1
        assert "you have no permission" in result.warnings[0]
    finally:
        place.chmod(0o700)
    assert not any(place.iterdir())


@MAKES
def test_a_file_in_place_of_the_directory_costs_one_line(scenario: Scenario, make: str) -> None:
    scenario.write("cache", "notes")
    result = check(scenario, make=make)
    assert len(result.warnings) == 1
    assert "is a file: name a directory" in result.warnings[0]
    assert (scenario.folder / "cache").read_text() == "notes"


VANISH = """
        import os, shutil
        if events.metadata["filename"] == "two.root" and events.metadata["entrystart"] == 0:
            if os.path.exists("vanish-now"):
                os.unlink("vanish-now")
                shutil.rmtree("cache")
"""


@MAKES
def test_a_directory_that_vanishes_in_the_middle_changes_nothing(scenario: Scenario, make: str) -> None:
    scenario.edit("analysis.py", "        jets = events.Jet[", VANISH + "        jets = events.Jet[")
    (scenario.folder / "vanish-now").touch()
    result = scenario.run(make=make, compare=True, **CHUNKS)
    assert result.error is None
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    assert not (scenario.folder / "vanish-now").exists()
    again = check(scenario, make=make)
    assert again.out == result.out


def test_a_thousand_damaged_records_cost_one_line(scenario: Scenario) -> None:
    first = check(scenario)
    for pack in (scenario.folder / "cache").glob("v1/s/*/p/*.pack"):
        pack.write_bytes(bytes(byte ^ 1 for byte in pack.read_bytes()))
    second = check(scenario)
    assert second.out == first.out
    assert second.misses == ITEMS
    assert len(second.warnings) == 1
    assert "Others like it" in second.warnings[0]
    third = check(scenario)
    assert (third.misses, third.out) == (0, first.out)


@MAKES
@pytest.mark.timeout(150)
def test_a_store_that_loses_all_it_takes_does_not_hold_up_the_run(scenario: Scenario, make: str) -> None:
    lose = """
        import pathlib
        for pack in pathlib.Path("cache").glob("v1/s/*/p/*.pack"):
            pack.unlink(missing_ok=True)
"""
    scenario.edit("analysis.py", "        jets = events.Jet[", lose + "        jets = events.Jet[")
    result = scenario.run(make=make, compare=True, timeout=100, **CHUNKS)
    assert result.error is None
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    assert result.complete


@pytest.mark.parametrize("days", [-400, 1])
def test_a_clock_that_jumps_between_runs_changes_nothing(scenario: Scenario, days: int) -> None:
    jump = f"import time; now = time.time; time.time = lambda: now() + {days * 86400}"
    first = check(scenario, before=jump)
    second = check(scenario)
    assert (second.misses, second.out) == (0, first.out)
    third = check(scenario, before=jump)
    assert (third.misses, third.out) == (0, first.out)


def test_a_clock_that_jumps_during_a_run_changes_nothing(scenario: Scenario) -> None:
    jump = (
        "import itertools, time; now = time.time; jumps = itertools.cycle([0, -1e7, 3e6, 1e8])\n"
        "time.time = lambda: now() + next(jumps)"
    )
    first = check(scenario, before=jump)
    assert (check(scenario).misses, check(scenario, before=jump).out) == (0, first.out)


# --------------------------------------------------------------------------------------------------- many at once


def at_once(scenario: Scenario, n: int, *, kill: int, seed: int) -> list[str]:
    """Start `n` sessions on one cache, kill some of them after a random part of their work; return what they said."""
    scenario.edit(
        "analysis.py",
        "        jets = events.Jet[",
        "        print('ITEM', flush=True)\n        jets = events.Jet[",
    )
    scenario.run(cache="unused", **CHUNKS)
    script = scenario.folder / "driver.py"
    script.write_text(script.read_text().replace('"cache": "unused"', '"cache": "shared"'))
    rng = random.Random(seed)
    running = [
        subprocess.Popen(
            [sys.executable, script.name],
            cwd=scenario.folder,
            env={**os.environ, "PYTHONHASHSEED": str(i), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(n)
    ]
    said = []
    for i, process in enumerate(running):
        assert process.stdout is not None
        if i < kill:
            for _ in range(rng.randrange(1, ITEMS)):
                if "RESULT" in process.stdout.readline():
                    break
            process.kill()
            process.wait(20)
            process.stdout.close()
        else:
            out, _ = process.communicate(timeout=250)
            said += [line.removeprefix("RESULT ") for line in out.splitlines() if line.startswith("RESULT ")]
    return said


def check_many(scenario: Scenario, n: int, *, kill: int, seed: int) -> None:
    sound = scenario.run(cache=None, **CHUNKS)
    said = at_once(scenario, n, kill=kill, seed=seed)
    assert len(said) == n - kill
    for line in said:
        result = json.loads(line)
        assert result["error"] is None
        assert result["out"] == sound.out
        assert result["warnings"] == []
    index = packs.Index(open_store(scenario.folder / "shared"))
    index.refresh()
    assert index.problems == []
    rows = list(index)
    assert len({row.key for row in rows if "merged" not in row.info and "stage" in row.info}) == ITEMS
    payloads = packs.read(open_store(scenario.folder / "shared"), rows)
    assert all(isinstance(payload, bytes) for payload in payloads.values())
    by_key: dict[str, set[str]] = {}
    for row in rows:
        if "stage" in row.info:
            by_key.setdefault(row.key, set()).add(row.digest)
    assert all(len(digests) == 1 for digests in by_key.values()), "two sessions kept different results under one key"
    last = scenario.run(cache="shared", **CHUNKS)
    assert (last.misses, last.out) == (0, sound.out)


def test_six_sessions_share_a_cache_while_two_are_killed(scenario: Scenario) -> None:
    check_many(scenario, 6, kill=2, seed=1)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_twenty_sessions_share_a_cache_while_some_are_killed(scenario: Scenario, seed: int) -> None:
    check_many(scenario, 20, kill=7, seed=seed)


def test_what_a_killed_session_has_finished_is_found_by_the_next(scenario: Scenario) -> None:
    stop = """
        import os
        if events.metadata["entrystart"] == 60 and events.metadata["filename"] == "two.root" and os.environ.get("DIE"):
            import time
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                pass
            os.kill(os.getpid(), 9)
"""
    scenario.edit("analysis.py", "        jets = events.Jet[", stop + "        jets = events.Jet[")
    with pytest.raises(AssertionError, match="exit -9"):
        scenario.run(env={"DIE": "yes"}, **CHUNKS)
    again = scenario.run(compare=True, **CHUNKS)
    assert again.hits >= 20
    assert again.hits + again.misses == ITEMS
    assert again.out == pytest.approx(again.plain, rel=1e-12)


def test_a_store_of_many_past_sessions_is_read_once(scenario: Scenario) -> None:
    for n in range(6):
        scenario.edit("helper.py", f"CUT = {30 + n}", f"CUT = {31 + n}")
        scenario.run()
    last = scenario.run()
    assert (last.misses, last.counts["loaded"]) == (0, 1)
