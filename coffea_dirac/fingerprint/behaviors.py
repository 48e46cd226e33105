"""What awkward looks up by the names of records: the user's entries by what they are, a library's by their names.

The entries of libraries follow their versions; their order, the hash seed.  There are a thousand of them in what each
of coffea's arrays carries, and the same in all: they are described once.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint import functions, values
from coffea_dirac.fingerprint.packages import origin_of
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

Pairs = list[tuple[Any, Any]]


def registered(walker: Walker) -> Json:
    """Return the user's entries in ``ak.behavior``."""
    awkward = sys.modules.get("awkward")
    found: Mapping[Any, Any] = awkward.behavior if awkward is not None else {}
    # A name for records is no more than that: what is under the name counts.
    with walker.at("ak.behavior"):
        return _encoded(walker, [(k, v) for k, v in list(found.items()) if _name(v) is None])


def carried(walker: Walker, behavior: Mapping[Any, Any]) -> Json:
    """Return what an array carries itself: names of what is a library's, and the user's entries."""
    names, modules, mine = _split(_Behavior(behavior))
    for module in modules:
        walker.used(module)
    with walker.at("behavior"):
        return ["behavior", names, _encoded(walker, mine)]


def _encoded(walker: Walker, mine: Pairs) -> Json:
    keyed = [(values.canonical(walker.encode(key)), value) for key, value in mine]
    return [[key, walker.encode(value)] for key, value in sorted(keyed, key=lambda pair: pair[0])]


class _Behavior:
    """The entries of a behavior at one time: the same as another one that has the same objects."""

    def __init__(self, behavior: Mapping[Any, Any]) -> None:
        # Held, so that an id stands for its object.
        self.pairs = list(behavior.items())
        self._ids = tuple(map(id, behavior.keys())), tuple(map(id, behavior.values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Behavior) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)


@functools.lru_cache(maxsize=16)
def _split(behavior: _Behavior) -> tuple[str, tuple[str, ...], Pairs]:
    """Return a digest of the names of what is a library's, their modules, and all other entries."""
    names, modules, mine = [], set[str](), Pairs()
    for key, value in behavior.pairs:
        pair = _name(key), _name(value)
        if None in pair:
            mine.append((key, value))
        else:
            names.append(" ".join(map(str, pair)))
            modules.update(_modules((key, value)))
    return values.digest_json(sorted(names)), tuple(sorted(modules)), mine


def _name(value: Any) -> str | None:
    """Return a library's name for something of its own; None for what a user has made."""
    if isinstance(value, str):
        return f"{value!r}"
    if isinstance(value, types.FunctionType | type):
        module = functions.module_of(value)
        return f"{module}.{value.__qualname__}" if origin_of(module).kind in ("installed", "stdlib") else None
    name = str(getattr(value, "__name__", ""))
    if type(value).__name__ == "ufunc" and vars(sys.modules["numpy"]).get(name) is value:
        return f"ufunc {name}"
    parts = _parts(value)
    found = [_name(part) for part in parts] if parts is not None else [None]
    return None if None in found else f"{type(value).__name__}({', '.join(map(str, found))})"


def _parts(value: Any) -> Iterable[Any] | None:
    if isinstance(value, functools.partial) and not value.keywords:
        return (value.func, *value.args)
    return value if type(value) is tuple else None


def _modules(value: Any) -> set[str]:
    if isinstance(value, types.FunctionType | type):
        return {functions.module_of(value)}
    return set[str]().union(*map(_modules, _parts(value) or ()))
