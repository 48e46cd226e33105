"""Stores: where blobs are kept.  `open_store` makes one from what a user writes.

Each store is one file that knows one foreign library; `coffea_dirac.interfaces.Store` says what all of them can do and
`coffea_dirac.testing.StoreTests` checks it.
"""

from __future__ import annotations

import os
import re

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Store
from coffea_dirac.stores.local import LocalStore

__all__ = ["LocalStore", "open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(place: str | os.PathLike[str] | Store) -> Store:
    """Return the store at a path or URL; a store is returned as it is.  Nothing is touched before its first use.

    Parameters
    ----------
    place : str or path-like or Store
        A directory (``~`` is understood, it need not exist yet) or a ``file://`` URL.

    Raises
    ------
    ConfigurationError
        If no store belongs to `place`.

    Examples
    --------
    >>> open_store("file:///tmp/stages").url
    'file:///tmp/stages'
    >>> open_store(open_store("/tmp/stages")).url
    'file:///tmp/stages'
    """
    if not isinstance(place, str | os.PathLike):
        if isinstance(place, Store):
            return place
        raise ConfigurationError(
            f"{place!r} is not a store: give a directory or a URL, for example open_store('stages')"
        )
    text = os.fspath(place)
    if not isinstance(text, str) or not text:
        raise ConfigurationError(
            f"{place!r} names no place for a store: give a directory, for example open_store('stages')"
        )
    scheme = _SCHEME.match(text)
    if scheme is None:
        return LocalStore(text)
    path = text[scheme.end() :].removeprefix("localhost")
    if scheme[1].lower() == "file" and path.startswith("/"):
        return LocalStore(path)
    raise ConfigurationError(
        f"there is no store for {text!r}: what works is a directory ('stages', '/data/jdoe/stages') "
        "or a URL of one ('file:///data/jdoe/stages'), on a file system that all workers share"
    )
