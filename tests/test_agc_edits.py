"""Edits of the ttbar analysis: each result is that of a run without cache, and only what the edit touches runs again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from agc_example import edits
from agc_example.generate import generate

EVENTS, CHUNKSIZE = 800, 400
EMPTY = edits.Edit("(empty cache)")
NAMES = [edit.name for edit in edits.EDITS]
# What may run again after an edit, and what must: rules that follow from what was edited.
MAY_RUN = {
    "nothing": set[str](),
    "comment": set[str](),
    "binning": {"filled", "filled_features"},
    "weight systematic": {"event_weights", "filled", "filled_features"},
    "correction file content": {"event_weights", "filled", "filled_features"},
    "observable": {"observable", "filled"},
    "model file": {"ml_best", "filled_features"},
    "ML features": {"ml_features", "ml_best", "filled_features"},
    "undo": set[str](),
}
MUST_RUN = {
    "binning": "filled",
    "weight systematic": "event_weights",
    "correction file content": "event_weights",
    "observable": "observable",
    "model file": "ml_best",
    "ML features": "ml_features",
    "selection cut": "selected",
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Session:
    """All edits, one after the other on one cache: their rows, and the folders with the edited copies."""

    rows: dict[str, dict[str, Any]]
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("edits")
    inputs = generate(root / "data", files=1, events=EVENTS, enriched=True)
    rows, folders = {}, {}
    for number, edit in enumerate((EMPTY, *edits.EDITS)):
        folders[edit.name] = root / str(number)
        folders[edit.name].mkdir()
        # Raises if the report and the stages themselves differ on what ran.
        rows[edit.name] = edits.run(edit, folders[edit.name], inputs, root / "cache", chunksize=CHUNKSIZE)
    return Session(rows, folders)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of contents and variances of each histogram that a run wrote."""
    found = {}
    for path in (folder / "histograms.root", folder / "histograms_ml.root"):
        with uproot.open(path) as file:
            for name, histogram in file.items(cycle=False):
                parts = histogram.values(flow=True), histogram.variances(flow=True), histogram.axis().edges(flow=True)
                found[f"{path.stem}/{name}"] = b"".join(np.asarray(part, dtype="<f8").tobytes() for part in parts)
    return found


def without_cache(folder: Path) -> dict[str, bytes]:
    """Run the edited copy in `folder` without cache, in a process with another hash seed."""
    out = folder / "without_cache"
    command = [sys.executable, "-m", "agc_example.run", "--ml", "--chunksize", str(CHUNKSIZE), "--cache", "off"]
    command += ["--inputs", str(folder / "inputs.json"), "--output", str(out)]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}",
        "PYTHONHASHSEED": "77",
        "AGC_EXECUTIONS": str(folder / "without_cache.txt"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return contents(out)


@pytest.mark.parametrize("name", [EMPTY.name, *NAMES])
def test_after_each_edit_every_histogram_equals_to_the_bit_that_of_a_run_without_cache(
    session: Session, name: str
) -> None:
    folder = session.folders[name]
    found, wanted = contents(folder / "out"), without_cache(folder)
    assert len(found) > 300
    assert found == wanted


@pytest.mark.parametrize("name", MAY_RUN)
def test_only_stages_that_depend_on_the_edited_thing_run_again(session: Session, name: str) -> None:
    row = session.rows[name]
    assert set(row["computed_stages"]) <= MAY_RUN[name]
    assert row["executions"] == row["computed"]


@pytest.mark.parametrize("name", MUST_RUN)
def test_the_stage_that_was_edited_runs_again_and_the_result_changes(session: Session, name: str) -> None:
    assert MUST_RUN[name] in session.rows[name]["computed_stages"]
    assert contents(session.folders[name] / "out") != contents(session.folders["nothing"] / "out")


def test_every_edit_is_of_some_rule() -> None:
    assert {*MAY_RUN, *MUST_RUN, "add a dataset", "add a kinematic variation"} == set(NAMES)


def test_a_new_dataset_runs_its_own_work_items_only(session: Session) -> None:
    row = session.rows["add a dataset"]
    added = row["work_items"] - session.rows["nothing"]["work_items"]
    assert added > 0
    assert row["hits"] == session.rows["nothing"]["work_items"]
    # A dataset that is a variation itself has one variation of the jets.
    assert row["computed_stages"]["selected"] == row["computed_stages"]["count"] == added


def test_a_new_kinematic_variation_selects_for_itself_only(session: Session) -> None:
    """Three variations of the jets in each nominal work item, one in the others: the new one is one in each nominal."""
    empty, row = session.rows[EMPTY.name]["computed_stages"], session.rows["add a kinematic variation"]
    nominal_items = (empty["selected"] - empty["count"]) // 2
    assert row["computed_stages"]["selected"] == nominal_items
    assert not {"count", "event_weights"} & set(row["computed_stages"])


def test_a_run_that_notes_less_than_the_report_says_is_refused(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "_NOTE", "def note(name):\n    pass\n")
    inputs = session.folders["nothing"].parent / "data" / "nanoaod_inputs.json"
    with pytest.raises(edits.DisagreementError, match="the stages say"):
        edits.run(EMPTY, tmp_path, inputs, tmp_path / "cache", chunksize=CHUNKSIZE)
