"""Instances of classes written in Python: dataclasses, accumulators of the user's, named tuples, enumerations.

A class is written by its name and found again only among the classes this process already has: nothing is imported,
no constructor, property or other method of it runs, and what a payload can name is as narrow as what can be kept: a
class without reductions, finalizers or C parts of its own, that is a dataclass or can be added.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from types import MemberDescriptorType
from typing import Any

from coffea_dirac.codecs.live import known_class, remember_class
from coffea_dirac.codecs.plain import members, read_pairs, read_sequence, sequence
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer, has_own_codec
from coffea_dirac.errors import PayloadError

# What a class may be a subclass of, besides object: how the plain value is taken out of an instance ...
_CONTENTS: dict[type, Callable[[Any], Any]] = {
    # Its order is not that of the dict it is made of.
    collections.OrderedDict: lambda value: [
        (key, dict.__getitem__(value, key)) for key in collections.OrderedDict.__iter__(value)
    ],
    dict: dict.items,
    list: list.__iter__,
    set: set.__iter__,
    tuple: tuple.__iter__,
    frozenset: frozenset.__iter__,
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: bytes.__bytes__,
}
_FACTORY: Any = vars(collections.defaultdict)["default_factory"]
# What Python calls while it takes an object apart or puts it together; ours must do without.
_HOOKS = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__getattribute__",
    "__del__",
)
_LIBRARIES = ("coffea.processor.accumulator", "collections", "builtins", "abc", "typing")
_ADDS = ("__add__", "__iadd__", "add")
# Results of coffea that nobody adds.
_COFFEA = ("coffea.analysis_tools", ("Cutflow", "NminusOne"))


def writer(kind: type) -> Writer | None:
    """Return how instances of a class of the user's are written, or None."""
    if issubclass(kind, enum.Enum):
        return _write_enum
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _write_named_tuple
    return _write_object if not why_not(kind) else None


def why_not(kind: type) -> str:
    """Return why instances of a class cannot be written as their attributes, empty if they can."""
    if base := next((base.__name__ for base in kind.__mro__[1:] if has_own_codec(base)), ""):
        return f"its base {base} has a codec of its own"
    return _why_never(kind)


@functools.lru_cache(maxsize=1024)
def _why_never(kind: type) -> str:
    if hook := hook_of(kind):
        return f"its class defines {hook}"
    is_of_coffea = kind.__module__ == _COFFEA[0] and kind.__name__ in _COFFEA[1]
    is_known = is_of_coffea or dataclasses.is_dataclass(kind) or _content(kind) is not object
    if not is_known and not any(hasattr(kind, name) for name in _ADDS):
        return "it is neither a dataclass nor can it be added to another"
    content = _content(kind)
    if kind.__new__ not in (object.__new__, content.__new__):
        return "its class has its own __new__"
    return "" if _is_of_python(kind) else "a part of it is not written in Python"


def hook_of(kind: type, *, libraries: Collection[str] = ()) -> str:
    """Return the method of a class that would have to run when an instance is taken apart, empty if there is none.

    Parameters
    ----------
    kind : type
        The class.
    libraries : collection of str
        Top-level packages whose classes among its bases are known.
    """
    for base in kind.__mro__:
        if base.__module__ not in _LIBRARIES and base.__module__.partition(".")[0] not in libraries:
            for hook in _HOOKS:
                if hook in vars(base) and not _is_of_dataclass(base, hook):
                    return hook
    return ""


def _is_of_dataclass(base: type, hook: str) -> bool:
    """Whether the hook is one that ``dataclass(frozen=True, slots=True)`` has made."""
    return hook in ("__getstate__", "__setstate__") and getattr(vars(base)[hook], "__module__", "") == "dataclasses"


def _is_of_python(kind: type) -> bool:
    """Whether an instance is its attributes and its content, with nothing in memory besides."""
    if any("__getstate__" in vars(base) for base in kind.__mro__ if base.__module__ not in _LIBRARIES):
        return True
    try:
        # Python's own test; without the hooks it runs nothing of the class.
        object.__reduce_ex__(_content(kind).__new__(kind), 2)
    except TypeError:
        return False
    return True


