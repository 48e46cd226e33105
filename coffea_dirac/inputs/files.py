"""Files that belong to an analysis: their content enters fingerprints, and they travel to where they are needed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from coffea_dirac.errors import InputError


@dataclass(frozen=True, slots=True)
class File(os.PathLike[str]):
    """A file whose content, not its name, belongs to the fingerprint.

    Open it as any path.  What an analysis names so travels to a worker once, where it is not there already.

    Parameters
    ----------
    path : path-like
        Where the file is, relative to the working directory or absolute.

    Raises
    ------
    InputError
        It is no path.

    Examples
    --------
    >>> with open(File("/dev/null")) as file:
    ...     file.read()
    ''
    """

    path: str
    belongs_to_analysis: ClassVar[bool] = True
    """Tells a fingerprint that this is no ordinary path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
            raise InputError(f"File({path!r}): it takes the path of a file, as in File('cuts.json')")
        object.__setattr__(self, "path", os.fspath(path))

    def __fspath__(self) -> str:
        return _arrived.get(self.path, self.path)

    def __str__(self) -> str:
        """Return where the file is, as `pathlib.Path` does."""
        return self.__fspath__()


_arrived: dict[str, str] = {}
"""Where this process has the content of files that it does not find under their own names."""


def read_files(paths: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of files, to be sent to workers; `paths` maps them to the digests that were fingerprinted.

    Raises
    ------
    InputError
        A file has vanished or changed in between.
    """
    found = {}
    for path, digest in paths.items():
        try:
            found[path] = Path(path).read_bytes()
        except OSError as error:
            raise vanished(path, error) from error
        if hashlib.sha256(found[path]).hexdigest() != digest:
            raise InputError(f"{path} changed while the run began: run again when it is written to the end")
    return found


def vanished(path: str, error: OSError) -> InputError:
    """Return the error for a `File` that is not there."""
    return InputError.like(
        error,
        f"File({path!r}) cannot be read ({error.strerror or error}). Probably it was moved, or the path is relative to "
        f"another directory than {Path.cwd()}: give the path of a file that exists.",
    )


def settle_files(contents: Mapping[str, bytes]) -> None:
    """Make files available to `File` in this process: as they lie here already, else as copies."""
    for path, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        if _digest(path) == digest:
            _arrived.pop(path, None)
            continue
        folder = Path(tempfile.gettempdir()) / f"coffea-dirac-files-{os.getuid()}" / digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = folder / (Path(path).name or "file")
        if _digest(target) != digest:
            # Beside it first: another process may be writing the same.
            part = folder / f"{target.name}.{os.getpid()}.partial"
            part.write_bytes(data)
            part.replace(target)
        _arrived[path] = str(target)


def _digest(path: str | Path) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
