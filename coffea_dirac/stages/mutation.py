"""Whether a function changed what it was given: others were given the same."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.errors import CodecError

_FIXED = (bool, int, float, complex, str, bytes, type(None))


class Snapshot:
    """What named values look like now.

    Containers are compared by what they hold; awkward arrays, which change only as a whole, by what they are made of;
    numpy arrays are made read-only; anything else by its payload.

    Parameters
    ----------
    values : mapping
        The values, by name.
    apart : collection of int
        Ids of values that are looked after elsewhere.

    Examples
    --------
    >>> cuts = {"pt": [30, 25]}
    >>> snapshot = Snapshot({"cuts": cuts})
    >>> cuts["pt"].append(20)
    >>> snapshot.first_change()
    "cuts['pt']"
    """

    def __init__(self, values: Mapping[str, Any], apart: Collection[int] = ()) -> None:
        self._seen = [
            (path, value, _look(value)) for name, value in values.items() for path, value in _walk(name, value, apart)
        ]

    def first_change(self) -> str | None:
        """Return the name of the first value that has changed, None if none has."""
        return next((path for path, value, look in self._seen if _look(value) != look), None)


def _walk(path: str, value: Any, apart: Collection[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _FIXED) or callable(value) or id(value) in apart:
        return
    yield path, value
    if type(value) is dict:
        for key, item in value.items():
            yield from _walk(f"{path}[{key!r}]", item, apart)
    elif type(value) in (list, tuple):
        for number, item in enumerate(value):
            yield from _walk(f"{path}[{number}]", item, apart)


def _look(value: Any) -> object:
    """Return what differs once the value has been changed."""
    if type(value) is dict:
        return [(id(key), id(item)) for key, item in value.items()]
    if type(value) in (list, tuple):
        return [id(item) for item in value]
    if hasattr(value, "layout"):
        return id(value.layout)
    if hasattr(value, "setflags"):
        with suppress(ValueError):
            value.setflags(write=False)
        return None
    try:
        return hashlib.sha256(codecs.encode(value).data).digest()
    except CodecError:
        return None
