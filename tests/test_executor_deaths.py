"""Workers that die: preempted ones blame nobody, a work item that kills its workers is named or halved."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Scenario

pytestmark = pytest.mark.core

WORKERS = "executor = DiracExecutor(**{'cache': 'cache', 'workers': 2, 'status': False, **options})"
CLIENT = (
    "from distributed import Client, LocalCluster\n"
    "        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)\n"
    "        executor = DiracExecutor(**{'cache': 'cache', 'client': Client(cluster), 'status': False, **options})"
)
CHUNKS = {"runner": {"chunksize": 10}}
ITEMS = 20
DRILL = """
        import os
        start = events.metadata["entrystart"]
        place = f"{events.metadata['filename']}:{start}"
        with open("ran.txt", "a") as f:
            f.write(f"{place} {len(events)}\\n")
        drill = os.environ.get("DRILL", "")
        if drill == f"kill {place}":
            os.kill(os.getpid(), 9)
        if drill == "kill each once" and not os.path.exists(f"killed-{place}"):
            open(f"killed-{place}", "w").close()
            os.kill(os.getpid(), 9)
        if drill == f"memory {events.metadata['filename']}" and start <= 50 < start + len(events) and len(events) > 3:
            raise MemoryError("no room")
        if drill == f"hungry {place}" and len(events) > 5:
            with open("killed.txt", "a") as f:
                f.write(f"{place}\\n")
            room = bytearray(os.urandom(1 << 20)) * 700
            import time
            end = time.monotonic() + 60
            while time.monotonic() < end:
                pass
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    found = Scenario(tmp_path)
    found.edit("analysis.py", "        jets = events.Jet[", DRILL + "        jets = events.Jet[")
    return found


def ran(scenario: Scenario) -> list[str]:
    return (scenario.folder / "ran.txt").read_text().splitlines()


@pytest.mark.parametrize("cache", ["cache", None])
def test_an_item_that_kills_its_worker_three_times_is_named_and_all_others_are_kept(
    scenario: Scenario, cache: str | None
) -> None:
    result = scenario.run(make=WORKERS, env={"DRILL": "kill one.root:60"}, cache=cache, **CHUNKS)
    assert result.error is not None
    assert result.error[0] == "ProcessingError"
    assert "3 workers died" in result.error[1]
    assert "one.root, tree 'Events', entries 60 to 70 (dataset 'ttbar')" in result.error[1]
    assert sum(line.startswith("one.root:60 ") for line in ran(scenario)) == 3
    if cache:
        again = scenario.run(**CHUNKS, compare=True)
        assert (again.hits, again.misses) == (ITEMS - 1, 1)
        assert again.out == pytest.approx(again.plain, rel=1e-12)


def test_with_a_client_of_the_users_it_is_named_too(scenario: Scenario) -> None:
    result = scenario.run(make=CLIENT, env={"DRILL": "kill two.root:0"}, timeout=240, **CHUNKS)
    assert result.error is not None
    assert "3 workers died while they processed two.root, tree 'Events', entries 0 to 10" in result.error[1]


def test_preemptions_blame_nobody(scenario: Scenario) -> None:
    sound = scenario.run(cache=None, **CHUNKS)
    result = scenario.run(make=WORKERS, env={"DRILL": "kill each once"}, timeout=280, **CHUNKS)
    assert result.error is None
    assert result.out == sound.out
    assert result.misses == ITEMS


INLINE = "executor = DiracExecutor(**{'cache': 'cache', 'inline': True, 'status': False, **options})"


@pytest.mark.parametrize("make", [INLINE, WORKERS], ids=["inline", "workers"])
def test_an_item_without_enough_memory_is_halved_and_not_kept(scenario: Scenario, make: str) -> None:
    sound = scenario.run(cache=None, runner={"chunksize": 25})
    result = scenario.run(make=make, env={"DRILL": "memory one.root"}, runner={"chunksize": 25})
    assert result.error is None
    assert result.out == pytest.approx(sound.out, rel=1e-6)
    assert result.misses == 8
    assert any(
        "one.root, entries 50 to 75 (ttbar): it ran out of memory, so it was processed in halves" in n
        for n in result.notes
    )
    again = scenario.run(runner={"chunksize": 25})
    assert again.out == sound.out
    assert (again.hits, again.misses) == (7, 1)
    assert scenario.run(runner={"chunksize": 25}).counts["loaded"] == 1


def test_a_worker_above_its_memory_limit_ends_and_the_item_is_halved(scenario: Scenario) -> None:
    make = (
        "from coffea_dirac import DiracCluster\n"
        "        cluster = DiracCluster(2, memory_limit=700 << 20)\n"
        "        executor = DiracExecutor(**{'cache': 'cache', 'cluster': cluster, 'status': False, **options})"
    )
    sound = scenario.run(cache=None, **CHUNKS)
    result = scenario.run(make=make, env={"DRILL": "hungry one.root:60"}, timeout=280, **CHUNKS)
    assert result.error is None
    assert result.out == pytest.approx(sound.out, rel=1e-6)
    assert any("one.root, entries 60 to 70 (ttbar): workers died that used" in note for note in result.notes)
