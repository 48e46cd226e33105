"""What a ``default_factory`` may be: types, partials of them, and functions that this process has already."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import hist
import numpy as np
from coffea.processor import accumulator as coffea

from coffea_dirac.codecs.live import function_name, is_closed, known_code, known_function, rebinds
from coffea_dirac.codecs.objects import class_name, class_of, why_not
from coffea_dirac.codecs.tree import Decoder, Encoder, Node
from coffea_dirac.errors import CodecError, PayloadError

_COFFEA = (
    coffea.value_accumulator,
    coffea.list_accumulator,
    coffea.set_accumulator,
    coffea.dict_accumulator,
    coffea.defaultdict_accumulator,
    coffea.column_accumulator,
)
_PLAIN = (int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset)
_NUMBERS = tuple(getattr(np, name) for name in ("int32", "int64", "uint32", "uint64", "float32", "float64", "bool_"))
# What a default_factory may be: calling one makes an empty or zero value and does nothing else.
_FACTORIES: Mapping[str, Any] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (*_PLAIN, *_NUMBERS, OrderedDict, Counter, defaultdict, deque, *_COFFEA)
}
_FACTORY_NAMES = {kind: name for name, kind in _FACTORIES.items()}
_MAKERS: Mapping[str, Any] = {
    **{f"numpy.{name}": getattr(np, name) for name in ("zeros", "ones", "full", "array")},
    "hist.Hist": hist.Hist,
}
_INSTEAD = "use a type (int, float, list, ...), functools.partial of one, a function of a module, or return dict(...) of it"


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
            f"processor or assigns to variables around it; {_INSTEAD}",
        )
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        defaults = function.__defaults__
        around = [defaults and list(defaults), function.__kwdefaults__, cells]
        return ["closure", name, *(a if a is None else _around(encoder, value, a) for a in around)]
    except (CodecError, ValueError) as error:
        raise encoder.refuse(
            value,
            f"its default_factory is {function.__qualname__}, and a variable around it cannot be kept ({error}); "
            "give it what it needs of self as a local variable of a plain type",
        ) from error


def _around(encoder: Encoder, value: Any, items: list[Any] | dict[str, Any]) -> Node:
    if isinstance(items, dict):
        return [[name, _argument(encoder, value, item)] for name, item in items.items()]
    return [_argument(encoder, value, item) for item in items]


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
