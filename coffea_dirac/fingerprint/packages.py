"""Whose code is it: the user's, an installed distribution's, the standard library's, or our own.

Installed code enters as distribution and version, the user's as itself, the standard library by name.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

from coffea_dirac.interfaces import Versions

OWN = __name__.partition(".")[0]
_CYTHON = ("_cython_", "cython_runtime", "_cyutility")  # modules that compiled code makes up
_STDLIB_FOLDER = sysconfig.get_path("stdlib")
_LIBRARY_DIRECTORIES = ("site-packages", "dist-packages")


_MINOR = re.compile(r"v?((?:\d+!)?\d+(?:\.\d+)?)")


def counted_version(version: str, versions: Versions) -> str:
    """Return a version as it enters fingerprints; one that does not begin with numbers enters as it is.

    Examples
    --------
    >>> counted_version("3.2.4", "exact"), counted_version("3.2.4", "minor"), counted_version("2026.9.0", "minor")
    ('3.2.4', '3.2', '2026.9')
    """
    found = _MINOR.match(version) if versions == "minor" else None
    return found[1] if found else version


class Origin(NamedTuple):
    """Where a module comes from; `name` and `version` are those of the distribution, if there is one."""

    kind: Literal["user", "installed", "stdlib", "own"]
    name: str = ""
    version: str = ""


USER = Origin("user")
STDLIB = Origin("stdlib")


def origin_of(module: str) -> Origin:
    """Return the origin of a module, imported or not, by its dotted name.

    Examples
    --------
    >>> origin_of("json.decoder").kind, origin_of("__main__").kind
    ('stdlib', 'user')
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("builtins", "__future__") or top.startswith(_CYTHON):
        return STDLIB
    if top == OWN:
        return Origin("own", OWN)
    if top in ("__main__", "__mp_main__", ""):
        return USER
    place = _place(module) or _place(top)
    return _origin_at(top, place) if place else USER


def public_module(module: str) -> str:
    """Return the part of a standard module's name that Python versions agree upon.

    Examples
    --------
    >>> public_module("pathlib._local"), public_module("_operator")
    ('pathlib', 'operator')
    """
    return module.partition(".")[0].lstrip("_")


def _place(module: str) -> str:
    """Return the file or folder of a module, empty if there is none."""
    loaded = sys.modules.get(module)
    if isinstance(loaded, ModuleType):
        if isinstance(file := vars(loaded).get("__file__"), str):
            return file
        if place := next(iter(vars(loaded).get("__path__") or ()), ""):
            return str(place)
    if "." in module:
        return ""
    if loaded is not None:
        return next((found for entry in sys.path if Path(found := f"{entry}/{module}").is_dir()), "")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return ""
    if spec is None:
        return ""
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


@functools.lru_cache(maxsize=4096)
def _origin_at(top: str, place: str) -> Origin:
    file = Path(place)
    for folder in file.parents:
        # A module belongs to a distribution whose metadata lies beside its top-level name, and that claims this name.
        name = file.relative_to(folder).parts[0].partition(".")[0]
        is_library = folder.name in _LIBRARY_DIRECTORIES
        if (name == top or is_library) and (found := _distribution(str(folder), name, _changed(folder))):
            return found
        if is_library:
            return USER
        if str(folder) == _STDLIB_FOLDER:
            return STDLIB
    return USER


@functools.lru_cache(maxsize=4096)
def _distribution(folder: str, top: str, changed_ns: int) -> Origin | None:
    known = _metadata_in(folder, changed_ns)
    alike = re.sub(r"[-_.]+", "_", top).lower() + "-"
    for _, place in sorted(known, key=lambda pair: not pair[0].startswith(alike)):
        metadata = Path(place)
        if _claims(metadata, top):
            if _is_editable(metadata):
                return None
            return Origin("installed", *_name_and_version(metadata))
    return None


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=256)
def _metadata_in(folder: str, _changed_ns: int) -> tuple[tuple[str, str], ...]:
    """Return the lower-case names and the places of the folders of metadata in a folder, in order."""
    # An egg-info beside sources is a checkout (setup.py develop); only in a library directory is it an installation.
    kinds = (".dist-info", ".egg-info") if Path(folder).name in _LIBRARY_DIRECTORIES else (".dist-info",)
    try:
        with os.scandir(folder) as entries:  # a thousand names, of which some are wanted
            found = sorted(
                (entry.name, entry.path) for entry in entries if entry.name.endswith(kinds) and entry.is_dir()
            )
    except OSError:
        return ()
    return tuple((name.lower(), path) for name, path in found)


def _claims(metadata: Path, top: str) -> bool:
    """Return whether a distribution brings a module or package of a name: by its lists, or else by its own name."""
    has_list = False
    for name in ("top_level.txt", "RECORD"):
        # Searched as one text: the lists of large packages have ten thousand lines.
        if text := _read(metadata / name):
            has_list = True
            # What most lists say is found before an expression is compiled for all that they could say.
            if f"\n{top}/" in text or re.search(_line_of(top), text, re.MULTILINE):
                return True
    return not has_list and metadata.name.split("-")[0] == top


def _line_of(top: str) -> str:
    return rf"^\"?{re.escape(top)}(?!\.(?:dist-info|data)[/,])(?:[/.,].*|\s*)$"


def _is_editable(metadata: Path) -> bool:
    try:
        direct = json.loads(_read(metadata / "direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(direct.get("dir_info", {}).get("editable"))


def _name_and_version(metadata: Path) -> tuple[str, str]:
    text = _read(metadata / "METADATA") or _read(metadata / "PKG-INFO")
    found = dict(re.findall(r"^(Name|Version):\s*(.+?)\s*$", text.split("\n\n", 1)[0], re.MULTILINE))
    stem = metadata.stem.split("-")
    return found.get("Name", stem[0]), found.get("Version", stem[1] if len(stem) > 1 else "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
