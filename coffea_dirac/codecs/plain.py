"""Values of Python itself: numbers, texts, bytes, lists, tuples, sets, dicts."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coffea_dirac.errors import PayloadError

if TYPE_CHECKING:
    from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer


def _write_itself(_: Encoder, value: Any) -> Node:
    return value


def _write_int(_: Encoder, value: int) -> Node:
    return value if -(1 << 63) <= value < 1 << 63 else ["int", hex(value)]


def _write_float(_: Encoder, value: float) -> Node:
    # JSON has no word for infinities, and none for the bits of a NaN.
    return value if value - value == 0.0 else ["float", struct.pack("<d", value).hex()]


def _write_complex(encoder: Encoder, value: complex) -> Node:
    return ["complex", _write_float(encoder, value.real), _write_float(encoder, value.imag)]


def _write_str(_: Encoder, value: str) -> Node:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON would join two surrogates into one character.
            return ["str", value.encode("utf-8", "surrogatepass").hex()]
    return value


def _write_bytes(encoder: Encoder, value: bytes | bytearray) -> Node:
    return [type(value).__name__, encoder.buffer(bytes(value))]


def _write_sequence(encoder: Encoder, value: Sequence[Any]) -> Node:
    return [type(value).__name__, *sequence(encoder, value)]


def _write_set(encoder: Encoder, value: set[Any] | frozenset[Any]) -> Node:
    return [type(value).__name__, *members(encoder, value)]


def _write_dict(encoder: Encoder, value: dict[Any, Any]) -> Node:
    return ["dict", *pairs(encoder, value)]


def sequence(encoder: Encoder, value: Sequence[Any]) -> list[Node]:
    """Return the nodes of the items of a sequence."""
    return [encoder.item(item, i) for i, item in enumerate(value)]


def pairs(encoder: Encoder, value: Mapping[Any, Any]) -> list[Node]:
    """Return the nodes of keys and values in turn, in their order."""
    nodes: list[Node] = []
    for key, item in value.items():
        nodes += (encoder.item(key, key), encoder.item(item, key))
    return nodes


def members(encoder: Encoder, value: set[Any] | frozenset[Any]) -> list[Node]:
    """Return the nodes of the members of a set, in the order of their bytes: sets differ in order between processes."""
    return [encoder.item(member, member) for member in sorted(value, key=encoder.alone)]


def read_pairs(decoder: Decoder, nodes: Sequence[Any]) -> dict[Any, Any]:
    """Return what `pairs` made nodes of."""
    values = iter(nodes)
    found = {decoder.value(key): decoder.value(item) for key, item in zip(values, values, strict=True)}
    if 2 * len(found) != len(nodes):
        raise PayloadError("a key comes twice in one of its dicts")
    return found


def read_sequence(decoder: Decoder, nodes: Sequence[Any]) -> list[Any]:
    """Return what `sequence` or `members` made nodes of."""
    return [decoder.value(node) for node in nodes]


SIMPLE: Mapping[type, Writer] = {
    type(None): _write_itself,
    bool: _write_itself,
    int: _write_int,
    float: _write_float,
    str: _write_str,
}
"""How values are written that contain no others and can always be written."""
WRITERS: Mapping[type, Writer] = {
    **SIMPLE,
    complex: _write_complex,
    bytes: _write_bytes,
    bytearray: _write_bytes,
    list: _write_sequence,
    tuple: _write_sequence,
    set: _write_set,
    frozenset: _write_set,
    dict: _write_dict,
}
READERS: Mapping[str, Reader] = {
    "int": lambda _, args: int(args[0], 16),
    "float": lambda _, args: struct.unpack("<d", bytes.fromhex(args[0]))[0],
    "complex": lambda decoder, args: complex(decoder.value(args[0]), decoder.value(args[1])),
    "str": lambda _, args: bytes.fromhex(args[0]).decode("utf-8", "surrogatepass"),
    "bytes": lambda decoder, args: bytes(decoder.buffer(args[0])),
    "bytearray": lambda decoder, args: bytearray(decoder.buffer(args[0])),
    "list": read_sequence,
    "tuple": lambda decoder, args: tuple(read_sequence(decoder, args)),
    "set": lambda decoder, args: set(read_sequence(decoder, args)),
    "frozenset": lambda decoder, args: frozenset(read_sequence(decoder, args)),
    "dict": read_pairs,
}
