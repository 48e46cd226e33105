"""The user's modules as files that travel: a worker at a site sees none of the submitter's directories."""

from __future__ import annotations

import atexit
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coffea_dirac.inputs.paths import package_roots

MOST_BYTES = 1 << 20
"""A larger file is data, not code: it does not travel."""


def user_modules() -> dict[str, str]:
    """Return the files of the user's own modules that this process has imported, by the name of the module.

    Examples
    --------
    >>> {"json", "numpy", "coffea_dirac"}.isdisjoint(user_modules())
    True
    """
    roots = package_roots()
    found = {}
    for name, module in sorted(sys.modules.copy().items()):
        file = getattr(module, "__file__", None)
        if not file or not file.endswith(".py") or name in ("__main__", "__mp_main__") or file.startswith(roots):
            continue
        if not os.path.realpath(file).startswith(roots):
            found[name] = file
    return found


def sources(modules: Mapping[str, str]) -> dict[str, bytes]:
    """Return what is in the files of modules, by the path at which another process finds them.

    Examples
    --------
    >>> sources({"coffea_dirac.worker.modules": __file__}).keys()
    dict_keys(['coffea_dirac/worker/modules.py'])
    """
    found = {}
    for name, file in modules.items():
        if (source := _source(file)) is not None:
            end = "/__init__.py" if Path(file).name == "__init__.py" else ".py"
            found[name.replace(".", "/") + end] = source
    return found


def _source(file: str) -> bytes | None:
    try:
        return Path(file).read_bytes() if Path(file).stat().st_size <= MOST_BYTES else None
    except OSError:  # it was imported from where it is no longer
        return None


class Shelf:
    """Where this process keeps the modules that came to it; those of the last run only."""

    def __init__(self) -> None:
        self._digest, self._folder = "", ""

    def place(self, files: Mapping[str, bytes], *, first: bool = False) -> None:
        """Let modules be found behind all others, or before them.

        Parameters
        ----------
        first : bool
            What is found elsewhere is not what the submitter has.
        """
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest() if files else ""
        if digest != self._digest:
            self.clear()
            self._digest, self._folder = digest, _written(files) if files else ""
        if self._folder:
            self._take_out()
            sys.path.insert(0 if first else len(sys.path), self._folder)
            importlib.invalidate_caches()

    def clear(self) -> None:
        """Remove what was placed."""
        self._take_out()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._digest, self._folder = "", ""

    def _take_out(self) -> None:
        if self._folder in sys.path:
            sys.path.remove(self._folder)


def _written(files: Mapping[str, bytes]) -> str:
    folder = tempfile.mkdtemp(prefix="coffea-dirac-modules-")
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


SHELF = Shelf()
"""That of this process."""
atexit.register(SHELF.clear)


def forget(modules: Iterable[str]) -> None:
    """Let modules be imported again when they are asked for next."""
    for name in modules:
        if name != "__main__":
            sys.modules.pop(name, None)


def missing(error: ModuleNotFoundError, stage: str) -> str:
    """Return what is told of a module that a worker lacks."""
    node: Any = os.environ.get("DIRACSITE") or os.uname().nodename
    return (
        f"the worker {os.getpid()} at {node} has no module {error.name!r}, which {stage or 'the analysis'} imports. A "
        "package is missing in its environment: DiracCluster(environment=...) names another one, "
        f"setup='pip install {str(error.name).partition('.')[0]}' adds it. Modules of your own travel if the submitter "
        "has imported them from a file."
    )
