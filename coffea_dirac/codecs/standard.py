"""Values of Python's standard library: dates and times, decimals, paths, ranges, arrays and the like."""

from __future__ import annotations

import array
import datetime as dt
import decimal
import fractions
import pathlib
import sys
import types
import uuid
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any

from coffea_dirac.codecs.plain import pairs, read_pairs
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

_PATHS: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}
# Numbers; an array of characters is no business of results.
_LETTERS = frozenset("bBhHiIlLqQfd")


def writer(kind: type) -> Writer | None:
    """Return how a value of the standard library is written, or None."""
    return _WRITERS.get(kind)


def _write_datetime(encoder: Encoder, value: dt.datetime) -> Node:
    parts = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond]
    return ["datetime:datetime", parts, value.fold, encoder.node(value.tzinfo)]


def _write_time(encoder: Encoder, value: dt.time) -> Node:
    parts = [value.hour, value.minute, value.second, value.microsecond]
    return ["datetime:time", parts, value.fold, encoder.node(value.tzinfo)]


def _write_duration(_: Encoder, value: dt.timedelta) -> Node:
    return ["datetime:timedelta", value.days, value.seconds, value.microseconds]


def _write_timezone(encoder: Encoder, value: dt.timezone) -> Node:
    # What it was made of; the name is given or follows from the offset.
    return ["datetime:timezone", *(encoder.node(part) for part in value.__getinitargs__())]  # type: ignore[attr-defined]


def _write_zone(encoder: Encoder, value: zoneinfo.ZoneInfo) -> Node:
    if value.key is None or zoneinfo.ZoneInfo(value.key) is not value:
        raise encoder.refuse(value, "it is not the zone of its name; use ZoneInfo(name)")
    return ["zoneinfo:zone", value.key]


def _write_path(encoder: Encoder, value: pathlib.PurePath) -> Node:
    return ["pathlib:path", type(value).__name__, encoder.node(str(value))]


def _write_slice(encoder: Encoder, value: slice) -> Node:
    return ["builtins:slice", *map(encoder.node, (value.start, value.stop, value.step))]


def _write_range(encoder: Encoder, value: range) -> Node:
    return ["builtins:range", *map(encoder.node, (value.start, value.stop, value.step))]


def _write_namespace(encoder: Encoder, value: types.SimpleNamespace) -> Node:
    return ["types:namespace", *pairs(encoder, vars(value))]


def _write_proxy(encoder: Encoder, value: Any) -> Node:
    # Which mapping is behind it cannot be asked; its copy is of that type.
    return ["types:proxy", encoder.node(value.copy())]


def _write_array(encoder: Encoder, value: array.array[Any]) -> Node:
    if value.typecode not in _LETTERS:
        raise encoder.refuse(value, "it is an array of characters; use a str")
    return ["array:array", value.typecode, value.itemsize, sys.byteorder, encoder.buffer(value.tobytes())]


def _read_array(decoder: Decoder, args: Sequence[Any]) -> array.array[Any]:
    letter, size, order, number = args
    if letter not in _LETTERS or array.array(letter).itemsize != size:
        raise PayloadError("it has an array.array of another kind of machine")
    found: array.array[Any] = array.array(letter, bytes(decoder.buffer(number)))
    if order != sys.byteorder:
        found.byteswap()
    return found


def _read_uuid(_: Decoder, args: Sequence[Any]) -> uuid.UUID:
    return uuid.UUID(args[0], is_safe=uuid.SafeUUID(args[1]))


_WRITERS: Mapping[type, Writer] = {
    dt.datetime: _write_datetime,
    dt.date: lambda _, value: ["datetime:date", value.year, value.month, value.day],
    dt.time: _write_time,
    dt.timedelta: _write_duration,
    dt.timezone: _write_timezone,
    zoneinfo.ZoneInfo: _write_zone,
    decimal.Decimal: lambda _, value: ["decimal:decimal", str(value)],
    fractions.Fraction: lambda encoder, value: [
        "fractions:fraction",
        encoder.node(value.numerator),
        encoder.node(value.denominator),
    ],
    uuid.UUID: lambda _, value: ["uuid:uuid", value.hex, value.is_safe.value],
    **dict.fromkeys(_PATHS.values(), _write_path),
    range: _write_range,
    slice: _write_slice,
    type(Ellipsis): lambda *_: ["builtins:ellipsis"],
    types.SimpleNamespace: _write_namespace,
    types.MappingProxyType: _write_proxy,
    array.array: _write_array,
}
READERS: Mapping[str, Reader] = {
    "datetime:datetime": lambda d, args: dt.datetime(*args[0]).replace(fold=args[1], tzinfo=d.value(args[2])),
    "datetime:date": lambda _, args: dt.date(*args),
    "datetime:time": lambda d, args: dt.time(*args[0]).replace(fold=args[1], tzinfo=d.value(args[2])),
    "datetime:timedelta": lambda _, args: dt.timedelta(*args),
    "datetime:timezone": lambda decoder, args: dt.timezone(*map(decoder.value, args)),
    "zoneinfo:zone": lambda _, args: zoneinfo.ZoneInfo(args[0]),
    "decimal:decimal": lambda _, args: decimal.Decimal(args[0]),
    "fractions:fraction": lambda decoder, args: fractions.Fraction(*map(decoder.value, args)),
    "uuid:uuid": _read_uuid,
    "pathlib:path": lambda decoder, args: _PATHS[args[0]](decoder.value(args[1])),
    "builtins:range": lambda decoder, args: range(*map(decoder.value, args)),
    "builtins:slice": lambda decoder, args: slice(*map(decoder.value, args)),
    "builtins:ellipsis": lambda *_: Ellipsis,
    "types:namespace": lambda decoder, args: types.SimpleNamespace(**read_pairs(decoder, args)),
    "types:proxy": lambda decoder, args: types.MappingProxyType(decoder.value(args[0])),
    "array:array": _read_array,
}
