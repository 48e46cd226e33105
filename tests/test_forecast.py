"""What a plan says before a run is what the run then does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from coffea import processor
from stage_scene import Scene

from coffea_dirac import StageCache
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.stages.symbolic import Shape, Shapes

pytestmark = pytest.mark.core

PLAN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor, StageCache
import coffea_dirac.running.forecast
NanoAODSchema.warn_missing_crossrefs = False
import analysis
if len(sys.argv) > 2:
    coffea_dirac.running.forecast.DEADLINE_S = float(sys.argv[2])
cache = StageCache("cache")
run = processor.Runner(
    executor=DiracExecutor(cache=cache, status=False, inline=True), chunksize=50, schema=NanoAODSchema, savemetrics=True
)
fileset = {name: {"files": [f"{name}.root"], "metadata": {"xsec": x}} for name, x in (("ttbar", 1.0), ("wjets", 2.0))}
found = cache.plan(run, fileset, analysis.Analysis(), treename="Events", templates=sys.argv[1] == "on")
print("RESULT " + json.dumps({"counts": found.counts, "stages": found.stages, "reasons": found.stage_reasons,
    "items": found.work_items, "spend": found.seconds_to_spend, "saved": found.seconds_saved, "notes": found.notes,
    "unknown": found.not_looked_up, "not_estimated": found.not_estimated, "text": str(found)}))
"""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "plan.py").write_text(PLAN)
    return Scene(tmp_path)


def said(scene: Scene, *command: str, seed: int = 77) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=scene.folder,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout + done.stderr


def planned(scene: Scene, *arguments: str) -> dict[str, Any]:
    """Plan in a new process; no stage may run in it."""
    (scene.folder / "ran.txt").unlink(missing_ok=True)
    text = said(scene, "plan.py", *(arguments or ("on",)))
    assert not (scene.folder / "ran.txt").exists(), "a plan ran a stage"
    assert "RESULT " in text, text
    found: dict[str, Any] = json.loads(text.rpartition("RESULT ")[2].splitlines()[0])
    return found


def test_what_is_planned_is_what_is_then_computed_and_cut(scene: Scene) -> None:
    edits = [
        None,
        None,
        ("pt > 30", "pt > 25"),
        ("ak.num(up)", "2 * ak.num(up)"),
        ("events.Jet.pt > 25", "25 < events.Jet.pt"),  # the same bytes: what is below is cut
        ("* scale", "* 2 * scale"),
        ("# before", "# after"),
    ]
    for edit in edits:
        if edit:
            scene.edit(*edit)
        plan, run = planned(scene), scene.run("inline")
        ran = {name: n["computed"] + n["cut"] for name, n in run["stages"].items()}
        assert {name: n["computed"] for name, n in plan["stages"].items() if n["computed"]} == {
            name: n for name, n in ran.items() if n
        }
        assert plan["items"] == run["items"]
        assert plan["counts"]["computed"] == sum(ran.values()) + run["items"]["misses"]
        assert plan["unknown"] == 0


def test_stages_that_are_made_while_process_runs_are_planned_too(scene: Scene) -> None:
    text = (scene.folder / "analysis.py").read_text()
    text = text.replace("@stage\n", "").replace('ak.sum(up["pt"], axis=1)', 'float(ak.sum(up["pt"]))')
    scene.write("analysis.py", text)
    scene.edit("        # before\n", "        return {'sum': stage(b)(stage(a)(events))}\n")
    plan, run = planned(scene), scene.run("inline")
    assert run["ran"] == {"a": 4, "b": 4}
    assert plan["counts"]["computed"] == 8 + run["items"]["misses"]


def test_a_plan_names_the_reason_and_estimates_by_earlier_records(scene: Scene) -> None:
    first = planned(scene)
    assert first["not_estimated"] == ["a", "b", "c", "d", "y"]
    assert (first["spend"], first["saved"]) == (0, 0)
    scene.run("inline")
    whole = planned(scene)
    assert whole["saved"] > 0 == whole["spend"]
    scene.edit("pt > 30", "pt > 25")
    edited = planned(scene)
    assert edited["spend"] > 0
    assert edited["not_estimated"] == []
    assert edited["saved"] > 0
    assert any("`30` became `25`" in reason for reason, _ in edited["reasons"]), edited["reasons"]
    assert {reason for reason, _ in edited["reasons"] if reason.startswith("new input")} == {
        "new input: a",
        "new input: b",
    }


def test_whole_work_items_are_estimated_by_their_own_records_and_not_by_merges(scene: Scene) -> None:
    scene.edit('y(b(a(events)), d(c(events)), events.metadata["xsec"])', "float(ak.sum(events.Jet.pt))")
    assert planned(scene)["not_estimated"] == ["Analysis"]
    scene.run("inline")
    saved = planned(scene)["saved"]
    scene.edit("events.Jet.pt))", "events.Jet.eta))")
    edited = planned(scene)
    assert (edited["items"], edited["stages"], edited["saved"]) == ({"hits": 0, "misses": 4}, {}, 0)
    assert edited["spend"] == pytest.approx(saved) != 0


def test_a_new_argument_and_a_new_file_are_named_before_and_after_the_run(scene: Scene) -> None:
    scene.edit("def y(left, right, scale):", "def y(left, right, scale, table, shift):")
    scene.edit('events.metadata["xsec"])', 'events.metadata["xsec"], File("table.json"), 3)')
    scene.edit("import stage", "import File, stage")
    table = scene.folder / "table.json"
    table.write_text("1")
    scene.run("inline")
    table.write_text("2")
    assert dict(planned(scene)["reasons"]) == {"new content: table.json": 4}
    assert dict(scene.run("inline")["why"]) == {"new content: table.json": 4}
    scene.edit('File("table.json"), 3', 'File("table.json"), 4')
    assert dict(planned(scene)["reasons"]) == {"new argument: shift": 4}
    assert dict(scene.run("workers")["why"]) == {"new argument: shift": 4}


