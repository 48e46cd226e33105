"""What an edit costs: real edits of the analysis, each in a copy and a new process, on one cache.

Every copy notes each run of a stage in a file, from inside the stage: what the report says is compared with that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ADDED = "ttbar__PS_var"
"""The dataset that one of the edits adds."""
_EXECUTIONS = "AGC_EXECUTIONS"
_NOTE = '''"""Note each run of a stage, for a table that compares this with what the cache says."""

import os


def note(name: str) -> None:
    """Append a name to the file that the environment names."""
    place = os.open(os.environ["AGC_EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(place, f"{name}\\n".encode())
    os.close(place)
'''
_DOWN = '''

def pt_scale_down(events: Any) -> Any:
    """Return pt of all jets with the energy scale varied down, GeV."""
    return events.Jet.pt * (2.0 - PT_SCALE)
'''


class DisagreementError(RuntimeError):
    """The report and the stages themselves say different things of what ran."""


@dataclass(frozen=True)
class Edit:
    """One edit: what is done to a copy of the package, and to the fileset."""

    name: str
    change: Callable[[Path], None] = lambda folder: None
    adds_dataset: bool = False


def _text(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"edits: {file} has {old!r} {text.count(old)} times, not once; change it in {__file__}")
        (folder / file).write_text(text.replace(old, new))

    return change


def _another_model(folder: Path) -> None:
    path = folder / "models" / "even.json"
    model = json.loads(path.read_text())
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["split_conditions"] = [value * 1.3 for value in tree["split_conditions"]]
    path.write_text(json.dumps(model))


def _one_more_variation(folder: Path) -> None:
    _text("systematics.py", "\n\ndef pt_res_up(", f"{_DOWN}\n\ndef pt_res_up(")(folder)
    _text(
        "systematics.py", '"pt_scale_up": pt_scale_up,', '"pt_scale_up": pt_scale_up, "pt_scale_down": pt_scale_down,'
    )(folder)


EDITS = (
    Edit("nothing"),
    Edit(
        "comment", _text("selection.py", "    btag = field(", "    # Names differ between versions.\n    btag = field(")
    ),
    Edit("binning", _text("analysis.py", "BINS, LOW, HIGH = 25, ", "BINS, LOW, HIGH = 50, ")),
    Edit(
        "weight systematic",
        _text("systematics.py", "evaluate(kind, direction, pt)", "evaluate(kind, direction, 1.1 * pt)"),
    ),
    Edit("correction file content", _text("corrections.json", "1 + 0.0015*x", "1 + 0.002*x")),
    Edit("observable", _text("observables.py", "np.sqrt(px**2 + py**2)", "energy")),
    Edit("model file", _another_model),
    Edit("ML features", _text("ml.py", "MAX_JETS = 6", "MAX_JETS = 5")),
    Edit("add a dataset", adds_dataset=True),
    Edit("add a kinematic variation", _one_more_variation),
    Edit("selection cut", _text("selection.py", "PT_MIN = 30.0", "PT_MIN = 32.0")),
    Edit("undo"),
)
"""All on the same original; the last one is it again."""


def copy_of_package(folder: Path) -> Path:
    """Copy this package into `folder`, with a note of each run in each stage; return the copy."""
    target = folder / "agc_example"
    shutil.copytree(HERE, target, ignore=shutil.ignore_patterns("output", "__pycache__", "reference"))
    (target / "executions.py").write_text(_NOTE)
    module = target / "analysis.py"
    stage = re.compile(r'(@stage[^\n]*\ndef (\w+)\(.*?\) -> [^\n]*:\n    """.*?"""\n)', re.DOTALL)
    text, n = stage.subn(r'\1    note("\2")\n', module.read_text())
    if n < 8:
        raise SystemExit(f"edits: only {n} stages were found in {module}")
    module.write_text(
        text.replace(
            "from agc_example.observables", "from agc_example.executions import note\nfrom agc_example.observables", 1
        )
    )
    return target


def run(
    edit: Edit, folder: Path, inputs: Path, cache: Path, *, chunksize: int, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run the analysis after an edit in a new process and return what it did, by the report and by the stages.

    Raises
    ------
    DisagreementError
        The two differ.
    """
    edit.change(copy_of_package(folder))
    fileset = json.loads(inputs.read_text())
    if not edit.adds_dataset:
        process, _, variation = ADDED.partition("__")
        fileset[process].pop(variation, None)
    for variations in fileset.values():
        for sample in variations.values():
            for file in sample["files"]:
                file["path"] = str(inputs.parent / file["path"])
    chosen = folder / "inputs.json"
    chosen.write_text(json.dumps(fileset))
    executions = folder / "executions.txt"
    options = {"--inputs": chosen, "--cache": cache, "--output": folder / "out", "--summary": folder / "run.json"}
    command = [sys.executable, "-m", "agc_example.run", "--ml", "--chunksize", str(chunksize), *more]
    command += [str(part) for pair in options.items() for part in pair]
    environment = {**os.environ, _EXECUTIONS: str(executions), "PYTHONPATH": f"{folder}{os.pathsep}{HERE.parent}"}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"edits: the run after the edit {edit.name!r} failed:\n{done.stdout}\n{done.stderr}")
    facts = json.loads((folder / "run.json").read_text())
    counted = Counter(executions.read_text().split()) if executions.exists() else Counter[str]()
    computed = {name: n["computed"] for name, n in facts["stages"].items() if n["computed"]}
    if computed != dict(counted):
        raise DisagreementError(
            f"after the edit {edit.name!r} the report says that {computed} ran, and the stages say {dict(counted)}"
        )
    return {"edit": edit.name, "executions": sum(counted.values()), **_row(facts)}


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    kinds = ("loaded", "computed", "cut")
    return {
        "work_items": facts["work_items"],
        "hits": facts["hits"],
        **{kind: sum(n[kind] for n in facts["stages"].values()) for kind in kinds},
        "computed_stages": {name: n["computed"] for name, n in facts["stages"].items() if n["computed"]},
        "stage_s": facts["stage_s"],
        "wall_s": facts["wall_s"],
    }


def rows(folder: Path, inputs: Path, *, chunksize: int, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run the original on an empty cache and then every edit; return a row for each."""
    found = []
    for number, edit in enumerate((Edit("(empty cache)"), *EDITS)):
        say(edit.name)
        place = folder / f"{number:02d}"
        place.mkdir(parents=True)
        found.append(run(edit, place, inputs, folder / "cache", chunksize=chunksize))
    return found
