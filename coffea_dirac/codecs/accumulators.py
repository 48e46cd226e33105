"""Containers of ``collections`` and coffea's accumulators."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from coffea_dirac.codecs.factories import COFFEA, read_factory, write_factory
from coffea_dirac.codecs.plain import members, pairs, read_pairs, read_sequence, sequence
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer


def writer(kind: type) -> Writer | None:
    """Return how a container or accumulator is written, or None."""
    return _WRITERS.get(kind)


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


def _write_deque(encoder: Encoder, value: Any) -> Node:
    return ["collections:deque", value.maxlen, *sequence(encoder, value)]


def _write_set(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value)
    return [_TAGS[type(value)], *members(encoder, value)]


def _write_value(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value, "value", "default_factory")
    return ["coffea:value", write_factory(encoder, value, value.default_factory), encoder.item(value.value, "value")]


def _read_value(decoder: Decoder, args: Sequence[Any]) -> Any:
    found = COFFEA.value_accumulator(int, 0)
    found.default_factory, found.value = read_factory(decoder, args[0]), decoder.value(args[1])
    return found


def _write_column(encoder: Encoder, value: Any) -> Node:
    _only(encoder, value, "_value", "_empty")
    return ["coffea:column", encoder.item(value._empty, "identity"), encoder.item(value.value, "value")]


def _read_column(decoder: Decoder, args: Sequence[Any]) -> Any:
    found = COFFEA.column_accumulator(decoder.value(args[0]))
    found._empty, found._value = found._value, decoder.value(args[1])
    return found


_TAGS: dict[type, str] = {
    OrderedDict: "collections:OrderedDict",
    Counter: "collections:Counter",
    defaultdict: "collections:defaultdict",
}
_WRITERS: dict[type, Writer] = {
    OrderedDict: _write_mapping,
    Counter: _write_mapping,
    deque: _write_deque,
    defaultdict: _write_default,
}
if COFFEA is not None:
    _TAGS |= {
        COFFEA.dict_accumulator: "coffea:dict",
        COFFEA.defaultdict_accumulator: "coffea:defaultdict",
        COFFEA.list_accumulator: "coffea:list",
        COFFEA.set_accumulator: "coffea:set",
    }
    _WRITERS |= {
        COFFEA.dict_accumulator: _write_mapping,
        COFFEA.defaultdict_accumulator: _write_default,
        COFFEA.list_accumulator: _write_list,
        COFFEA.set_accumulator: _write_set,
        COFFEA.value_accumulator: _write_value,
        COFFEA.column_accumulator: _write_column,
    }
READERS: Mapping[str, Reader] = {
    "collections:OrderedDict": lambda decoder, args: OrderedDict(read_pairs(decoder, args)),
    "collections:Counter": lambda decoder, args: Counter(read_pairs(decoder, args)),
    "collections:deque": lambda decoder, args: deque(read_sequence(decoder, args[1:]), args[0]),
    "collections:defaultdict": lambda d, args: defaultdict(read_factory(d, args[0]), read_pairs(d, args[1:])),
    "coffea:dict": lambda decoder, args: COFFEA.dict_accumulator(read_pairs(decoder, args)),
    "coffea:defaultdict": lambda d, args: COFFEA.defaultdict_accumulator(
        read_factory(d, args[0]), read_pairs(d, args[1:])
    ),
    "coffea:list": lambda decoder, args: COFFEA.list_accumulator(read_sequence(decoder, args)),
    "coffea:set": lambda decoder, args: COFFEA.set_accumulator(read_sequence(decoder, args)),
    "coffea:value": _read_value,
    "coffea:column": _read_column,
}