def test_a_process_that_asks_for_data_is_planned_by_work_items_only(scene: Scene) -> None:
    scene.edit("# before", "events.Jet.pt")
    found = planned(scene)
    assert found["unknown"] == 4
    assert found["stages"] == {}
    assert found["counts"]["computed"] == found["items"]["misses"] == 4
    assert "asks for data" in " ".join(found["notes"])


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ("", 2),
        ("events.metadata['entrystart']", 4),
        ("len(events) > 49", 2),
        ("events.metadata['filename']", 2),
        ("list(events.metadata)", 4),
    ],
)
def test_process_is_called_once_for_work_items_that_look_the_same_to_it(scene: Scene, line: str, calls: int) -> None:
    scene.run("inline")
    scene.edit("pt > 30", "pt > 25")
    scene.edit("# before", f"open('called.txt', 'a').write('x'); {line or 'pass'}")
    found = planned(scene)
    assert len((scene.folder / "called.txt").read_text()) == calls
    ran = scene.run("inline")
    assert {name: n["computed"] for name, n in found["stages"].items() if n["computed"]} == ran["ran"]
    assert ran["ran"] == {"a": 4, "b": 4, "y": 4}


def test_metadata_that_decide_what_process_calls_give_each_work_item_its_own_stages(scene: Scene) -> None:
    scene.edit("# before", "first = events.metadata['entrystart'] == 0")
    scene.edit("y(b(a(events)), d(c(events))", "y(b(a(events)), d(c(events)) if first else b(a(events))")
    found, ran = planned(scene), scene.run("inline")
    assert (
        {name: n["computed"] for name, n in found["stages"].items()}
        == ran["ran"]
        == {"a": 4, "b": 4, "c": 2, "d": 2, "y": 4}
    )


def test_a_shape_fits_where_all_that_was_asked_for_is_the_same() -> None:
    shape = Shape("source", {"xsec": "1"}, None, ())
    assert shape.fits({"xsec": "1", "more": "2"}.__getitem__, 7)
    assert not shape.fits({"xsec": "2"}.__getitem__, 7)
    assert not Shape("source", {"xsec": "unfingerprintable"}, None, ()).fits(lambda name: "unfingerprintable", 7)
    assert Shape("source", {}, 7, ()).fits(str, 7)
    assert not Shape("source", {}, 7, ()).fits(str, 8)


def test_the_last_shapes_of_a_group_are_tried_the_newest_first() -> None:
    shapes = Shapes()
    for n in range(6):
        shapes.add("ttbar", Shape(f"source {n}", {}, n if n < 5 else None, ()))
    found = [shapes.find("ttbar", str, n) for n in (4, 1)]
    assert [shape and shape.source for shape in found] == ["source 5", "source 5"]
    assert shapes.find("wjets", str, 4) is None
    only_counted = Shapes()
    for n in range(6):
        only_counted.add("ttbar", Shape(f"source {n}", {}, n, ()))
    assert only_counted.find("ttbar", str, 1) is None
    assert only_counted.find("ttbar", str, 2) is not None


def test_templates_can_be_switched_off(scene: Scene) -> None:
    scene.edit("# before", "ran('process')")
    found = planned(scene, "off")
    assert (found["unknown"], found["stages"]) == (4, {})
    assert "templates=False" in " ".join(found["notes"])


def test_user_code_that_hangs_does_not_hang_the_plan(scene: Scene) -> None:
    scene.edit("# before", "import threading; threading.Event().wait(60)")
    found = planned(scene, "on", "0.5")
    assert found["unknown"] == 4
    assert "took more than" in " ".join(found["notes"])


def test_what_process_does_to_the_processor_stays_in_the_copy(scene: Scene) -> None:
    scene.edit("# before", "self.seen = getattr(self, 'seen', 0) + 1")
    text = (scene.folder / "plan.py").read_text()
    text = text.replace("analysis.Analysis(), treename", "work, treename").replace(
        "found = ", "work = analysis.Analysis()\nfound = "
    )
    (scene.folder / "plan.py").write_text(text + "print('STATE', vars(work))\n")
    assert "STATE {}" in said(scene, "plan.py", "on")


def test_the_command_plans_a_script_and_processes_nothing(scene: Scene) -> None:
    scene.run("inline")
    scene.edit("pt > 30", "pt > 25")
    (scene.folder / "ran.txt").unlink()
    text = said(scene, "-m", "coffea_dirac", "plan", "--json", "driver.py", "--", "inline")
    found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert found["stages"]["a"] == {"loaded": 0, "computed": 4, "cut": 0}
    assert found["stages"]["d"] == {"loaded": 4, "computed": 0, "cut": 0}
    assert not (scene.folder / "ran.txt").exists()
    ran = scene.run("inline")
    assert found["counts"]["computed"] == sum(n["computed"] + n["cut"] for n in ran["stages"].values()) + 4


def test_the_command_says_that_a_script_processes_nothing(scene: Scene) -> None:
    (scene.folder / "empty.py").write_text("print('nothing')")
    assert "came to its end without a call" in said(scene, "-m", "coffea_dirac", "plan", "empty.py")
    assert "there is no script" in said(scene, "-m", "coffea_dirac", "plan", "absent.py")


def test_a_plan_for_another_executor_is_refused(tmp_path: Path) -> None:
    run = processor.Runner(executor=processor.IterativeExecutor())
    with pytest.raises(ConfigurationError, match="IterativeExecutor"):
        StageCache(tmp_path).plan(run, {}, lambda events: {}, treename="Events")
