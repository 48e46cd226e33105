"""The command line of the ttbar example: what it writes, and what it says of input it cannot use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hist
import pytest
import typer
import uproot
from typer.testing import CliRunner

from agc_example import compare, make_reference, run
from agc_example.generate import generate
from agc_example.inputs import InputListError, fileset_from

ROOT = Path(__file__).parents[1]
NOMINAL = {"process": "ttbar", "variation": "nominal"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of few events of ttbar, of which none passes the selection."""
    return generate(tmp_path_factory.mktemp("data"), files=1, events=3, samples=[("ttbar", "nominal")])


def called(*options: Any) -> tuple[int, str]:
    """Return exit code and output of the command line, called in this process."""
    app = typer.Typer()
    app.command()(run.main)
    result = CliRunner().invoke(app, [*map(str, options)])
    return result.exit_code, " ".join(result.output.split())


def test_the_file_is_a_program_from_any_folder(inputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "agc_example" / "run.py"), "--inputs", str(inputs), "--output", "made"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command += ["--executor", "iterative"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "histograms.root").exists()


def test_no_selected_event_gives_no_plot_and_no_error(inputs: Path, tmp_path: Path) -> None:
    code, text = called("--inputs", inputs, "--executor", "iterative", "--output", tmp_path)
    assert code == 0, text
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.filterwarnings("ignore:Performed attempt")  # coffea's own executors try again
@pytest.mark.parametrize("executor", ["iterative", "dirac"])
@pytest.mark.parametrize(("name", "message"), [("gone.root", "No such file"), ("no.root", "received 5 bytes")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, executor: str, name: str, message: str) -> None:
    (tmp_path / "no.root").write_text("hello")
    listed = tmp_path / "inputs.json"
    listed.write_text(json.dumps({"a": {"files": [str(tmp_path / name)], "metadata": NOMINAL}}))
    code, text = called("--inputs", listed, "--executor", executor, "--cache", "off", "--output", tmp_path)
    assert code == 1
    said = text.partition("agc_example: ")[2]
    assert name in said
    assert message in said


@pytest.mark.filterwarnings("ignore:Performed attempt")
@pytest.mark.parametrize("executor", ["iterative", "dirac"])
def test_a_tree_that_is_not_there_is_named(inputs: Path, tmp_path: Path, executor: str) -> None:
    file = next(inputs.parent.rglob("*.root"))
    listed = tmp_path / "inputs.json"
    listed.write_text(json.dumps({"a": {"files": {str(file): "Evnets"}, "metadata": NOMINAL}}))
    code, text = called("--inputs", listed, "--executor", executor, "--cache", "off", "--output", tmp_path)
    assert code == 1
    said = text.partition("agc_example: ")[2]
    assert "Evnets" in said
    assert "Events" in said, "the trees that the file has"


def test_no_input_is_answered_with_two_calls_that_work(tmp_path: Path) -> None:
    code, text = called("--output", tmp_path)
    assert code == 1
    assert "--inputs" in text
    assert "--generate" in text


def test_the_tree_of_a_coffea_fileset_is_taken_in_each_of_its_forms(tmp_path: Path) -> None:
    path = tmp_path / "fileset.json"
    forms: list[tuple[dict[str, Any], str]] = [
        ({"files": ["a.root"]}, "Events"),
        ({"files": ["a.root"], "treename": "T"}, "T"),
        ({"files": {"a.root": "T"}}, "T"),
        ({"files": {"a.root": {"object_path": "T"}, "b.root": "T"}}, "T"),
        ({"files": {"a.root": None}}, "Events"),
    ]
    for form, tree in forms:
        path.write_text(json.dumps({"a": {**form, "metadata": NOMINAL}}))
        assert fileset_from(path)["a"]["treename"] == tree
    path.write_text(json.dumps({"a": {"files": {"a.root": "T", "b.root": "U"}, "metadata": NOMINAL}}))
    with pytest.raises(InputListError, match="the trees T, U"):
        fileset_from(path)


def test_some_files_of_a_coffea_fileset_are_not_held_against_the_events_of_all(tmp_path: Path) -> None:
    path = tmp_path / "fileset.json"
    path.write_text(json.dumps({"a": {"files": ["a.root", "b.root"], "metadata": {**NOMINAL, "nevts": 10}}}))
    assert "nevts" in fileset_from(path, files=2)["a"]["metadata"]
    assert "nevts" not in fileset_from(path, files=1)["a"]["metadata"]


@pytest.mark.parametrize(
    "samples", [{"nominal": {"nevts_total": 5}}, ["a.root"], {"nominal": {"files": [{"path": 1}]}}]
)
def test_a_list_that_is_nearly_the_agcs_is_answered_with_its_form(samples: Any, tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps({"ttbar": samples}))
    with pytest.raises(InputListError, match="has not the AGC's form"):
        fileset_from(path)


def test_comparing_exits_with_one_if_a_histogram_differs(tmp_path: Path) -> None:
    found = json.loads(make_reference.REFERENCE.read_text())
    changed = tmp_path / "histograms.json"
    found["4j1b_ttbar"]["contents"][10] *= 1.01
    changed.write_text(json.dumps(found))

    def code(*paths: Path) -> int:
        command = [sys.executable, "-m", "agc_example.compare", *map(str, paths)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False).returncode

    assert code(make_reference.REFERENCE, make_reference.REFERENCE) == 0
    assert code(changed, make_reference.REFERENCE) == 1


def test_a_root_file_read_back_agrees_with_what_was_written(tmp_path: Path) -> None:
    one = json.loads(make_reference.REFERENCE.read_text())["4j2b_ttbar"]
    histogram = hist.Hist(hist.axis.Variable(one["edges"]), storage=hist.storage.Weight())
    histogram.view(flow=True)["value"], histogram.view(flow=True)["variance"] = one["contents"], one["variances"]
    with uproot.recreate(tmp_path / "histograms.root") as file:
        file["4j2b_ttbar"] = histogram
    assert compare.differences(compare.read(tmp_path / "histograms.root"), {"4j2b_ttbar": one}) == []
