"""Starts, shows and ends a data lake in a box, from outside: a Rucio server, and storages that hold its datasets."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.grid import rucio_server, storage
from coffea_dirac.grid.sample import write_sample
from coffea_dirac.grid.supervised import Supervised

UP_S, END_S = 180.0, 10.0
TOKENS_RSE = "BOX-TOKENS_DISK"
"""The storage that wants TLS and a token, and is near no site."""


def why_not() -> str:
    """Return what is missing here for a data lake, and how to get it; nothing if all is there."""
    found = [storage.why_no_server()]
    try:
        rucio_server.server_python()
    except ConfigurationError as error:
        found.append(str(error))
    if missing := [name for name in ("rucio", "XRootD", "cryptography") if importlib.util.find_spec(name) is None]:
        found.append(f"{', '.join(missing)} cannot be imported: pip install 'coffea_dirac[grid]'")
    if shutil.which("openssl") is None:
        found.append("there is no openssl: on Debian and Ubuntu `sudo apt-get install openssl`")
    return "\n".join(filter(None, found))


def rse_of(site: str) -> str:
    """Return the name of the storage at a site.

    Examples
    --------
    >>> rse_of("LCG.Box-A.uk")
    'BOX-A_DISK'
    """
    parts = site.split(".")
    return f"{(parts[1] if len(parts) == 3 else site).upper()}_DISK"


def begin(
    directory: Path, sites: Sequence[str], datasets: Mapping[str, Sequence[str]], *, end_with: int | None = None
) -> None:
    """Begin to start a lake; `wait` says when it is there.

    Parameters
    ----------
    directory : Path
        Where it is found again.
    sites : sequence of str
        Names of sites; each gets a storage.
    datasets : mapping
        Did -> paths of its files, which are copied to every storage; if empty, small datasets are made.
    end_with : int, optional
        The id of a process with which the lake ends.

    Raises
    ------
    ConfigurationError
        Something is missing here, or a dataset cannot be made.
    """
    rucio_server.ENVIRONMENT.make()
    if why := why_not():
        raise ConfigurationError(f"there can be no data lake here:\n{why}")
    for did, paths in datasets.items():
        if did.count(":") != 1 or not paths or not all(Path(path).is_file() for path in paths):
            raise ConfigurationError(f"{did!r} of {list(paths)} is no dataset: scope:name, and files that exist")
    _check_names(datasets)
    down(directory)
    directory.mkdir(parents=True, mode=0o700)
    # Storages run as somebody else if we are the superuser, and have to reach their files.
    place = Path(tempfile.mkdtemp(prefix="coffea-dirac-lake-"))
    place.chmod(0o755)
    (directory / "place").write_text(str(place))
    some = {did: [str(Path(path).resolve()) for path in paths] for did, paths in datasets.items()}
    options = {
        "place": str(place),
        "storages": {rse_of(site): site for site in sites},
        "datasets": some or write_sample(place / "sample"),
        "end_with": end_with,
    }
    script = Path(__file__).with_name("supervise_lake.py")
    _supervised(directory).start([sys.executable, "-P", str(script), str(directory), json.dumps(options)])


def _check_names(datasets: Mapping[str, Sequence[str]]) -> None:
    """Refuse files that would have the same name: they lie in one folder."""
    by_name: dict[str, str] = {}
    for path in (path for paths in datasets.values() for path in paths):
        if by_name.setdefault(Path(path).name, path) != path:
            raise ConfigurationError(f"{path} and {by_name[Path(path).name]} have the same name: rename one of them")


def wait(directory: Path) -> dict[str, Any]:
    """Return what is to be known of a lake once it is there.

    Raises
    ------
    JobServiceError
        It does not come up.
    """
    return _supervised(directory).wait(UP_S)


def status(directory: Path) -> dict[str, Any]:
    """Return what is to be known of a lake that runs, nothing if none does."""
    return _supervised(directory).facts()


def down(directory: Path) -> list[int]:
    """End a lake with all its processes and files, and return the ids of processes that would not go."""
    supervised = _supervised(directory)
    held = _processes(supervised.pids().values(), directory)
    supervised.end()
    _, left = psutil.wait_procs(held, END_S)
    with suppress(FileNotFoundError):
        shutil.rmtree((directory / "place").read_text(), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    return [process.pid for process in left]


def _supervised(directory: Path) -> Supervised:
    return Supervised(directory, "lake", "data lake in a box")


def _processes(pids: Any, directory: Path) -> list[psutil.Process]:
    """Return the processes of these ids that are the lake's: each works in its place."""
    place, found = (directory / "place").read_text() if pids else "", []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.cwd().startswith(place) or any(place in part for part in process.cmdline()):
                found.append(process)
    return found
