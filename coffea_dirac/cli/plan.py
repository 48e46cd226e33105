"""``coffea-dirac plan SCRIPT``: what a script would load and compute."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from coffea_dirac.cli.output import errors_in_one_line, say, say_json, show
from coffea_dirac.context import let
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.planning import ASKED, Forecast, Planned, Question


def plan(
    script: Annotated[Path, typer.Argument(help="A script that calls a Runner with DiracExecutor.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="The script's own arguments, after --.")] = None,
    templates: Annotated[bool, typer.Option(help="Call process() here, without data, to see its stages.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Run a script up to its first processing, and say what that would load and compute."""
    with errors_in_one_line():
        if not script.is_file():
            raise ConfigurationError(f"there is no script {script}: coffea-dirac plan analysis.py")
        found = _answer(script, arguments or [], Question(templates=templates))
        if as_json:
            say_json(_facts(found))
            return
        say(str(found))
        show([{"stage": name, "load": n["loaded"], "compute": n["computed"]} for name, n in found.stages.items()])
        of_items = [("items", n, reason) for reason, n in found.reasons if found.work_items["misses"]]
        of_stages = [("stages", n, reason) for reason, n in found.stage_reasons]
        show([{"compute": f"{n:,} {what}", "why": reason} for what, n, reason in [*of_items, *of_stages]])
        for text in found.notes:
            say(text)


def _answer(script: Path, arguments: list[str], question: Question) -> Forecast:
    argv, path = sys.argv, list(sys.path)
    sys.argv, sys.path[:] = [str(script), *arguments], [str(script.resolve().parent), *path]
    try:
        with let(ASKED, question):
            runpy.run_path(str(script), run_name="__main__")
    except Planned as planned:
        found: Forecast = planned.answer
        return found
    finally:
        sys.argv, sys.path[:] = argv, path
    raise ConfigurationError(
        f"{script} came to its end without a call of a Runner with DiracExecutor: nothing is to be planned. Give it "
        "the arguments with which it processes: coffea-dirac plan SCRIPT -- ARGUMENTS"
    )


def _facts(found: Forecast) -> dict[str, object]:
    return {
        "counts": found.counts,
        "work_items": found.work_items,
        "stages": found.stages,
        "reasons": dict(found.reasons),
        "stage_reasons": dict(found.stage_reasons),
        "seconds_saved": found.seconds_saved,
        "seconds_to_spend": found.seconds_to_spend,
        "not_estimated": found.not_estimated,
        "not_looked_up": found.not_looked_up,
        "notes": found.notes,
    }
