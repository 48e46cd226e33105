"""The submitter's environment as a file, for sites that have none: ``environment="venv:PLACE"``.

It is packed once, under a name made of its content, and stored where jobs can fetch it: a directory that sites see, an
``https://`` URL that is readable without a token, or ``root://`` for sites that have ``xrdcp``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import platform
import shlex
import sysconfig
import tarfile
import tempfile
import threading
from pathlib import Path

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.stores import open_store

logger = logging.getLogger(__name__)

PREFIX = "venv:"
PYTHON = ".".join(platform.python_version_tuple()[:2])
_published: set[str] = set()
_lock = threading.Lock()


def place_of(environment: str) -> str:
    """Return where the packed environment lies, without a slash at the end.

    Raises
    ------
    ConfigurationError
        Jobs could not fetch it from there.

    Examples
    --------
    >>> place_of("venv:https://se.example.org/user/jdoe/")
    'https://se.example.org/user/jdoe'
    """
    place = environment.removeprefix(PREFIX).rstrip("/")
    if not place.startswith(("/", "https://", "http://", "root://")):
        raise ConfigurationError(
            f"environment={environment!r}: say where jobs can fetch it from, as in 'venv:/shared/directory', "
            "'venv:https://se.example.org/public/jdoe' or 'venv:root://se.example.org//user/jdoe'"
        )
    return place


@functools.cache
def name() -> str:
    """Return what this environment is called: the same for the same packages, Python and kind of machine."""
    digest = hashlib.sha256(f"{PYTHON} {platform.machine()}".encode())
    for record in sorted(_packages().glob("*.dist-info/RECORD")):
        # It has a checksum of each file.
        digest.update(record.read_bytes())
    return f"venv-{digest.hexdigest()[:16]}.tar.gz"


def publish(environment: str) -> None:
    """Store this environment at its place, unless it is there.

    Raises
    ------
    StoreError
        It cannot be stored.
    """
    place = place_of(environment)
    with _lock:
        if place in _published:
            return
        store = open_store(place)
        if not store.list(name()):
            logger.warning("Packing this environment for %s: a minute or two, once until a package changes.", place)
            store.create(name(), _packed())
        _published.add(place)


def _packages() -> Path:
    return Path(sysconfig.get_path("purelib"))


def _packed() -> bytes:
    def chosen(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in info.name.split("/") else info

    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            for entry in sorted(_packages().iterdir()):
                # This package itself travels with each job; paths of this machine mean nothing there.
                if entry.name != "coffea_dirac" and entry.suffix != ".pth":
                    archive.add(entry, entry.name, filter=chosen)
        file.seek(0)
        return file.read()


def script_lines(environment: str) -> list[str]:
    """Return the shell commands that fetch the environment and set ``$python``.

    Examples
    --------
    >>> script_lines("venv:/shared")[:2]
    ['mkdir -p .site', 'fetched=/shared/...
    """
    url = f"{place_of(environment)}/{name()}"
    quoted = shlex.quote(url)
    if url.startswith("/"):
        fetch = [f"fetched={quoted}"]
    elif url.startswith("root://"):
        fetch = ["fetched=.site.tar.gz", f'xrdcp -s {quoted} "$fetched"']
    else:
        code = "import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])"
        fetch = ["fetched=.site.tar.gz", f'python3 -c {shlex.quote(code)} {quoted} "$fetched"']
    return [
        "mkdir -p .site",
        *fetch,
        'tar -xzf "$fetched" -C .site || {',
        f'    echo "coffea_dirac: the environment "{quoted}" cannot be fetched on $(hostname)"',
        "    exit 3",
        "}",
        'export PYTHONPATH="$PWD/.site"',
        f"python=python{PYTHON}; command -v $python >/dev/null || python=python3",
        f'"$python" -c \'import platform, sys; sys.exit(not platform.python_version().startswith("{PYTHON}."))\' || {{',
        f'    echo "coffea_dirac: the environment is for Python {PYTHON}, which $(hostname) does not have"',
        "    exit 3",
        "}",
    ]
