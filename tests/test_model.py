"""The executor against a model of it: random filesets, edits, failures, interrupts and damage, one run after the other."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from model import Ran, Step, World, content, mild_steps, plain, steps, take

from coffea_dirac.errors import ProcessingError

pytestmark = pytest.mark.core


def check(world: World, step: Step, run: Ran) -> None:
    """Compare a run with the model, and let the model know what it kept."""
    if not world.options.get("workers"):
        check_what_was_executed(world, run)
    if run.caught is None:
        check_success(world, step, run)
    else:
        check_failure(world, step, run)


def check_what_was_executed(world: World, run: Ran) -> None:
    missing = Counter(item.place for item in run.items if item.key not in world.kept)
    whole = {item.place for item in run.items}
    done = Counter(place for place in run.executed if place in whole)
    assert done <= missing, "something was computed that was kept, or computed twice"
    halves = [place for place in run.executed if place not in whole]
    assert not halves or run.halved in run.raised, "something was computed that nobody asked for"


def check_success(world: World, step: Step, run: Ran) -> None:
    report = run.report
    skipped = run.raised & run.failing
    present = [item for item in run.items if item.place not in skipped]
    lacking = {(item.dataset, item.number) for item in run.items if item.place in skipped}
    lacking |= {(name, step.broken) for name, files in step.datasets.items() if step.broken in files}
    surely = [item for item in run.items if item.key not in world.kept | world.doubtful]
    missing = [item for item in run.items if item.key not in world.kept]
    if not world.options.get("workers"):
        assert step.skips or not skipped, "a failure was swallowed"
        assert run.failing & {item.place for item in surely} <= run.raised, "what fails was not tried"
    assert report.complete == (not lacking)
    assert {
        (name, int(Path(file).stem)) for name, about in report.missing.items() for file in about["files"]
    } == lacking
    n_skipped = len(run.items) - len(present)
    hits, misses = report.work_items["hits"], report.work_items["misses"]
    assert hits + misses == len(present)
    assert len(surely) - n_skipped <= misses <= len(missing) - n_skipped
    assert report.events == sum(map(len, present))
    assert run.is_empty == (not present)
    if present:
        check_values(world, step, run, present)
    is_halved = run.halved in run.raised
    # What was damaged before may have been loaded merged: nobody has seen then whether its own record is sound.
    seen = [item for item in present if item.place in run.executed or item.key not in world.doubtful]
    world.kept |= {item.key for item in seen if not (is_halved and item.place == run.halved)}


def check_values(world: World, step: Step, run: Ran, present: list[Any]) -> None:
    values, *metrics = run.out if step.savemetrics else (run.out,)
    expected, *plain_metrics = plain(world, step, run) if step.savemetrics else (plain(world, step, run),)
    columns = [(item, *content(item.number, world.content[item.number])) for item in present]
    assert values["n"] == sum(map(len, present))
    assert values["ids"] == sum(int(ids[item.start : item.stop].sum()) for item, _, ids in columns)
    total = sum(x[item.start : item.stop].sum() * item.place[2] * step.version for item, x, _ in columns)
    assert values["sum"] == pytest.approx(total, rel=1e-9)
    assert values["versions"] == {step.version}
    if run.halved in run.raised:
        assert values["sum"] == pytest.approx(expected["sum"], rel=1e-12)
    else:
        assert values == expected, "not equal to the last bit"
    if metrics:
        assert metrics[0]["entries"] == plain_metrics[0]["entries"]
        assert set(metrics[0]["columns"]) == set(plain_metrics[0]["columns"])


def check_failure(world: World, step: Step, run: Ran) -> None:
    report, caught = run.report, run.caught
    assert not report.complete
    assert report.missing
    partial = getattr(caught, "partial_output", None) or {"n": 0, "ids": 0}
    in_doubt = any(item.key in world.doubtful for item in run.items)
    if isinstance(caught, KeyboardInterrupt) or step.errors == "collect":
        assert partial["n"] == report.events
    if step.errors == "collect" and isinstance(caught, ProcessingError) and not in_doubt:
        present = [item for item in run.items if item.place not in run.failing or item.key in world.kept]
        assert report.events == sum(map(len, present))
        ids = [content(i.number, world.content[i.number])[1][i.start : i.stop] for i in present]
        assert partial["ids"] == sum(int(part.sum()) for part in ids)
    executed = run.executed
    if isinstance(caught, KeyboardInterrupt):
        # What was executed less than 0.3 s before, in the bundle in hand, is lost.
        n = report.work_items["misses"] if len({item.place for item in run.items}) == len(run.items) else 0
        executed = executed[:n] if run.halved not in run.raised else []
        world.doubtful |= {item.key for item in run.items if item.place in run.executed} - world.kept
    world.kept |= {item.key for item in run.items if item.place in executed}


def run_sequence(sequence: list[Step], **options: Any) -> None:
    folder = Path(tempfile.mkdtemp())
    sys.path.insert(0, str(folder))
    try:
        world = World(folder, **options)
        for step in sequence:
            note(str(step))
            run = take(world, step)
            if run is not None:
                check(world, step, run)
    finally:
        sys.path.remove(str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def profile(n: int) -> Any:
    # Not shrunk: sequences are short, and a run of one takes a second.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    return settings(max_examples=n, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))


# Damaged records beside a work item in halves: what is read to be added in this process turns out to be unreadable.
_QCD = Step(datasets={"qcd": [0, 2, 4]})
_HALVED = [replace(_QCD, stops_after=5), replace(_QCD, memory=5, damage=("all packs", 136)), _QCD, _QCD]


@profile(25)
@example(_HALVED)
@given(steps)
def test_the_executor_does_what_its_model_does(sequence: list[Step]) -> None:
    run_sequence(sequence)


@profile(4)
@given(mild_steps)
def test_the_executor_with_workers_does_what_its_model_does(sequence: list[Step]) -> None:
    run_sequence(sequence, workers=2, inline=False)


@pytest.mark.long
@pytest.mark.timeout(3000)
@profile(500)
@given(steps)
def test_the_executor_does_what_its_model_does_at_length(sequence: list[Step]) -> None:
    run_sequence(sequence)


@pytest.mark.long
@pytest.mark.timeout(3000)
@profile(60)
@given(mild_steps)
def test_the_executor_with_workers_does_what_its_model_does_at_length(sequence: list[Step]) -> None:
    run_sequence(sequence, workers=2, inline=False)
