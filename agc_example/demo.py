"""``make demo``: the ttbar analysis three times, each in a new process: cold, warm, and after a one-line edit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agc_example.edits import EDITS

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "output"
SHARED_DATA = HERE.parent.parent / "shared" / "data"
FILES, EVENTS, CHUNKSIZE = 2, 140_000, 35_000
"""Files of each of the 9 samples, events in each, and events in a work item."""
EDIT = ("BINS, LOW, HIGH = 25, 50.0, 550.0", "BINS, LOW, HIGH = 50, 50.0, 550.0")
EDIT_EVENTS = 30_000
"""Events of each sample in the table of edits."""
REAL_FILE = "nano_tt_v12.root"

console = Console()


def main() -> None:
    """Run the demo and write ``output/summary.json``."""
    say("emptying agc_example/output")
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    inputs = make_data()
    edited = edited_copy()
    root = HERE.parent
    runs = [run("cold", root, inputs), run("warm", root, inputs), run("edited", edited, inputs)]
    on_real_file = []
    if (SHARED_DATA / REAL_FILE).exists():
        real = real_inputs()
        on_real_file = [run("real file, cold", root, real), run("real file, warm", root, real)]
    else:
        say("no folder of real files beside the checkout: that part is left out")
    edited_rows = edit_table()
    summary = {
        "runs": [numbers(one) for one in runs],
        "real_file": [numbers(one) for one in on_real_file],
        "edits": edited_rows,
    }
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    show([*runs, *on_real_file])
    say_fit(OUTPUT / "cold" / "histograms.root")
    show_edits(edited_rows)
    say("done; the same numbers are in agc_example/output/summary.json")


def numbers(one: dict[str, Any]) -> dict[str, Any]:
    """Return what the summary keeps of a run."""
    return {name: one[name] for name in ("name", "work_items", "hits", "misses", "events", "wall_s")}


def say(text: str) -> None:
    """Say what is done now."""
    console.print(f"[bold]demo:[/bold] {text}", highlight=False, soft_wrap=True)


def make_data() -> Path:
    """Generate the input files and return the list of them."""
    from rich.progress import Progress

    from agc_example.generate import generate

    say(f"generating {FILES} files of {EVENTS:,} events for each of 9 samples")
    with Progress(console=console) as progress:
        bar = progress.add_task("Generating", total=9 * FILES)
        found: Path = generate(OUTPUT / "data", files=FILES, events=EVENTS, progress=lambda: progress.advance(bar))
    return found


def edited_copy() -> Path:
    """Copy the analysis, change the binning in the copy, and return the folder to import it from."""
    folder = OUTPUT / "edited_copy"
    shutil.copytree(HERE, folder / "agc_example", ignore=shutil.ignore_patterns("output", "__pycache__", "reference"))
    module = folder / "agc_example" / "analysis.py"
    text = module.read_text()
    if text.count(EDIT[0]) != 1:
        raise SystemExit(f"demo: {module} has no single line {EDIT[0]!r} to edit; change EDIT in {__file__}")
    module.write_text(text.replace(*EDIT))
    return folder


def real_inputs() -> Path:
    """Return a fileset with a real NanoAOD file, as the ttbar sample."""
    path = OUTPUT / "real_inputs.json"
    dataset = {
        "files": [str(SHARED_DATA / REAL_FILE)],
        "treename": "Events",
        "metadata": {"process": "ttbar", "variation": "nominal"},
    }
    path.write_text(json.dumps({"ttbar__nominal": dataset}))
    return path


def run(name: str, root: Path, inputs: Path) -> dict[str, Any]:
    """Run the analysis found below `root` in a new process and return what it did."""
    folder = OUTPUT / name.replace(", ", "_").replace(" ", "_")
    folder.mkdir()
    say({"edited": f"edited run: `{EDIT[0]}` became `{EDIT[1]}`"}.get(name, f"{name} run"))
    options = {
        "--inputs": inputs,
        "--cache": OUTPUT / "cache",
        "--output": folder,
        "--chunksize": CHUNKSIZE,
        "--summary": folder / "run.json",
    }
    command = [sys.executable, "-m", "agc_example.run", "--ml", *(str(x) for pair in options.items() for x in pair)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, cwd=root, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"demo: the {name} run failed (exit {done.returncode}); the message is above")
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return {"name": name, **found}


def show(runs: list[dict[str, Any]]) -> None:
    """Print the table of runs and where the plots are."""
    table = Table(title="The same analysis, run again", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("run", "work items", "loaded", "computed", "seconds"):
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in runs:
        why = "\n".join(f"{n} {reason}" for reason, n in one["reasons"]) or ""
        counts = (f"{one['work_items']}", f"{one['hits']}", f"{one['misses']}")
        table.add_row(one["name"], *counts, f"{one['wall_s']:.1f}", why)
    console.print(table)
    for one in runs[:3]:
        for path in one["written"]:
            if path.endswith(".png"):
                console.print(f"  {Path(path).relative_to(HERE.parent)}", highlight=False, soft_wrap=True)


def say_fit(histograms: Path) -> None:
    """Fit the cross section of ttbar to the pseudodata, and say what came out."""
    from agc_example.fit import FitError, fit

    try:
        say(f"fit to pseudodata: {fit(histograms)}")
    except FitError as error:
        say(f"no fit: {error}")


def edit_table() -> list[dict[str, Any]]:
    """Run the analysis after each of the usual edits, on less data, and return a row for each."""
    from agc_example.edits import DisagreementError, rows
    from agc_example.generate import generate

    say(f"{len(EDITS)} edits, each of a copy and in a new process, on {EDIT_EVENTS:,} events of each sample")
    inputs = generate(OUTPUT / "edit_data", files=1, events=EDIT_EVENTS)
    try:
        return rows(OUTPUT / "edits", inputs, chunksize=EDIT_EVENTS // 3, say=lambda name: say(f"  {name}"))
    except DisagreementError as error:
        raise SystemExit(f"demo: {error}") from error


def show_edits(edited: list[dict[str, Any]]) -> None:
    """Print what each edit cost; the stages themselves counted how often they ran."""
    table = Table(title="What an edit costs", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("edit", "stages: loaded", "computed", "cut", "ran", "stages s", "run s"):
        table.add_column(heading, justify="left" if heading == "edit" else "right", no_wrap=True)
    for row in edited:
        numbers = (row["loaded"], row["computed"], row["cut"], row["executions"])
        table.add_row(row["edit"], *map(str, numbers), f"{row['stage_s']:.1f}", f"{row['wall_s']:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