def _content(kind: type) -> Any:
    return next((base for base in _CONTENTS if issubclass(kind, base)), object)


def class_name(encoder: Encoder, value: Any, kind: type) -> list[Node]:
    """Return the nodes that name a class, which is found again by them; refuse if it would not be."""
    if "<locals>" in kind.__qualname__:
        raise encoder.refuse(value, f"{kind.__qualname__} is defined inside a function: define it at top level")
    remember_class(kind)
    if known_class(kind.__module__, kind.__qualname__) is not kind:
        raise encoder.refuse(
            value, f"{kind.__module__} has another class {kind.__qualname__} by now: reload what makes the result"
        )
    return [kind.__module__, kind.__qualname__]


def class_of(module: str, qualname: str, why: Callable[[type], str]) -> type:
    """Return the class of a payload, one that this process has and `why` gives no reason against."""
    kind = known_class(module, qualname)
    if kind is None:
        raise PayloadError(f"it has a {qualname}, and this process has no such class: import {module} first")
    if reason := why(kind):
        raise PayloadError(f"{module}.{qualname} cannot be read any more: {reason}")
    return kind


def _write_object(encoder: Encoder, value: Any) -> Node:
    kind: Any = type(value)
    name = class_name(encoder, value, kind)
    state = [[key, _write_attribute(encoder, value, key, item)] for key, item in _attributes(value)]
    if isinstance(value, collections.defaultdict):
        state.append(["default_factory", _write_factory(encoder, value, _FACTORY.__get__(value))])
    return ["object", *name, _layout(kind), state, _write_content(encoder, value)]


@functools.lru_cache(maxsize=1024)
def _layout(kind: type) -> list[str] | None:
    """Return the names of the fields of a dataclass; not to be changed."""
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None


