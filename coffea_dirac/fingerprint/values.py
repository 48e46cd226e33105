"""Plain values by type and content: every function here returns what JSON can say, equal for equal values only.

`encode` of the walker is passed along for what values contain.
"""

from __future__ import annotations

import array
import collections
import contextvars
import enum
import functools
import hashlib
import json
import logging
import mmap
import operator
import os
import random
import re
import struct
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint.dump import constant
from coffea_dirac.fingerprint.packages import origin_of
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

LONG = 2000


def digest_bytes(data: bytes | memoryview | bytearray) -> str:
    """Return the sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's content.

    Parameters
    ----------
    path : path-like
        The file; it is read in pieces.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    OSError
        The file cannot be read.

    Examples
    --------
    >>> digest_file(os.devnull)[:12]
    'e3b0c44298fc'
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _float(value: float) -> str:
    if value != value:  # of a nan the bits count
        return f"float nan {struct.pack('>d', value).hex()}"
    return f"float {value!r}"


def _text(walker: Walker, value: str) -> Json:
    shown = walker.seen_string(value)
    return (
        f"str {constant(shown)}"
        if len(shown) <= LONG
        else ["str", digest_bytes(shown.encode("utf-8", "surrogatepass"))]
    )


def _bytes(walker: Walker, value: bytes | bytearray) -> Json:
    kind = type(value).__name__
    return f"{kind} {constant(bytes(value))}" if len(value) <= LONG else [kind, digest_bytes(value)]


def _items(walker: Walker, value: Mapping[Any, Any]) -> list[Json]:
    """Return the items of a mapping in its order, which code can see."""
    pairs = []
    for key, item in value.items():
        with walker.at(f"[{key!r}]" if isinstance(key, str | int) else "[...]"):
            pairs.append([walker.encode(key), walker.encode(item)])
    return pairs


def _sequence(walker: Walker, value: Any) -> list[Json]:
    parts = []
    for position, item in enumerate(value):
        with walker.at(f"[{position}]"):
            parts.append(walker.encode(item))
    return parts


def _set(walker: Walker, value: Any) -> Json:
    """Return a set's elements sorted by their own encodings, since it has no order."""
    return [type(value).__name__, *walker.sorted_unordered(value)]


def _memoryview(walker: Walker, value: memoryview) -> Json:
    return ["memoryview", value.format, list(value.shape or ()), digest_bytes(value.tobytes())]


def _partial(walker: Walker, value: Any) -> Json:
    return [
        type(value).__name__,
        walker.encode(value.func),
        _sequence(walker, value.args),
        _items(walker, value.keywords),
        _items(walker, getattr(value, "__dict__", {})),
    ]


def _lru_cache(walker: Walker, value: Any) -> Json:
    # What it has cached is call history.
    return ["lru_cache", value.cache_parameters(), walker.encode(value.__wrapped__)]


def _property(walker: Walker, value: property) -> Json:
    return ["property", *(walker.encode(f) for f in (value.fget, value.fset, value.fdel))]


def _reference(walker: Walker, value: Any) -> Json:
    return ["weakref", walker.encode(value())]


def _context(walker: Walker, value: contextvars.ContextVar[Any]) -> Json:
    try:
        return ["ContextVar", value.name, walker.encode(value.get())]
    except LookupError:
        return ["ContextVar", value.name, "unset"]


def _logger(walker: Walker, value: logging.Logger) -> Json:
    return ["logger", "its module" if value.name == walker.module_name else value.name]


def _mmap(walker: Walker, value: mmap.mmap) -> Json:
    return ["mmap", digest_bytes(memoryview(value))]


def _random(walker: Walker, value: random.Random) -> Json:
    if value is getattr(random, "_inst", None):
        return "the global random state"  # seeded anew by every process: randomness is not seen
    return ["Random", walker.encode(value.getstate())]


def _defaultdict(walker: Walker, value: Any) -> Json:
    return ["defaultdict", walker.encode(value.default_factory), _items(walker, value)]


def _bound(walker: Walker, value: types.MethodType) -> Json:
    return ["method", walker.encode(value.__self__), walker.encode(value.__func__)]


def _alias(walker: Walker, value: Any) -> Json:
    return ["generic", walker.encode(value.__origin__), *(_sequence(walker, value.__args__))]


def _singledispatchmethod(walker: Walker, value: Any) -> Json:
    return ["singledispatchmethod", walker.encode(value.dispatcher), walker.encode(value.func)]


def _cell(walker: Walker, value: Any) -> Json:
    try:
        return ["cell", walker.encode(value.cell_contents)]
    except ValueError:
        return "cell empty"


def _named(kind: str) -> Callable[[Walker, Any], Json]:
    return lambda walker, value: [kind, _sequence(walker, value)]


def _mapping(kind: str) -> Callable[[Walker, Any], Json]:
    return lambda walker, value: [kind, _items(walker, value)]


def _part(kind: str, *names: str) -> Callable[[Walker, Any], Json]:
    return lambda walker, value: [kind, *(walker.encode(getattr(value, name, None)) for name in names)]


def _constant(walker: Walker, value: Any) -> Json:
    return constant(value)


_LOCKS: tuple[type, ...] = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Semaphore,
    threading.BoundedSemaphore,
    threading.Barrier,
)

