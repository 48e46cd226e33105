"""A run that is interrupted, watched from another thread, or that meets errors, loses nothing that is finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scenario import Scenario

pytestmark = pytest.mark.core

ITEMS = 20
WAIT = """
        import os, time
        place = f"{events.metadata['filename']}:{events.metadata['entrystart']}"
        with open("ran.txt", "a") as f:
            f.write(f"{place}\\n")
        end = time.monotonic() + 100
        while os.environ.get("WAIT_AT") == place and time.monotonic() < end and not os.path.exists("go.txt"):
            os.path.exists("keep looking")
        if place in os.environ.get("FAIL_AT", "").split():
            raise ValueError(f"no luck at {place}")
"""
SCRIPT = """
import json, os, signal, sys, threading
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor
import analysis
NanoAODSchema.warn_missing_crossrefs = False
options = json.loads(sys.argv[1])
executor = DiracExecutor(cache="cache", status=False, **options)
run = processor.Runner(executor=executor, chunksize=10, schema=NanoAODSchema)
fileset = json.loads(sys.argv[2])
def watch():
    while not os.path.exists("look.txt"):
        pass
    seen = executor.partial()
    with open("partial.json", "w") as f:
        json.dump(seen, f)
    open("go.txt", "w").close()
if "--watch" in sys.argv:
    threading.Thread(target=watch, daemon=True).start()
try:
    out, how = run(fileset, analysis.Analysis(), treename="Events"), "returned"
except BaseException as error:
    out, how = getattr(error, "partial_output", "nothing"), type(error).__name__
report = run.executor.report
print("RESULT " + json.dumps({"out": out, "how": how, "items": report.work_items, "complete": report.complete,
      "missing": report.missing, "events": report.events, "after": executor.partial()}))
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    found = Scenario(tmp_path)
    found.edit("analysis.py", "        jets = events.Jet[", WAIT + "        jets = events.Jet[")
    found.write("script.py", SCRIPT)
    return found


def start(scenario: Scenario, *more: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    arguments = [sys.executable, "script.py", json.dumps(options), json.dumps(scenario.fileset), *more]
    return subprocess.Popen(
        arguments,
        cwd=scenario.folder,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Any, deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"


def ran(scenario: Scenario) -> list[str]:
    path = scenario.folder / "ran.txt"
    return path.read_text().split() if path.exists() else []


def result_of(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=100)
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    assert lines, err
    return json.loads(lines[-1].removeprefix("RESULT ")), err


@pytest.mark.parametrize("options", [{"inline": True}, {"workers": 2}], ids=["inline", "workers"])
def test_ctrl_c_keeps_and_returns_what_is_finished_and_says_how_to_go_on(
    scenario: Scenario, options: dict[str, Any]
) -> None:
    sound = scenario.run(cache=None, runner={"chunksize": 10})
    (scenario.folder / "ran.txt").unlink()
    # The last one: no other waits behind it in a bundle.
    process = start(scenario, env={"WAIT_AT": "two.root:90"}, **options)
    wait_for(lambda: "two.root:90" in ran(scenario))
    if "workers" in options:
        wait_for(lambda: len(ran(scenario)) == ITEMS)
    process.send_signal(signal.SIGINT)
    result, err = result_of(process)
    assert result["how"] == "KeyboardInterrupt"
    assert "run the same again to go on with the rest" in err
    done = result["items"]["misses"]
    assert 10 <= done < ITEMS
    assert result["out"]["n"] == result["events"] == 10 * done
    assert not result["complete"]
    assert "two.root" in result["missing"]["wjets"]["files"]
    (scenario.folder / "ran.txt").unlink()
    again = scenario.run(runner={"chunksize": 10})
    assert again.out == sound.out
    assert again.hits >= done
    assert len(ran(scenario)) == again.misses == ITEMS - again.hits


def test_ctrl_c_in_the_middle_of_a_bundle_keeps_its_first_part(scenario: Scenario) -> None:
    process = start(scenario, env={"WAIT_AT": "two.root:20"}, inline=True)
    wait_for(lambda: "two.root:20" in ran(scenario))
    process.send_signal(signal.SIGINT)
    result, _ = result_of(process)
    assert result["items"]["misses"] == 12
    assert result["out"]["n"] == 120
    again = scenario.run(runner={"chunksize": 10})
    assert again.hits == 12


def test_after_ctrl_c_the_report_counts_what_the_partial_output_holds_also_when_records_are_damaged(
    scenario: Scenario,
) -> None:
    for place in ("two.root:0", "two.root:20"):
        process = start(scenario, env={"WAIT_AT": place}, inline=True)
        wait_for(lambda place=place: place in ran(scenario))
        process.send_signal(signal.SIGINT)
        result, _ = result_of(process)
        for pack in (scenario.folder / "cache").rglob("*.pack"):
            sound = pack.read_bytes()
            pack.write_bytes(sound[:40] + bytes(len(sound) - 40))
    assert result["items"] == {"hits": 10, "misses": 2}
    assert result["out"]["n"] == result["events"] == 20
    assert sorted(result["missing"]) == ["ttbar", "wjets"]


def test_what_is_finished_can_be_had_while_the_run_goes_on(scenario: Scenario) -> None:
    process = start(scenario, "--watch", env={"WAIT_AT": "two.root:0"}, inline=True)
    wait_for(lambda: "two.root:0" in ran(scenario))
    (scenario.folder / "look.txt").touch()
    result, _ = result_of(process)
    partial = json.loads((scenario.folder / "partial.json").read_text())
    assert partial["n"] == 100
    assert result["how"] == "returned"
    assert result["out"]["n"] == 200
    assert result["after"] is None


@pytest.mark.parametrize("options", [{"inline": True}, {"workers": 2}], ids=["inline", "workers"])
def test_errors_are_collected_after_all_else_is_done(scenario: Scenario, options: dict[str, Any]) -> None:
    env = {"FAIL_AT": "one.root:20 two.root:90"}
    make = f"executor = DiracExecutor(cache='cache', status=False, errors='collect', **{options})"
    result = scenario.run(make=make, env=env, runner={"chunksize": 10})
    assert result.error is not None
    assert result.error[0] == "ProcessingError"
    assert "2 work items failed; all others are done and kept" in result.error[1]
    assert "no luck at one.root:20" in result.error[1]
    assert "no luck at two.root:90" in result.error[1]
    assert len(ran(scenario)) == ITEMS
    assert result.misses == ITEMS - 2
    assert sorted(result.missing) == ["ttbar", "wjets"]
    (scenario.folder / "ran.txt").unlink()
    mended = scenario.run(runner={"chunksize": 10}, compare=True)
    assert (mended.hits, mended.misses) == (ITEMS - 2, 2)
    assert mended.out == pytest.approx(mended.plain, rel=1e-12)


def test_the_error_holds_what_all_others_merge_to(scenario: Scenario) -> None:
    process = start(scenario, env={"FAIL_AT": "one.root:20"}, inline=True, errors="collect")
    result, _ = result_of(process)
    assert result["how"] == "ProcessingError"
    assert result["out"]["n"] == result["events"] == 190


def test_by_default_the_first_error_stops_the_run(scenario: Scenario) -> None:
    process = start(scenario, env={"FAIL_AT": "one.root:20"}, inline=True)
    result, _ = result_of(process)
    assert (result["how"], len(ran(scenario))) == ("ProcessingError", 3)
