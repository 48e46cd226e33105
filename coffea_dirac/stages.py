"""Parts of an analysis that are kept: so far, the files they depend on."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File(os.PathLike[str]):
    """A file whose content, not its name, belongs to the fingerprint.

    Any ``os.PathLike`` value does the same; `File` says it.

    Parameters
    ----------
    path : str
        Where the file is, relative to the working directory or absolute.

    Examples
    --------
    >>> with open(File("/dev/null")) as file:
    ...     file.read()
    ''
    """

    path: str

    def __fspath__(self) -> str:
        return self.path
