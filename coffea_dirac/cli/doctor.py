"""``coffea-dirac doctor STORE``: whether a storage does what a cache needs; ``--site``: what a job finds there."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from coffea_dirac.cli.output import errors_in_one_line, say, say_json, show
from coffea_dirac.dirac.diracx import DiracxJobs
from coffea_dirac.errors import ConfigurationError, StoreError
from coffea_dirac.interfaces import Store
from coffea_dirac.stores import open_store
from coffea_dirac.stores.contract import CHECKS, Check
from coffea_dirac.worker.probe import probe_job, probe_site

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]


def doctor(
    place: Annotated[str, typer.Argument(metavar="STORE", help="A directory or URL where a cache shall be.")] = "",
    site: Annotated[str, typer.Option(help="A DIRAC site: run one short job there, and tell what it finds.")] = "",
    file: Annotated[str, typer.Option(help="With --site: a ROOT file to open there.")] = "",
    environment: Annotated[str, typer.Option(help="With --site: as of DiracCluster.")] = "",
    timeout: Annotated[float, typer.Option(help="With --site: seconds to wait for the job.")] = 1800.0,
    as_json: AsJson = False,
) -> None:
    """Check a storage: write, read, list and delete below STORE, in a folder that is removed again. Or check a site."""
    with errors_in_one_line():
        if site:
            job = probe_job(site, environment=environment, file=file, store=place)
            with DiracxJobs() as jobs:
                checks = probe_site(jobs, job, timeout_s=timeout)
            say_json(checks) if as_json else show([{**row, "problem": row["problem"] or "ok"} for row in checks])
            raise typer.Exit(int(any(row["problem"] for row in checks)))
        if not place:
            raise ConfigurationError("what shall be checked? coffea-dirac doctor STORE, or --site NAME")
        root = open_store(place).url
        if root.startswith("rucio://"):
            raise ConfigurationError(f"what is published as {root} is only read: check the storage where its packs lie")
        found = []
        for number, check in enumerate(CHECKS):
            found.append(_checked(f"{root}/doctor-{secrets.token_hex(8)}-{number}", check))
            if number == 1 and found[-1]["problem"]:
                # Whoever cannot be asked for a list will not do anything else.
                break
        if as_json:
            say_json(found)
        else:
            show([{**row, "problem": row["problem"] or "ok", "seconds": f"{row['seconds']:.2f}"} for row in found])
        n_failed = sum(1 for row in found if row["problem"])
        if not as_json:
            say(f"{root}: {f'{n_failed} checks failed' if n_failed else 'a cache can be kept here'}")
        if n_failed:
            raise typer.Exit(1)


def _checked(place: str, check: Check) -> dict[str, Any]:
    store, begin, problem = open_store(place), time.perf_counter(), ""
    try:
        check(store)
    except (AssertionError, StoreError) as error:
        problem = str(error)
    seconds = time.perf_counter() - begin
    with suppress(StoreError):
        _remove(store)
    return {"check": check.__name__.replace("_", " "), "problem": problem, "seconds": round(seconds, 3)}


def _remove(store: Store) -> None:
    for blob in store.list():
        store.delete(blob.name)
