"""Run the ttbar analysis: ``python -m agc_example.run --help``."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

if __package__ in (None, ""):
    # Called by its path: the package is one folder up, here and at the workers.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agc_example.inputs import InputListError, fileset_from


class Executor(StrEnum):
    """Which executor of coffea's Runner to use."""

    dirac = "dirac"
    iterative = "iterative"
    futures = "futures"


@dataclass(frozen=True)
class Result:
    """What a run returned: merged output, the executor's report if it has one, and the seconds of the Runner's call."""

    out: dict[str, Any]
    report: Any
    wall_s: float


def analyse(
    fileset: dict[str, Any],
    *,
    executor: Any,
    use_ml: bool = False,
    chunksize: int = 200_000,
    processor_class: Any = None,
    skipbadfiles: bool = False,
) -> Result:
    """Run the analysis over a fileset and return what came of it."""
    from coffea import processor
    from coffea.nanoevents import NanoAODSchema

    from agc_example.analysis import TtbarAnalysis

    NanoAODSchema.warn_missing_crossrefs = False
    run = processor.Runner(
        executor=executor, schema=NanoAODSchema, chunksize=chunksize, metadata_cache={}, skipbadfiles=skipbadfiles
    )
    analysis = (processor_class or TtbarAnalysis)(use_ml=use_ml)
    started = time.perf_counter()
    out = run(fileset, analysis, treename="Events")
    return Result(out, getattr(run.executor, "report", None), time.perf_counter() - started)


def executor_for(kind: Executor, *, workers: int | None, cache: str | None, status: bool = True) -> Any:
    """Return the executor of the given kind."""
    from coffea import processor

    from coffea_dirac import DiracExecutor

    if kind is Executor.iterative:
        return processor.IterativeExecutor(status=status)
    if kind is Executor.futures:
        return processor.FuturesExecutor(workers=workers or 1, status=status)
    if cache is None:
        return DiracExecutor(workers=workers, status=status)
    return DiracExecutor(cache=None if cache == "off" else cache, workers=workers, status=status)


def finish(result: Result, fileset: dict[str, Any], folder: Path) -> list[Path]:
    """Normalise the histograms, write them to ``histograms.root`` and draw them; return the files written."""
    from agc_example import output

    events = result.out["events"]
    output.check_complete(fileset, events, result.report)
    regions = {name: output.normalised(h, events) for name, h in result.out["hist_dict"].items()}
    features = {name: output.normalised(h, events) for name, h in result.out.get("ml_hist_dict", {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    output.write_root(regions, folder / "histograms.root")
    written = [folder / "histograms.root"]
    if features:
        output.write_root(features, folder / "histograms_ml.root")
        written.append(folder / "histograms_ml.root")
    return written + output.plot_regions(regions, folder)


def main(  # noqa: PLR0913, PLR0917 - a command line is its options
    inputs: Annotated[
        Path | None, typer.Option(help="The AGC's own list of inputs, or a coffea fileset, as JSON.")
    ] = None,
    generate: Annotated[int | None, typer.Option(help="Make data first: so many events in each file.")] = None,
    executor: Annotated[Executor, typer.Option(help="Which executor to use.")] = Executor.dirac,
    files: Annotated[int | None, typer.Option(help="At most so many files of each sample.")] = None,
    chunksize: Annotated[int, typer.Option(help="Events in a work item.")] = 200_000,
    ml: Annotated[bool, typer.Option(help="Also run the jet assignment by a boosted decision tree.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one for each core.")] = None,
    cache: Annotated[str | None, typer.Option(help="Where results are kept; 'off' for nowhere.")] = None,
    skip_bad_files: Annotated[
        bool, typer.Option(help="Leave unreadable files out; nothing is normalised then.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Where histograms and plots go.")] = Path("agc_output"),
    summary: Annotated[Path | None, typer.Option(help="Write what the run did to this JSON file.")] = None,
) -> None:
    """Run the AGC ttbar analysis and write histograms and plots."""
    from rich.console import Console
    from uproot.exceptions import KeyInFileError

    from agc_example.output import IncompleteSampleError
    from coffea_dirac import CoffeaDiracError

    console = Console()
    try:
        if generate is not None:
            inputs = _generated(output / "data", files or 1, generate)
        if inputs is None:
            raise InputListError("no input: name a list with --inputs LIST.json, or make data with --generate 10000")
        fileset = fileset_from(inputs, files=files)
        chosen = executor_for(executor, workers=workers, cache=cache)
        result = analyse(fileset, executor=chosen, use_ml=ml, chunksize=chunksize, skipbadfiles=skip_bad_files)
        if result.report is not None:
            console.print(str(result.report), highlight=False, soft_wrap=True)
        written = finish(result, fileset, output)
    except (InputListError, IncompleteSampleError, CoffeaDiracError, OSError, KeyInFileError) as error:
        # coffea's own executors let the errors of reading pass as they are.
        console.print(f"[red]agc_example:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    for path in written:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if summary is not None:
        summary.write_text(json.dumps(facts(result, written), indent=1) + "\n")


def facts(result: Result, written: list[Path]) -> dict[str, Any]:
    """Return what a run did, as JSON values; a work item counts as computed if there is no report."""
    report = result.report
    events = sum(result.out["events"].values())
    found: dict[str, Any] = {"events": events, "wall_s": round(result.wall_s, 3), "written": list(map(str, written))}
    if report is not None:
        items = report.work_items
        found |= {"work_items": sum(items.values()), **items, "reasons": report.reasons}
        seconds = sum(outcome.seconds for outcome in report.computed if not outcome.work_items)
        found |= {"stages": report.stages, "stage_reasons": report.stage_reasons, "stage_s": round(seconds, 3)}
    return found


def _generated(folder: Path, files: int, events: int) -> Path:
    from agc_example.generate import generate

    found: Path = generate(folder, files=files, events=events)
    return found


if __name__ == "__main__":
    typer.run(main)
