"""Starts, shows and ends a grid in a box, from outside: what it needs is installed in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from coffea_dirac.errors import ConfigurationError, JobServiceError
from coffea_dirac.grid.site import SiteOptions

SITES = ("LCG.Box-A.uk:1", "LCG.Box-B.uk:1")
UP_S, DOWN_S = 240.0, 20.0
PYTHON_VARIABLE = "COFFEA_DIRAC_GRID_PYTHON"
CHECKOUT = Path(__file__).parent.parent.parent
ENVIRONMENT, LOCK = ".venv-diracx", "requirements/diracx.lock"


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
    if given := os.environ.get(PYTHON_VARIABLE):
        return Path(given)
    if (CHECKOUT / LOCK).exists():
        command = [str(CHECKOUT / "scripts" / "set-up"), ENVIRONMENT, LOCK]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode:
            raise ConfigurationError(f"the environment of a DiracX server cannot be made: {done.stderr.strip()}")
        return CHECKOUT / ENVIRONMENT / "bin" / "python"
    raise ConfigurationError(
        "a grid in a box needs an environment with a DiracX server:\n"
        "  python3 -m venv diracx && diracx/bin/pip install 'diracx-routers==0.7.*' 'diracx-api==0.7.*' "
        f"'diracx-testing==0.7.*' 'moto[s3,server]'\n  export {PYTHON_VARIABLE}=$PWD/diracx/bin/python"
    )


def up(
    directory: Path,
    sites: Sequence[str] = SITES,
    *,
    heartbeat_s: float = 2.0,
    access_minutes: int | None = None,
    end_with: int | None = None,
) -> dict[str, Any]:
    """Start a grid, and return what is to be known of it once jobs can come.

    Parameters
    ----------
    directory : Path
        Where it keeps everything; one grid for each directory.
    sites : sequence of str
        ``NAME:SLOTS`` or ``NAME:SLOTS:TAG,TAG``.
    heartbeat_s : float
        How often jobs say that they are alive, and hear that they are to end; not below 1.1.
    access_minutes : int, optional
        Life of access tokens.
    end_with : int, optional
        The id of a process with which the grid ends.

    Returns
    -------
    dict
        ``diracx``, ``token_file``, ``sites``, ``vo``, ``user``, ``directory``, ``pids``.

    Raises
    ------
    ConfigurationError
        A site is written wrongly, or there is no environment for the server.
    JobServiceError
        It did not come up.
    """
    for text in sites:
        try:
            SiteOptions.parse(text)
        except ValueError:
            raise ConfigurationError(f"{text!r} is no site: NAME:SLOTS, as in {SITES[0]}") from None
    if found := status(directory):
        return found
    python = server_python()
    down(directory)  # what a grid that was killed has left
    directory.mkdir(parents=True, mode=0o700)
    options = {"sites": list(sites), "heartbeat_s": heartbeat_s, "access_minutes": access_minutes, "end_with": end_with}
    script = Path(__file__).with_name("supervise.py")
    with (directory / "grid.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-P", str(script), str(directory), json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (directory / "grid.pid").write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")
    try:
        return _wait(directory, process)
    except BaseException:
        down(directory)
        raise


def _wait(directory: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + UP_S
    while not (found := status(directory)):
        if process.poll() is not None or time.monotonic() > deadline:
            log = (directory / "grid.log").read_text()[-3000:]
            why = "ended" if process.poll() is not None else f"was not ready within {UP_S:.0f} s"
            raise JobServiceError(f"The grid in a box {why}; it said:\n{log}")
        time.sleep(0.05)
    return found


def status(directory: Path) -> dict[str, Any]:
    """Return what is to be known of a running grid, nothing if none runs."""
    with suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads((directory / "grid.json").read_text())
        if _supervisor(directory) is not None:
            return found
    return {}


def restart_server(directory: Path, *, up: bool) -> None:
    """Stop the DiracX server of a running grid, or start it again; its jobs go on.

    Parameters
    ----------
    directory : Path
        The grid's.
    up : bool
        Whether it shall run.
    """
    supervisor = _supervisor(directory)
    if supervisor is None:
        raise ConfigurationError(f"no grid runs in {directory}: coffea-dirac grid up")
    supervisor.send_signal(signal.SIGUSR2 if up else signal.SIGUSR1)
    deadline = time.monotonic() + UP_S
    while ("api" in _pids(directory)) != up:
        if time.monotonic() > deadline:
            raise JobServiceError(f"The server did not {'start' if up else 'stop'} within {UP_S:.0f} s.")
        time.sleep(0.05)


def down(directory: Path) -> list[int]:
    """End a grid with all its processes and files, and return the ids of processes that would not go."""
    pids = _pids(directory)
    supervisor = _supervisor(directory)
    if supervisor is not None:
        supervisor.terminate()
        with suppress(psutil.TimeoutExpired):
            supervisor.wait(DOWN_S)
        with suppress(psutil.NoSuchProcess):
            supervisor.kill()
    deadline = time.monotonic() + DOWN_S
    while left := [pid for pid in pids.values() if _is_ours(pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    shutil.rmtree(directory, ignore_errors=True)
    return left


def _pids(directory: Path) -> Mapping[str, int]:
    with suppress(FileNotFoundError):
        found: dict[str, int] = json.loads((directory / "grid.json").read_text())["pids"]
        return found
    return {}


def _is_ours(pid: int) -> bool:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "coffea_dirac" in " ".join(process.cmdline())
    return False


def _supervisor(directory: Path) -> psutil.Process | None:
    with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        pid, started = (directory / "grid.pid").read_text().split()
        process = psutil.Process(int(pid))
        # Ids are used again.
        if process.create_time() == float(started) and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None
