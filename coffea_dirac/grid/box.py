"""Starts, shows and ends a grid in a box, from outside: what it needs is installed in an environment of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from coffea_dirac.errors import ConfigurationError, JobServiceError
from coffea_dirac.grid import lake as lakes
from coffea_dirac.grid.environments import ServerEnvironment
from coffea_dirac.grid.site import SiteOptions
from coffea_dirac.grid.supervised import DOWN_S, Supervised

SITES = ("LCG.Box-A.uk:1", "LCG.Box-B.uk:1")
UP_S = 240.0
ENVIRONMENT = ServerEnvironment(
    "a DiracX server", "COFFEA_DIRAC_GRID_PYTHON", ".venv-diracx", "requirements/diracx.lock"
)
NEEDED = (
    "git and an environment with a DiracX server:\n"
    "  python3 -m venv diracx && diracx/bin/pip install 'diracx-routers==0.7.*' 'diracx-api==0.7.*' "
    f"'diracx-testing==0.7.*' 'moto[s3,server]'\n  export {ENVIRONMENT.variable}=$PWD/diracx/bin/python"
)
LEAST_HEARTBEAT_S = 1.1
"""The server keeps one heartbeat of a job for each second."""


def default_directory() -> Path:
    """Return where the grid of this user is."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("coffea_dirac")) / "grid"


def server_python() -> Path:
    """Return the interpreter with a DiracX server's packages; a checkout installs them at the first time.

    Raises
    ------
    ConfigurationError
        There is none, and none can be made.
    """
    if not (os.environ.get(ENVIRONMENT.variable) or ENVIRONMENT.is_in_checkout):
        raise ConfigurationError(f"a grid in a box needs {NEEDED}")
    ENVIRONMENT.make()
    return ENVIRONMENT.python


