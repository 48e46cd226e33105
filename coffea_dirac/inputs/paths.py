"""What lies at a path, and whether opening it tells something about the user's inputs."""

from __future__ import annotations

import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Collection, Iterable
from pathlib import Path

from coffea_dirac.inputs.contents import ContentMemo

ABSENT = "absent"
_SYSTEM = ("/proc/", "/dev/", "/sys/")


def counts(path: str, ignored: Iterable[str] = ()) -> bool:
    """Whether opening the real path `path` tells something about the user's inputs."""
    if path.startswith(_SYSTEM):
        return False
    return not any(path == p or path.startswith(p.rstrip("/") + "/") for p in (*ignored, *package_roots()))


def package_roots() -> tuple[str, ...]:
    """Return the directories of Python itself and of installed packages."""
    global _package_roots
    if not _package_roots:
        named = [sysconfig.get_path(k) for k in ("stdlib", "platstdlib", "purelib", "platlib")]
        named += [
            sys.prefix,
            sys.base_prefix,
            site.getusersitepackages(),
            *site.getsitepackages(),
            str(Path(__file__).parent.parent),
        ]
        # A prefix of / or /usr would swallow the user's own files: only real package directories count then.
        found = {os.path.realpath(p) for p in named if p}
        _package_roots = tuple(sorted(p for p in found if p.count("/") > 1 or p not in ("/", "/usr")))
    return _package_roots


_package_roots: tuple[str, ...] = ()
_contents = ContentMemo()


def digest_path(path: str) -> str:
    """Return the digest of what is at `path`: a file's content, a directory's names, or ``"absent"``."""
    try:
        if os.path.isdir(path):  # noqa: PTH112 - called inside the audit hook: as little Python as possible
            return names_digest(sorted(os.listdir(path)))  # noqa: PTH208
        return _contents.digest(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:
        return f"unreadable: {type(error).__name__}"


def files_named(strings: Iterable[str], inputs: Collection[str] = ()) -> dict[str, str]:
    """Return the files that strings name, with the digest of their content; real paths in `inputs` do not count."""
    found = {}
    for name in sorted(strings):
        # Also of what no path can be.
        if not os.path.isfile(name):  # noqa: PTH113 - many strings, few files
            continue
        path = os.path.realpath(name)
        if path not in inputs and counts(path):
            found[name] = digest_path(path)
    return found


def names_digest(names: Iterable[str]) -> str:
    """Return the digest of names in their order."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