def _write_content(encoder: Encoder, value: Any) -> Node:
    base = _content(type(value))
    if base is object:
        return None
    content = _CONTENTS[base](value)
    if issubclass(base, dict):
        nodes = [(encoder.item(key, key), encoder.item(item, key)) for key, item in content]
        return [node for pair in nodes for node in pair]
    if base in (list, tuple):
        return sequence(encoder, list(content))
    if base in (set, frozenset):
        return members(encoder, frozenset(content))
    return encoder.node(content)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an instance as they lie in memory: no property or ``__getattr__`` is asked."""
    try:
        yield from object.__getattribute__(value, "__dict__").items()
    except AttributeError:
        pass
    kind: Any = type(value)
    for name, slot in _slots(kind).items():
        try:
            yield name, slot.__get__(value)
        except AttributeError:
            continue


@functools.lru_cache(maxsize=1024)
def _slots(kind: type) -> dict[str, MemberDescriptorType]:
    found: dict[str, MemberDescriptorType] = {}
    for base in kind.__mro__:
        for name, slot in vars(base).items() if "__slots__" in vars(base) else ():
            if isinstance(slot, MemberDescriptorType) and name not in ("__dict__", "__weakref__"):
                found.setdefault(slot.__name__, slot)
    return found


def _write_attribute(encoder: Encoder, value: Any, name: str, item: Any) -> Node:
    # A subclass of coffea's value_accumulator or defaultdict_accumulator.
    if name == "default_factory":
        return _write_factory(encoder, value, item)
    return encoder.item(item, name)


def _write_factory(encoder: Encoder, value: Any, factory: Any) -> Node:
    from coffea_dirac.codecs.factories import write_factory

    return write_factory(encoder, value, factory)


def _read_factory(decoder: Decoder, node: Node) -> Any:
    from coffea_dirac.codecs.factories import read_factory

    return read_factory(decoder, node)


def _read_object(decoder: Decoder, args: Sequence[Any]) -> Any:
    module, qualname, layout, state, content = args
    kind = class_of(module, qualname, why_not)
    if _layout(kind) != layout:
        raise PayloadError(f"the fields of {module}.{qualname} were {layout} and are {_layout(kind)}")
    found = _read_content(decoder, kind, content)
    slots = _slots(kind)
    for name, node in state:
        item = _read_factory(decoder, node) if name == "default_factory" else decoder.value(node)
        if name == "default_factory" and isinstance(found, collections.defaultdict):
            _FACTORY.__set__(found, item)
        elif name in slots:
            slots[name].__set__(found, item)
        else:
            object.__getattribute__(found, "__dict__")[name] = item
    return found


def _read_content(decoder: Decoder, kind: type, node: Node) -> Any:
    base = _content(kind)
    if base is object:
        return object.__new__(kind)
    if issubclass(base, dict):
        found = base.__new__(kind)
        for key, item in read_pairs(decoder, node).items():
            base.__setitem__(found, key, item)
        return found
    if base not in (list, set, tuple, frozenset):
        content = decoder.value(node)
        if type(content) is not base:
            raise PayloadError(f"a {kind.__qualname__} holds a {type(content).__name__}, no {base.__name__}")
        return base.__new__(kind, content)
    items = read_sequence(decoder, node)
    if base in (tuple, frozenset):
        return base.__new__(kind, items)
    found = base.__new__(kind)
    (list.extend if base is list else set.update)(found, items)
    return found


def _write_enum(encoder: Encoder, value: Any) -> Node:
    kind = type(value)
    name = class_name(encoder, value, kind)
    if value._name_ in kind.__members__ and kind.__members__[value._name_] is value:
        return ["enum", *name, value._name_]
    if isinstance(value, enum.Flag) and "_missing_" not in {n for b in kind.__mro__[:-1] for n in _own_names(b)}:
        return ["flags", *name, encoder.node(int(value._value_))]
    raise encoder.refuse(value, "it is no member of its enumeration; keep its value")


def _own_names(base: type) -> set[str]:
    return set(vars(base)) if base.__module__ not in ("enum", "builtins") else set()


def _no_enumeration(kind: type) -> str:
    return "" if issubclass(kind, enum.Enum) else "it is no enumeration"


def _read_enum(_: Decoder, args: Sequence[Any]) -> Any:
    kind: Any = class_of(args[0], args[1], _no_enumeration)
    if args[2] not in kind.__members__:
        raise PayloadError(f"there is no {args[1]}.{args[2]} any more")
    return kind.__members__[args[2]]


def _read_flags(decoder: Decoder, args: Sequence[Any]) -> Any:
    kind: Any = class_of(args[0], args[1], _no_enumeration)
    if not issubclass(kind, enum.Flag):
        raise PayloadError(f"{args[1]} is no enumeration of flags any more")
    return kind(decoder.value(args[2]))


def _write_named_tuple(encoder: Encoder, value: Any) -> Node:
    kind = type(value)
    if getattr(value, "__dict__", None):
        raise encoder.refuse(value, "it has attributes of its own; keep them as fields")
    names = list(kind._fields)
    if not _is_of_coffea(kind.__module__):
        class_name(encoder, value, kind)
    items = [encoder.item(item, name) for name, item in zip(names, tuple.__iter__(value), strict=True)]
    return ["namedtuple", kind.__module__, kind.__qualname__, names, items]


def _is_of_coffea(module: str) -> bool:
    return module.partition(".")[0] == "coffea"


def _read_named_tuple(decoder: Decoder, args: Sequence[Any]) -> Any:
    module, qualname, names, items = args
    # coffea makes the classes of its cut flows anew with every call.
    kind = _named_tuple(module, qualname, tuple(names)) if _is_of_coffea(module) else known_class(module, qualname)
    is_same = isinstance(kind, type) and issubclass(kind, tuple) and list(getattr(kind, "_fields", ())) == names
    if not is_same or kind is None or len(names) != len(items):
        raise PayloadError(f"it has a {qualname} with the fields {names}, and this process has no such class")
    return tuple.__new__(kind, [decoder.value(item) for item in items])


@functools.lru_cache(maxsize=256)
def _named_tuple(module: str, name: str, fields: tuple[str, ...]) -> type:
    return collections.namedtuple(name, fields, module=module)


READERS: dict[str, Reader] = {
    "object": _read_object,
    "enum": _read_enum,
    "flags": _read_flags,
    "namedtuple": _read_named_tuple,
}