def up(
    directory: Path,
    sites: Sequence[str] | None = None,
    *,
    heartbeat_s: float = 2.0,
    access_minutes: int | None = None,
    end_with: int | None = None,
    lake: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Start a grid unless it runs, and return what is to be known of it once jobs can come.

    Parameters
    ----------
    directory : Path
        Where it keeps everything; one grid for each directory, which is its own: new, empty, or what a grid has left.
    sites : sequence of str, optional
        ``NAME:SLOTS`` or ``NAME:SLOTS:TAG,TAG``; by default `SITES`, or what a grid that runs has.
    heartbeat_s : float
        How often jobs say that they are alive, and hear that they are to end; at least `LEAST_HEARTBEAT_S`.
    access_minutes : int, optional
        Life of access tokens.
    end_with : int, optional
        The id of a process with which the grid ends.
    lake : mapping, optional
        Start a data lake too, with these datasets: did -> paths of files; ``{}`` for small ones that are made here.

    Returns
    -------
    dict
        ``diracx``, ``token_file``, ``sites``, ``vo``, ``user``, ``directory``, ``pids``; with a lake also ``rucio``,
        ``rucio_account``, ``storages``, ``datasets``, ``environment``.

    Raises
    ------
    ConfigurationError
        An option is wrong, a grid with other sites or without a lake runs there, or there is no environment for a
        server.
    JobServiceError
        It did not come up.
    """
    wanted = _sites(SITES if sites is None else sites)
    if heartbeat_s < LEAST_HEARTBEAT_S or (access_minutes is not None and access_minutes < 1):
        raise ConfigurationError(f"heartbeats are {LEAST_HEARTBEAT_S} s apart at least, and tokens live for 1 minute")
    python = server_python()
    with _alone(directory):
        if found := status(directory):
            if sites is not None and found["sites"] != wanted:
                names = ", ".join(found["sites"])
                raise ConfigurationError(
                    f"a grid with other sites runs in {directory} ({names}): end it first, coffea-dirac grid down"
                )
            if lake is not None and "rucio" not in found:
                raise ConfigurationError(
                    f"a grid without a data lake runs in {directory}: end it first, coffea-dirac grid down"
                )
            return found
        down(directory)  # what a grid that was killed has left
        options = {"heartbeat_s": heartbeat_s, "access_minutes": access_minutes, "end_with": end_with}
        return _start(python, directory, {"sites": list(SITES if sites is None else sites), **options}, lake)


def _sites(texts: Sequence[str]) -> dict[str, Any]:
    """Return sites as a grid tells them."""
    found: dict[str, Any] = {}
    for text in texts:
        try:
            name, options = SiteOptions.parse(text)
        except ValueError:
            raise ConfigurationError(f"{text!r} is no site: NAME:SLOTS or NAME:SLOTS:TAG, as in {SITES[0]}") from None
        if name in found:
            raise ConfigurationError(f"{name!r} is given twice: add its slots")
        found[name] = {"slots": options.slots, "tags": list(options.tags)}
    return found


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others from starting a grid in the same directory meanwhile."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        # A lock on the folder above leaves no file behind.
        folder = os.open(directory.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigurationError(f"a grid cannot be in {directory}: {error.strerror}; another --directory") from None
    try:
        deadline = time.monotonic() + UP_S
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise JobServiceError(f"Another process has been starting a grid in {directory} for {UP_S:.0f} s.")
            time.sleep(0.05)
        yield
    finally:
        os.close(folder)


def _start(
    python: Path, directory: Path, options: dict[str, Any], lake: Mapping[str, Sequence[str]] | None
) -> dict[str, Any]:
    script, supervised = str(Path(__file__).with_name("supervise.py")), _supervised(directory)
    try:
        try:
            supervised.start([str(python), "-P", script, str(directory), json.dumps(options)])
        except OSError as error:
            raise ConfigurationError(
                f"{python} cannot be run ({error.strerror}); a grid in a box needs {NEEDED}"
            ) from None
        if lake is not None:
            names = list(_sites(options["sites"]))
            lakes.begin(directory / "lake", names, lake, end_with=options["end_with"])
            lakes.wait(directory / "lake")
        supervised.wait(UP_S)
        return status(directory)
    except JobServiceError as error:
        down(directory)
        lacks = [line for line in str(error).splitlines() if line.startswith("ModuleNotFoundError")]
        if lacks:
            raise ConfigurationError(f"{lacks[-1]}: a grid in a box needs {NEEDED}") from None
        raise
    except BaseException:
        down(directory)
        raise


def status(directory: Path) -> dict[str, Any]:
    """Return what is to be known of a running grid, nothing if none runs."""
    found = _supervised(directory).facts()
    if found and (lake := lakes.status(directory / "lake")):
        found = {**found, **lake, "pids": {**found["pids"], **lake["pids"]}}
    return found


def _supervised(directory: Path) -> Supervised:
    return Supervised(directory, "grid", "grid in a box")


def restart_server(directory: Path, *, up: bool) -> None:
    """Stop the DiracX server of a running grid, or start it again; its jobs go on.

    Parameters
    ----------
    directory : Path
        The grid's.
    up : bool
        Whether it shall run.
    """
    supervised = _supervised(directory)
    supervisor = supervised.process()
    if supervisor is None:
        raise ConfigurationError(f"no grid runs in {directory}: coffea-dirac grid up")
    supervisor.send_signal(signal.SIGUSR2 if up else signal.SIGUSR1)
    deadline = time.monotonic() + UP_S
    while ("api" in supervised.pids()) != up:
        if time.monotonic() > deadline:
            raise JobServiceError(f"The server did not {'start' if up else 'stop'} within {UP_S:.0f} s.")
        time.sleep(0.05)


def down(directory: Path) -> list[int]:
    """End a grid with all its processes and files, and return the ids of processes that would not go.

    Raises
    ------
    ConfigurationError
        The directory is something else's: nothing is removed.
    """
    if (
        directory.exists()
        and not (directory / "grid.log").exists()
        and (not directory.is_dir() or any(directory.iterdir()))
    ):
        raise ConfigurationError(
            f"{directory} is no grid's, and is left as it is: give a directory that does not exist"
        )
    supervised = _supervised(directory)
    pids = supervised.pids()
    of_lake = lakes.down(directory / "lake")
    supervised.end()
    deadline = time.monotonic() + DOWN_S
    while left := [pid for pid in pids.values() if _is_ours(pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    shutil.rmtree(directory, ignore_errors=True)
    return left + of_lake


def _is_ours(pid: int) -> bool:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "coffea_dirac" in " ".join(process.cmdline())
    return False
