"""The executor at worker processes: the same result everywhere, also when workers or the whole run are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from scenario import Scenario

from coffea_dirac.running.dispatch import bundle_size

pytestmark = pytest.mark.core

WORKERS = "executor = DiracExecutor(**{'cache': 'cache', 'workers': 2, 'status': False, **options})"
CLIENT = (
    "from distributed import Client, LocalCluster\n"
    "        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)\n"
    "        executor = DiracExecutor(**{'cache': 'cache', 'client': Client(cluster), 'status': False, **options})"
)
CHUNKS = {"runner": {"chunksize": 10}}
ITEMS = 20
# Notes which work item runs in which process, then does what a test asks for: kills this process, or the submitter.
DRILL = """
        import os
        place = f"{events.metadata['filename']}:{events.metadata['entrystart']}"
        sum(range(int(os.environ.get("DRILL_WORK", "0"))))
        with open("ran.txt", "a") as f:
            f.write(f"{place} {os.getpid()}\\n")
        if os.environ.get("DRILL") == f"worker at {place}" and not os.path.exists("killed.txt"):
            with open("killed.txt", "w") as f:
                f.write(str(os.getpid()))
            os.kill(os.getpid(), 9)
        if os.environ.get("DRILL") == f"submitter at {place}":
            with open("driver.pid") as f:
                os.kill(int(f.read()), 9)
            # Its own work is never done, so that something is missing however fast the others are.
            import threading
            threading.Event().wait(60)
