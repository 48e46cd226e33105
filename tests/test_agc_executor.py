"""The ttbar histograms are equal to the bit for one worker and two, cold and warm, and after kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agc_example.generate import generate
from agc_example.inputs import fileset_from
from agc_example.run import Result, analyse
from coffea_dirac import DiracExecutor, open_store
from coffea_dirac.packs.pack import read_footer

CHUNKSIZE, ITEMS = 500, 36


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("data"), files=2, events=1000, enriched=True)


def run(inputs: Path, cache: Path | None, workers: int) -> Result:
    executor = DiracExecutor(cache=cache, workers=workers, status=False)
    return analyse(fileset_from(inputs), executor=executor, chunksize=CHUNKSIZE)


@pytest.fixture(scope="module")
def sound(inputs: Path) -> Result:
    executor = DiracExecutor(cache=None, inline=True, status=False)
    return analyse(fileset_from(inputs), executor=executor, chunksize=CHUNKSIZE)


def assert_equal_to_the_bit(one: dict[str, Any], two: dict[str, Any]) -> None:
    for region, histogram in one["hist_dict"].items():
        other = two["hist_dict"][region]
        assert histogram.axes == other.axes
        for part in ("value", "variance"):
            assert np.array_equal(histogram.view(flow=True)[part], other.view(flow=True)[part])
    assert one["events"] == two["events"]


@pytest.mark.parametrize("workers", [1, 2])
def test_cold_and_warm_are_equal_to_the_bit(inputs: Path, sound: Result, workers: int, tmp_path: Path) -> None:
    cold, warm = run(inputs, tmp_path, workers), run(inputs, tmp_path, workers)
    assert cold.report.work_items == {"hits": 0, "misses": ITEMS}
    assert warm.report.work_items == {"hits": ITEMS, "misses": 0}
    assert_equal_to_the_bit(cold.out, sound.out)
    assert_equal_to_the_bit(warm.out, sound.out)


def workers_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children(recursive=True) if is_worker(p)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return any("start_worker" in part for part in process.cmdline())
    except psutil.Error:
        # It has ended since it was listed.
        return False


def test_a_worker_killed_in_the_middle_changes_nothing(inputs: Path, sound: Result, tmp_path: Path) -> None:
    executor = DiracExecutor(cache=tmp_path, workers=2, status=False)
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            report = executor.report
            if report is not None and report.work_items["misses"] >= 4:
                for victim in workers_of(os.getpid())[:1]:
                    os.kill(victim.pid, signal.SIGKILL)
                    killed.append(victim.pid)
                    return
            threading.Event().wait(0.01)

    thread = threading.Thread(target=kill_one)
    thread.start()
    result = analyse(fileset_from(inputs), executor=executor, chunksize=CHUNKSIZE)
    thread.join()
    assert killed
    assert_equal_to_the_bit(result.out, sound.out)
    assert sum(result.report.work_items.values()) == ITEMS


def published(cache: Path) -> int:
    """Return how many work items a cache holds; what the submitter wrote is about the template."""
    if not cache.is_dir():
        return 0
    store = open_store(str(cache))
    packs = [blob.name for blob in store.list("v1/s") if blob.name.endswith(".pack")]
    tables = [read_footer(store, name) for name in packs if "/submitter-" not in name]
    facts = [table.row(i).info for table in tables for i in range(len(table))]
    return sum(info["stage"] == "TtbarAnalysis" and "merged" not in info for info in facts)


def test_after_a_killed_run_the_rest_is_computed_and_no_worker_is_left(
    inputs: Path, sound: Result, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "agc_example.run", "--inputs", str(inputs), "--chunksize", str(CHUNKSIZE)]
    command += ["--workers", "2", "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    root = Path(__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if published(tmp_path / "cache") >= 0.6 * ITEMS:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            break
        threading.Event().wait(0.02)
    process.wait(30)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert family
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    kept = published(tmp_path / "cache")
    assert 0.6 * ITEMS <= kept < ITEMS
    rerun = run(inputs, tmp_path / "cache", 2)
    assert rerun.report.work_items == {"hits": kept, "misses": ITEMS - kept}
    assert_equal_to_the_bit(rerun.out, sound.out)


def test_the_command_line_writes_histograms_plots_and_a_summary(inputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agc_example.run", "--inputs", str(inputs), "--executor", "iterative"]
    command += ["--files", "1", "--output", str(tmp_path), "--summary", str(tmp_path / "run.json")]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, timeout=240)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["events"] == 9000
    assert {Path(p).name for p in facts["written"]} >= {"histograms.root", "4j1b.png", "4j2b.png"}
    assert (tmp_path / "4j2b.png").stat().st_size > 10_000
