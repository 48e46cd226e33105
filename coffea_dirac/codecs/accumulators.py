"""Containers of ``collections`` and coffea's accumulators."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np
from coffea.processor import accumulator as coffea

from coffea_dirac.codecs.live import function_name, known_function
from coffea_dirac.codecs.plain import members, pairs, read_pairs, read_sequence, sequence
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

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
    for kind in (*_PLAIN, *_NUMBERS, OrderedDict, Counter, defaultdict, *_COFFEA)
}
_FACTORY_NAMES = {kind: name for name, kind in _FACTORIES.items()}


def writer(kind: type) -> Writer | None:
    """Return how a container or accumulator is written, or None."""
    return _WRITERS.get(kind)


def write_factory(encoder: Encoder, value: Any, factory: Any) -> Node:
    """Return the node of a ``default_factory``."""
    if factory is None:
        return None
    if type(factory) is functools.partial and not factory.__dict__:
        inner = write_factory(encoder, value, factory.func)
        # A factory among the arguments, as in partial(defaultdict, int), is a factory, not a value.
        args = [_argument(encoder, value, a) for a in factory.args]
        named = [[name, _argument(encoder, value, a)] for name, a in factory.keywords.items()]
        return ["partial", inner, args, named]
    if isinstance(factory, type) and factory in _FACTORY_NAMES:
        return _FACTORY_NAMES[factory]
    name = function_name(factory)
    if name and known_function(name) is not None:
        return ["function", name]
    raise encoder.refuse(
        value,
        f"its default_factory is {getattr(factory, '__qualname__', factory)}, which uses variables around it or cannot "
        "be found from the processor: use a type (int, float, list, ...), functools.partial of one, a function of a "
        "module, or return dict(...) of it",
    )


def _argument(encoder: Encoder, value: Any, argument: Any) -> Node:
    if isinstance(argument, type | functools.partial | FunctionType):
        return ["factory", write_factory(encoder, value, argument)]
    return ["value", encoder.node(argument)]


def read_factory(decoder: Decoder, node: Node) -> Any:
    """Return the ``default_factory`` of a node."""
    if node is None:
        return None
    if isinstance(node, str):
        return _FACTORIES[node]
    if node[0] == "function":
        function = known_function(node[1])
        if function is None:
            raise PayloadError(f"the function {node[1].rpartition(':')[0]} of a defaultdict is not known here")
        return function
    _, inner, args, named = node
    keywords = {str(name): _read_argument(decoder, argument) for name, argument in named}
    return functools.partial(read_factory(decoder, inner), *(_read_argument(decoder, a) for a in args), **keywords)


def _read_argument(decoder: Decoder, node: Sequence[Any]) -> Any:
    return read_factory(decoder, node[1]) if node[0] == "factory" else decoder.value(node[1])


def _only(encoder: Encoder, value: Any, *names: str) -> None:
    """Refuse what carries attributes besides the named ones: they would be lost."""
    more = set(getattr(value, "__dict__", ())) - set(names)
    if more:
        raise encoder.refuse(value, f"it has attributes of its own ({', '.join(sorted(more))}); keep them as items")


def _write_mapping(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value)
    return [_TAGS[type(value)], *pairs(encoder, value)]


def _write_default(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value)
    return [_TAGS[type(value)], write_factory(encoder, value, value.default_factory), *pairs(encoder, value)]


def _write_list(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value)
    return [_TAGS[type(value)], *sequence(encoder, value)]


def _write_set(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value)
    return [_TAGS[type(value)], *members(encoder, value)]


def _write_value(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value, "value", "default_factory")
    return ["coffea:value", write_factory(encoder, value, value.default_factory), encoder.item(value.value, "value")]


def _read_value(decoder: Decoder, args: Sequence[Any]) -> Any:
    found = coffea.value_accumulator(int, 0)
    found.default_factory, found.value = read_factory(decoder, args[0]), decoder.value(args[1])
    return found


def _write_column(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value, "_value", "_empty")
    return ["coffea:column", encoder.item(value._empty, "identity"), encoder.item(value.value, "value")]


def _read_column(decoder: Decoder, args: Sequence[Any]) -> Any:
    found = coffea.column_accumulator(decoder.value(args[0]))
    found._empty, found._value = found._value, decoder.value(args[1])
    return found


_TAGS: Mapping[type, str] = {
    OrderedDict: "collections:OrderedDict",
    Counter: "collections:Counter",
    defaultdict: "collections:defaultdict",
    coffea.dict_accumulator: "coffea:dict",
    coffea.defaultdict_accumulator: "coffea:defaultdict",
    coffea.list_accumulator: "coffea:list",
    coffea.set_accumulator: "coffea:set",
}
_WRITERS: Mapping[type, Writer] = {
    OrderedDict: _write_mapping,
    Counter: _write_mapping,
    coffea.dict_accumulator: _write_mapping,
    defaultdict: _write_default,
    coffea.defaultdict_accumulator: _write_default,
    coffea.list_accumulator: _write_list,
    coffea.set_accumulator: _write_set,
    coffea.value_accumulator: _write_value,
    coffea.column_accumulator: _write_column,
}
READERS: Mapping[str, Reader] = {
    "collections:OrderedDict": lambda decoder, args: OrderedDict(read_pairs(decoder, args)),
    "collections:Counter": lambda decoder, args: Counter(read_pairs(decoder, args)),
    "collections:defaultdict": lambda d, args: defaultdict(read_factory(d, args[0]), read_pairs(d, args[1:])),
    "coffea:dict": lambda decoder, args: coffea.dict_accumulator(read_pairs(decoder, args)),
    "coffea:defaultdict": lambda d, args: coffea.defaultdict_accumulator(
        read_factory(d, args[0]), read_pairs(d, args[1:])
    ),
    "coffea:list": lambda decoder, args: coffea.list_accumulator(read_sequence(decoder, args)),
    "coffea:set": lambda decoder, args: coffea.set_accumulator(read_sequence(decoder, args)),
    "coffea:value": _read_value,
    "coffea:column": _read_column,
}
