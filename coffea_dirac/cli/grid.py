"""``coffea-dirac grid``: a grid in a box, for trying things out."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

from coffea_dirac.cli.output import complain, errors_in_one_line, say, say_json, show, show_one
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.grid import box

grid_app = typer.Typer(
    help="A grid in a box: a real DiracX server and sites that run its jobs, on this machine.", no_args_is_help=True
)
Directory = Annotated[Path | None, typer.Option(help="Where the grid keeps everything.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]


@grid_app.command()
def up(
    site: Annotated[list[str] | None, typer.Option(help="NAME:SLOTS or NAME:SLOTS:TAG,TAG; may be repeated.")] = None,
    directory: Directory = None,
    heartbeat: Annotated[float, typer.Option(help="Seconds between heartbeats of jobs.")] = 2.0,
    access_minutes: Annotated[int | None, typer.Option(help="Life of access tokens.")] = None,
    lake: Annotated[bool, typer.Option(help="A data lake too: a Rucio server, and a storage at each site.")] = False,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="SCOPE:NAME=FILES for the lake, as in mc:ttbar=data/ttbar_*.root; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start it, and say where it is; one that runs already with these sites is shown."""
    with errors_in_one_line():
        place = (directory or box.default_directory()).resolve()
        datasets = dict(map(_dataset, dataset or ())) if lake or dataset else None
        found = box.up(place, site or None, heartbeat_s=heartbeat, access_minutes=access_minutes, lake=datasets)
        _tell(found, as_json=as_json)


@grid_app.command()
def status(directory: Directory = None, as_json: AsJson = False) -> None:
    """Show the grid that runs; exit code 1 if none does."""
    found = box.status((directory or box.default_directory()).resolve())
    if as_json:
        say_json(found)
    elif found:
        _tell(found, as_json=False)
    else:
        say("no grid runs: coffea-dirac grid up")
    if not found:
        raise typer.Exit(1)


@grid_app.command()
def down(directory: Directory = None) -> None:
    """End it, with all its processes and files."""
    with errors_in_one_line():
        left = box.down((directory or box.default_directory()).resolve())
    if left:
        complain(f"these processes would not end: {' '.join(map(str, left))}")
        raise typer.Exit(2)
    say("no grid runs")


def _dataset(text: str) -> tuple[str, list[str]]:
    """Return a dataset's name and files."""
    did, _, pattern = text.partition("=")
    files = sorted(glob(pattern))  # noqa: PTH207 - pathlib's takes no absolute pattern
    if ":" not in did or not files:
        raise ConfigurationError(f"--dataset {text}: write SCOPE:NAME=FILES with files that exist")
    return did, files


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    show_one({name: found[name] for name in ("diracx", "token_file", "vo", "user")})
    show([{"site": name, "slots": s["slots"], "tags": " ".join(s["tags"])} for name, s in found["sites"].items()])
    if "rucio" in found:
        show_one({name: found[name] for name in ("rucio", "rucio_account")})
        show([{"storage": rse, **facts} for rse, facts in found["storages"].items()])
        show([{"dataset": did} for did in found["datasets"]])
    for name, value in found.get("environment", {}).items():
        say(f"export {name}={value}")
    say(f"export DIRACX_URL={found['diracx']} DIRACX_CREDENTIALS_PATH={found['token_file']}")
