"""What a ``default_factory`` may be: types, partials of them, and functions that this process has already."""

from __future__ import annotations

import enum
import functools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import boost_histogram as bh
import hist
import numpy as np

from coffea_dirac.codecs.live import function_name, is_closed, known_code, known_function, rebinds
from coffea_dirac.codecs.objects import class_name, class_of, why_not
from coffea_dirac.codecs.tree import Decoder, Encoder, Node
from coffea_dirac.errors import PayloadError

try:
    from coffea.processor import accumulator as _accumulator
except ImportError:
    _accumulator = None

COFFEA: Any = _accumulator
"""coffea's accumulators, None without coffea: graphs of dask are cached without it as well."""
_ACCUMULATORS = tuple(
    getattr(COFFEA, f"{name}_accumulator")
    for name in ("value", "list", "set", "dict", "defaultdict", "column")
    if COFFEA is not None
)
_PLAIN = (int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset)
_NUMBERS = tuple(getattr(np, name) for name in ("int32", "int64", "uint32", "uint64", "float32", "float64", "bool_"))
# What a default_factory may be: calling one makes an empty or zero value and does nothing else.
_FACTORIES: Mapping[str, Any] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (*_PLAIN, *_NUMBERS, OrderedDict, Counter, defaultdict, deque, *_ACCUMULATORS)
}
_FACTORY_NAMES = {kind: name for name, kind in _FACTORIES.items()}
_MAKERS: Mapping[str, Any] = {
    **{f"numpy.{name}": getattr(np, name) for name in ("zeros", "ones", "full", "array")},
    "hist.Hist": hist.Hist,
}
# What variables around a function may hold.
_LEAVES = (
    *(bool, int, float, complex, str, bytes, type, np.generic, np.dtype),
    *(functools.partial, FunctionType, bh.axis.Axis, bh.storage.Storage, enum.Enum),
)
_MOST_ITEMS, _MOST_BYTES = 1000, 1 << 16
_INSTEAD = "use a type (int, list, ...), functools.partial of one, a function of a module, or return dict(...) of it"


def write_factory(encoder: Encoder, value: Any, factory: Any) -> Node:
    """Return the node of a ``default_factory``."""
    if factory is None:
        return None
    if type(factory) is functools.partial and not factory.__dict__:
        inner = write_factory(encoder, value, factory.func)
        named = [[name, _argument(encoder, value, a)] for name, a in factory.keywords.items()]
        return ["partial", inner, [_argument(encoder, value, a) for a in factory.args], named]
    for name, maker in _MAKERS.items():
        if factory is maker:
            return name
    if not isinstance(factory, type):
        return _write_function(encoder, value, factory)
    if factory in _FACTORY_NAMES:
        return _FACTORY_NAMES[factory]
    if why := why_not(factory):
        raise encoder.refuse(value, f"its default_factory is {factory.__qualname__}, and {why}; {_INSTEAD}")
    return ["class", *class_name(encoder, value, factory)]


def _write_function(encoder: Encoder, value: Any, function: Any) -> Node:
    name = function_name(function)
    known = known_function(name) if name else None
    if known is function or (known is not None and is_closed(function)):
        return ["function", name]
    if not name or known_code(name) is None or rebinds(function.__code__):
        raise encoder.refuse(
            value,
            f"its default_factory is {getattr(function, '__qualname__', function)}, which cannot be found from the "
            f"processor or assigns to variables around it: {_INSTEAD}",
        )
    if (around := _around(function)) is None:
        raise encoder.refuse(
            value,
            f"its default_factory is {function.__qualname__}, and a variable around it is no plain value: give it what "
            "it needs of self or of events as a local variable (numbers, texts, small arrays, axes, types)",
        )
    defaults, named, cells = around
    return [
        "closure",
        name,
        defaults and [_argument(encoder, value, item) for item in defaults],
        named and [[key, _argument(encoder, value, item)] for key, item in named.items()],
        [_argument(encoder, value, item) for item in cells],
    ]


def _around(function: FunctionType) -> tuple[Any, Any, list[Any]] | None:
    """Return what a function needs besides its code: defaults and the variables around it; None if not all is plain."""
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:
        return None
    around = function.__defaults__, function.__kwdefaults__, cells
    return around if all(map(_is_plain, around)) else None


def _is_plain(item: Any) -> bool:
    """Whether an item is small and stands for itself: never the events, whose columns would all be read."""
    if isinstance(item, list | tuple | set | frozenset):
        return len(item) <= _MOST_ITEMS and all(map(_is_plain, item))
    if isinstance(item, dict):
        return _is_plain(list(item)) and _is_plain(list(item.values()))
    if isinstance(item, np.ndarray):
        return type(item) is np.ndarray and item.nbytes <= _MOST_BYTES
    return item is None or isinstance(item, _LEAVES)


def _argument(encoder: Encoder, value: Any, argument: Any) -> Node:
    # A factory among the arguments, as in partial(defaultdict, int), is a factory, not a value.
    if isinstance(argument, type | functools.partial | FunctionType):
        return ["factory", write_factory(encoder, value, argument)]
    return ["value", encoder.item(argument, "default_factory")]


def read_factory(decoder: Decoder, node: Node) -> Any:
    """Return the ``default_factory`` of a node."""
    if node is None:
        return None
    if isinstance(node, str):
        return _FACTORIES[node] if node in _FACTORIES else _MAKERS[node]
    if node[0] == "class":
        return class_of(node[1], node[2], why_not)
    if node[0] in ("function", "closure"):
        return _read_function(decoder, *node)
    if node[0] != "partial":
        raise PayloadError(f"it has a default_factory {node[0]!r}, which this version does not know")
    _, inner, args, named = node
    keywords = {str(name): _read_argument(decoder, argument) for name, argument in named}
    return functools.partial(read_factory(decoder, inner), *(_read_argument(decoder, a) for a in args), **keywords)


def _read_function(decoder: Decoder, kind: str, name: str, *around: Any) -> Any:
    function, code = known_function(name), known_code(name)
    if kind == "function" and function is not None:
        return function
    if kind == "function" or code is None:
        raise PayloadError(f"the function {name.rpartition(':')[0]} of a defaultdict is not known here")
    defaults, named, cells = around
    made = FunctionType(
        *code,
        argdefs=None if defaults is None else tuple(_read_argument(decoder, a) for a in defaults),
        closure=tuple(CellType(_read_argument(decoder, a)) for a in cells),
    )
    made.__kwdefaults__ = None if named is None else {str(n): _read_argument(decoder, a) for n, a in named}
    made.__qualname__, made.__module__ = code[0].co_qualname, name.partition(":")[0]
    return made


def _read_argument(decoder: Decoder, node: Sequence[Any]) -> Any:
    return read_factory(decoder, node[1]) if node[0] == "factory" else decoder.value(node[1])
