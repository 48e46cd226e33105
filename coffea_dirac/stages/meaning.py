"""Whether a stage that is called again means the same: a look at its instance and at names, not another walk."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any

from coffea_dirac.fingerprint import digest_value

_ATOMS = (bool, int, float, complex, str, bytes, type(None))
_IMMUTABLE = (*_ATOMS, types.FunctionType, type, types.ModuleType)


def state(instance: object) -> object:
    """Return what tells one state of an instance from another, as long as the values of the first are held."""
    return tuple(
        (name, id(value) if isinstance(value, _IMMUTABLE) or hasattr(value, "__fspath__") else digest_value(value))
        for name, value in attributes(instance).items()
    )


def attributes(instance: object) -> Mapping[str, Any]:
    """Return the attributes of an instance, those in slots too."""
    found = getattr(instance, "__dict__", None) or {}
    kind: Any = type(instance)
    slots = [slot for slot in _slots(kind) if hasattr(instance, slot)]
    return {**found, **{slot: getattr(instance, slot) for slot in slots}} if slots else found


@functools.lru_cache(maxsize=1024)
def _slots(kind: Any) -> tuple[str, ...]:
    members = types.MemberDescriptorType
    own = (base for base in kind.__mro__ if base.__module__ != "builtins")
    return tuple(name for base in own for name, value in vars(base).items() if isinstance(value, members))


def around(function: Any) -> tuple[object, list[object]]:
    """Return what tells one meaning of the names in a function from another, and the values to hold for that.

    ``process`` may bind a name anew between two calls.  What the names of functions further away mean is not looked at,
    nor what is in large containers, arrays and instances: that would cost more than the call.
    """
    parts: list[object] = []
    held: list[object] = []
    values = [function.__globals__.get(name) for name in function.__code__.co_names]
    for value in (*values, *map(_content, function.__closure__ or ())):
        if isinstance(value, _ATOMS) or (type(value) in (dict, list, set) and _is_small(value)):
            parts.append(repr(value))
        else:
            parts.append(id(value))
            held.append(value)
    return tuple(parts), held


def meaning_of(value: Any) -> tuple[object, list[object]]:
    """Return what tells one meaning of an argument from another, and the values to hold for that."""
    if isinstance(value, types.MethodType) and isinstance(value.__func__, types.FunctionType):
        parts, held = around(value.__func__)
        me = value.__self__
        return (id(value.__func__), id(me), state(me), parts), [me, *held, *attributes(me).values()]
    if isinstance(value, types.FunctionType):
        parts, held = around(value)
        return (id(value), parts), held
    return id(value), []


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_small(value: Any) -> bool:
    items = (*value, *value.values()) if type(value) is dict else value
    return len(value) <= 64 and all(isinstance(item, _ATOMS) for item in items)
