"""Instances of classes written in Python: dataclasses, accumulators of the user's, named tuples, enumerations.

A class is written by its name and found again only among the classes this process already has: nothing is imported,
no constructor runs, and what a payload can name is as narrow as what can be kept: a class without reductions,
finalizers or C parts of its own, that is a dataclass or can be added.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from coffea_dirac.codecs.live import known_class, remember_class
from coffea_dirac.codecs.plain import members, pairs, read_pairs, read_sequence, sequence
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

_CONTENTS = (dict, list, set)
# What Python calls while it takes an object apart or puts it together; ours must do without.
_HOOKS = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__del__",
)
_ADDS = ("__add__", "__iadd__", "add")


def writer(kind: type) -> Writer | None:
    """Return how instances of a class of the user's are written, or None."""
    if issubclass(kind, enum.Enum):
        return _write_enum
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _write_named_tuple
    return _write_object if not why_not(kind) else None


def why_not(kind: type) -> str:
    """Return why instances of a class cannot be written as their attributes, empty if they can."""
    own = [base for base in kind.__mro__ if base.__module__ not in ("builtins", "abc", "typing")]
    for base in own:
        if base.__module__.startswith(("coffea.processor.accumulator", "collections")):
            continue
        for hook in _HOOKS:
            if hook in vars(base) and not _is_of_dataclass(base, hook):
                return f"its class defines {hook}"
    is_data = dataclasses.is_dataclass(kind)
    if not is_data and not any(hasattr(kind, name) for name in _ADDS) and not issubclass(kind, _CONTENTS):
        return "it is neither a dataclass nor can it be added to another"
    content = _content(kind)
    if kind.__new__ not in (object.__new__, content.__new__):
        return "its class has its own __new__"
    if "__getstate__" not in {name for base in own for name in vars(base)}:
        try:
            object.__reduce_ex__(content.__new__(kind), 2)
        except TypeError:
            return "a part of it is not written in Python"
    return ""


def _is_of_dataclass(base: type, hook: str) -> bool:
    """Whether the hook is one that ``dataclass(frozen=True, slots=True)`` has made."""
    return hook in ("__getstate__", "__setstate__") and getattr(vars(base)[hook], "__module__", "") == "dataclasses"


def _content(kind: type) -> Any:
    return next((base for base in _CONTENTS if issubclass(kind, base)), object)


def _class_name(encoder: Encoder, value: Any) -> list[Node]:
    kind = type(value)
    if "<locals>" in kind.__qualname__:
        raise encoder.refuse(value, "its class is defined inside a function, where no other process finds it")
    remember_class(kind)
    return [kind.__module__, kind.__qualname__]


def _write_object(encoder: Encoder, value: Any) -> Node:
    name = _class_name(encoder, value)
    state = [[key, encoder.item(item, key)] for key, item in _attributes(value)]
    factory = _factory_of(encoder, value)
    if isinstance(value, dict):
        content: list[Node] = pairs(encoder, value)
    elif isinstance(value, list):
        content = sequence(encoder, value)
    elif isinstance(value, set):
        content = members(encoder, value)
    else:
        content = []
    return ["object", *name, state, factory, content]


def _attributes(value: Any) -> Iterable[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            name = f"_{base.__name__.lstrip('_')}{name}" if private else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _factory_of(encoder: Encoder, value: Any) -> Node:
    if not isinstance(value, collections.defaultdict):
        return None
    from coffea_dirac.codecs.accumulators import write_factory

    return write_factory(encoder, value, value.default_factory)


def _read_object(decoder: Decoder, args: Sequence[Any]) -> Any:
    module, qualname, state, factory, content = args
    kind = _class_of(module, qualname)
    if why := why_not(kind):
        raise PayloadError(f"{module}.{qualname} cannot be read any more: {why}")
    found = _content(kind).__new__(kind)
    if isinstance(found, dict):
        if isinstance(found, collections.defaultdict):
            from coffea_dirac.codecs.accumulators import read_factory

            found.default_factory = read_factory(decoder, factory)
        dict.update(found, read_pairs(decoder, content))
    elif isinstance(found, list):
        list.extend(found, read_sequence(decoder, content))
    elif isinstance(found, set):
        set.update(found, read_sequence(decoder, content))
    for name, node in state:
        object.__setattr__(found, name, decoder.value(node))
    return found


def _class_of(module: str, qualname: str) -> type:
    kind = known_class(module, qualname)
    if kind is None:
        raise PayloadError(f"it has a {qualname}, and this process has no such class: import {module} first")
    return kind


def _write_enum(encoder: Encoder, value: Any) -> Node:
    if value.name is None or value not in type(value):
        raise encoder.refuse(value, "it is no single member of its enumeration; keep its value")
    return ["enum", *_class_name(encoder, value), value.name]


def _read_enum(_: Decoder, args: Sequence[Any]) -> Any:
    kind = _class_of(args[0], args[1])
    if not issubclass(kind, enum.Enum) or args[2] not in kind.__members__:
        raise PayloadError(f"there is no {args[1]}.{args[2]} any more")
    return kind[args[2]]


def _write_named_tuple(encoder: Encoder, value: Any) -> Node:
    kind = type(value)
    if getattr(value, "__dict__", None):
        raise encoder.refuse(value, "it has attributes of its own; keep them as fields")
    items = [encoder.item(item, name) for name, item in zip(kind._fields, value, strict=True)]
    remember_class(kind)
    return ["namedtuple", kind.__module__, kind.__qualname__, list(kind._fields), items]


def _read_named_tuple(decoder: Decoder, args: Sequence[Any]) -> Any:
    module, qualname, fields, items = args
    kind = known_class(module, qualname)
    if kind is None and module.partition(".")[0] == "coffea":
        # coffea makes the classes of its cut flows anew with every call.
        kind = _named_tuple(module, qualname, tuple(fields))
    is_same = isinstance(kind, type) and issubclass(kind, tuple) and list(getattr(kind, "_fields", ())) == fields
    if not is_same or kind is None:
        raise PayloadError(f"it has a {qualname} with the fields {fields}, and this process has no such class")
    return tuple.__new__(kind, [decoder.value(item) for item in items])


@functools.cache
def _named_tuple(module: str, name: str, fields: tuple[str, ...]) -> type:
    return collections.namedtuple(name, fields, module=module)


READERS: dict[str, Reader] = {"object": _read_object, "enum": _read_enum, "namedtuple": _read_named_tuple}