EXACT: dict[type, Callable[[Any, Any], Json]] = {
    type(None): _constant,
    bool: _constant,
    type(...): _constant,
    type(NotImplemented): _constant,
    int: lambda walker, value: f"int {constant(value)}",
    float: lambda walker, value: _float(value),
    complex: lambda walker, value: f"complex {_float(value.real)} {_float(value.imag)}",
    str: _text,
    bytes: _bytes,
    bytearray: _bytes,
    list: _named("list"),
    tuple: _named("tuple"),
    dict: _mapping("dict"),
    set: _set,
    frozenset: _set,
    collections.OrderedDict: _mapping("OrderedDict"),
    collections.Counter: _mapping("Counter"),
    collections.defaultdict: _defaultdict,
    collections.deque: lambda walker, value: ["deque", walker.encode(value.maxlen), _sequence(walker, value)],
    collections.ChainMap: lambda walker, value: ["ChainMap", _sequence(walker, value.maps)],
    types.MappingProxyType: _mapping("mappingproxy"),
    type({}.keys()): _named("dict_keys"),
    type({}.values()): _named("dict_values"),
    type({}.items()): _named("dict_items"),
    range: _part("range", "start", "stop", "step"),
    slice: _part("slice", "start", "stop", "step"),
    memoryview: _memoryview,
    mmap.mmap: _mmap,
    array.array: lambda walker, value: ["array", value.typecode, digest_bytes(value.tobytes())],
    re.Pattern: lambda walker, value: ["regex", walker.encode(value.pattern), value.flags],
    functools.partial: _partial,
    functools.partialmethod: _partial,
    type(functools.lru_cache(lambda: None)): _lru_cache,
    functools.cached_property: _part("cached_property", "func"),
    functools.singledispatchmethod: _singledispatchmethod,
    property: _property,
    staticmethod: _part("staticmethod", "__func__"),
    classmethod: _part("classmethod", "__func__"),
    operator.attrgetter: lambda walker, value: ["attrgetter", walker.encode(value.__reduce__()[1])],
    operator.itemgetter: lambda walker, value: ["itemgetter", walker.encode(value.__reduce__()[1])],
    operator.methodcaller: lambda walker, value: ["methodcaller", walker.encode(value.__reduce__()[1])],
    types.MethodType: _bound,
    types.CellType: _cell,
    types.GenericAlias: _alias,
    types.UnionType: lambda walker, value: ["union", *_sequence(walker, value.__args__)],
    types.SimpleNamespace: lambda walker, value: ["SimpleNamespace", _items(walker, vars(value))],
    weakref.ref: _reference,
    contextvars.ContextVar: _context,
    logging.Logger: _logger,
    logging.RootLogger: _logger,
    random.Random: _random,
    object: lambda walker, value: "object()",
    # Whoever waits for whom, the result is the same.
    **dict.fromkeys(_LOCKS, lambda walker, value: "lock"),
    threading.Event: lambda walker, value: ["Event", value.is_set()],
}

# The same object may hold something else later.
CHANGEABLE = frozenset(
    {bytearray, list, dict, set, memoryview, mmap.mmap, array.array, functools.partialmethod, types.SimpleNamespace}
    | {collections.OrderedDict, collections.Counter, collections.defaultdict, collections.deque, collections.ChainMap}
    | {types.MappingProxyType, weakref.ref, contextvars.ContextVar, random.Random, threading.Event}
)

# Contents of instances of subclasses of containers and numbers.
CONTENT: tuple[tuple[type, Callable[[Any, Any], Json]], ...] = (
    (enum.Enum, lambda walker, value: None),
    (collections.defaultdict, _defaultdict),
    (dict, _mapping("dict")),
    (list, _named("list")),
    (tuple, _named("tuple")),
    (frozenset, lambda walker, value: ["frozenset", *walker.sorted_unordered(value)]),
    (set, lambda walker, value: ["set", *walker.sorted_unordered(value)]),
    (collections.deque, _named("deque")),
    (str, lambda walker, value: _text(walker, str.__str__(value))),
    (bytes, lambda walker, value: ["bytes", digest_bytes(bytes(value))]),
    (bytearray, lambda walker, value: ["bytearray", digest_bytes(value)]),
    (int, lambda walker, value: f"int {constant(int(value))}"),
    (float, lambda walker, value: _float(float(value))),
    (functools.partial, _partial),
    (property, _property),
    (logging.Logger, _logger),
)

ADVICE: dict[str, str] = {
    "TextIOWrapper": "an open file cannot be compared; pass its path, as a pathlib.Path, and open it inside",
    "BufferedReader": "an open file cannot be compared; pass its path, as a pathlib.Path, and open it inside",
    "BufferedWriter": "an open file cannot be compared; pass its path, as a pathlib.Path, and open it inside",
    "socket": "a connection has no content; make it inside the function",
    "generator": "a generator can be read only once; pass a list",
    "Thread": "a thread has no content; start it inside the function",
}


def advice(value: Any) -> str:
    """Return what to write instead of a value that has no fingerprint."""
    name = type(value).__name__
    hint = ADVICE.get(
        name, "make it inside the function, or leave it out with __fingerprint_exclude__ = ('name',) on its class"
    )
    return f"a {type(value).__module__}.{name} has no fingerprint: {hint}"


ATOMS: frozenset[type] = frozenset(
    {type(None), bool, type(...), type(NotImplemented), int, float, complex, str, bytes, bytearray, object}
)


def canonical(content: Json) -> str:
    """Return the one text of an encoding."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def digest_json(content: Json) -> str:
    """Return the sha256 of an encoding."""
    return digest_bytes(canonical(content).encode("utf-8", "surrogatepass"))


def is_pure(kind: type) -> bool:
    """Return whether instances of a class are told apart by their content only, so that sharing one means nothing."""
    if issubclass(kind, enum.Enum | tuple) or origin_of(kind.__module__).kind == "stdlib":
        return True
    parameters = getattr(kind, "__dataclass_params__", None)
    return bool(parameters is not None and parameters.frozen)