"""
NOTE_PID = "open('driver.pid', 'w').write(str(os.getpid()))"


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    found = Scenario(tmp_path)
    found.edit("analysis.py", "        jets = events.Jet[", DRILL + "        jets = events.Jet[")
    return found


def test_a_processor_class_made_in_a_function_of_a_module_runs_at_workers(scenario: Scenario) -> None:
    text = (scenario.folder / "analysis.py").read_text()
    head, body = text.split("class Analysis", 1)
    indented = "\n".join(f"    {line}" if line else line for line in ("class Analysis" + body).splitlines())
    scenario.write("analysis.py", f"{head}def make():\n{indented}\n    return Analysis()\n\n\nAnalysis = make\n")
    first = scenario.run(make=WORKERS, **CHUNKS)
    assert (first.error, first.misses) == (None, ITEMS)
    again = scenario.run(make=WORKERS, **CHUNKS)
    assert (again.misses, again.out) == (0, first.out)


def ran(scenario: Scenario) -> list[str]:
    return [line.split()[0] for line in (scenario.folder / "ran.txt").read_text().splitlines()]


def with_mark(mark: str) -> list[int]:
    """Return the processes that inherited `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DRILL_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until_gone(mark: str, deadline_s: float = 15.0) -> list[int]:
    end = time.monotonic() + deadline_s
    while (left := with_mark(mark)) and time.monotonic() < end:
        psutil.wait_procs([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)], timeout=0.5)
    return left


@pytest.mark.parametrize("make", [WORKERS, CLIENT], ids=["default", "client"])
def test_workers_return_what_inline_returns_and_a_second_process_loads_it(scenario: Scenario, make: str) -> None:
    inline = scenario.run(cache="other", compare=True, **CHUNKS)
    cold = scenario.run(make=make, **CHUNKS)
    assert cold.error is None
    assert cold.out == inline.out
    assert inline.out == pytest.approx(inline.plain, rel=1e-12)
    assert cold.misses == ITEMS
    warm = scenario.run(make=make, **CHUNKS)
    assert (warm.hits, warm.out) == (ITEMS, cold.out)


def test_all_workers_get_work_also_where_none_steals_from_another(scenario: Scenario) -> None:
    # The first argument of every call lies at one of them, and dask itself would send all to that one.
    no_stealing = "import dask; dask.config.set({'distributed.scheduler.work-stealing': False})\n        "
    result = scenario.run(make=no_stealing + CLIENT, **CHUNKS)
    assert (result.error, result.misses) == (None, ITEMS)
    pids = [line.split()[1] for line in (scenario.folder / "ran.txt").read_text().splitlines()]
    assert len(set(pids)) == 2


@pytest.mark.parametrize("make", [WORKERS, CLIENT], ids=["default", "client"])
def test_an_edit_between_two_runs_of_one_session_is_seen_by_workers_that_live_on(scenario: Scenario, make: str) -> None:
    twice = (
        make + "\n"
        "        first = processor.Runner(executor=executor, **runner)(fileset, analysis.Analysis(), treename='Events')\n"
        "        import importlib, helper, pathlib\n"
        "        text = pathlib.Path('helper.py').read_text(); pathlib.Path('helper.py').write_text(text.replace('30', '10').replace('\\n\\n\\n', '\\n\\n\\n\\n'))\n"
        "        importlib.reload(helper)"
    )
    result = scenario.run(make=twice, compare=True, **CHUNKS)
    assert result.error is None
    assert result.misses == ITEMS
    assert result.out == pytest.approx(result.plain, rel=1e-12)


def test_a_killed_worker_costs_the_item_in_hand_and_changes_nothing(scenario: Scenario) -> None:
    sound = scenario.run(cache=None, **CHUNKS)
    (scenario.folder / "ran.txt").unlink()
    result = scenario.run(make=WORKERS, env={"DRILL": "worker at one.root:60", "DRILL_WORK": "20_000_000"}, **CHUNKS)
    assert (scenario.folder / "killed.txt").exists()
    assert result.error is None
    assert result.out == sound.out
    assert len(ran(scenario)) <= ITEMS + 2


def test_after_a_killed_run_only_what_was_missing_is_computed_and_no_worker_is_left(scenario: Scenario) -> None:
    sound = scenario.run(cache=None, **CHUNKS)
    (scenario.folder / "ran.txt").unlink()
    mark = uuid.uuid4().hex
    env = {"DRILL": "submitter at two.root:20", "DRILL_MARK": mark}
    with pytest.raises(AssertionError, match="exit -9"):
        scenario.run(make=WORKERS, before=NOTE_PID, env=env, **CHUNKS)
    assert wait_until_gone(mark) == []
    before = ran(scenario)
    (scenario.folder / "ran.txt").unlink()
    again = scenario.run(make=WORKERS, **CHUNKS)
    assert again.out == sound.out
    # Each of the two workers loses the bundle in its hands at most, which held a share of what was waiting.
    assert again.hits >= len(before) - 2 * bundle_size(ITEMS, slots=2, seconds_per_item=1.0)
    assert again.misses == len(ran(scenario)) == ITEMS - again.hits > 0


def test_a_full_hit_starts_no_process(scenario: Scenario) -> None:
    scenario.run(**CHUNKS)
    mark = uuid.uuid4().hex
    count = "import psutil; assert not psutil.Process().children(recursive=True), 'a worker was started'"
    result = scenario.run(
        make=WORKERS,
        env={"DRILL_MARK": mark},
        after=f"import atexit\natexit.register(lambda: print('CHILDREN'))\n{count}",
        **CHUNKS,
    )
    assert result.hits == ITEMS


def test_a_notebook_like_cell_hits_in_the_next_session(tmp_path: Path) -> None:
    """A class defined in ``__main__`` without a file that the worker could import, its source known to linecache only."""
    scenario = Scenario(tmp_path)
    cell = (
        "import linecache, sys\n"
        "def cell(n, text):\n"
        "    name = f'<cell-{n}>'\n"
        "    linecache.cache[name] = (len(text), None, text.splitlines(True), name)\n"
        "    exec(compile(text, name, 'exec'), sys.modules['__main__'].__dict__)\n"
        "{other}"
        "cell({n}, {text!r})\n"
    )
    text = (
        "from coffea import processor\nCUT = 30\nclass Cell(processor.ProcessorABC):\n    def process(self, events):\n"
        "        return {'n': len(events), 'pass': int((events.Jet.pt > CUT).pt.count() if False else ak_sum(events.Jet.pt > CUT))}\n"
        "    def postprocess(self, a):\n        return a\nimport awkward as ak\ndef ak_sum(x):\n    return ak.sum(x)\n"
    )
    first = scenario.run(make=WORKERS, processor="Cell()", before=cell.format(other="", n=1, text=text), compare=True)
    assert first.error is None
    assert first.out == first.plain
    assert first.misses == 4
    other = "cell(1, 'UNRELATED = 1')\n"
    again = scenario.run(
        make=WORKERS, processor="Cell()", before=cell.format(other=other, n=2, text="# comment\n" + text)
    )
    assert (again.hits, again.out) == (4, first.out)
    edited = scenario.run(
        make=WORKERS, processor="Cell()", before=cell.format(other="", n=1, text=text.replace("30", "20")), compare=True
    )
    assert edited.misses == 4
    assert edited.out == edited.plain != first.out


def test_two_sessions_at_once_both_return_the_right_result(scenario: Scenario) -> None:
    sound = scenario.run(cache=None, **CHUNKS)
    scenario.run(cache="unused", **CHUNKS)
    script = scenario.folder / "driver.py"
    script.write_text(script.read_text().replace('"cache": "unused"', '"cache": "shared"'))
    runs = [
        subprocess.Popen(
            [sys.executable, script],
            cwd=scenario.folder,
            env={**os.environ, "PYTHONHASHSEED": str(n)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in (1, 2)
    ]
    for process in runs:
        out, _ = process.communicate(timeout=120)
        assert f'"sum": {sound.out["sum"]}' in out
