"""Bytes of records and of tables of rows; no store is touched here.

A record is ``prefix | statement | signature | payload``.  The statement is canonical JSON of all that the record says
of itself (key, discovered inputs, second key, digest of the payload, codec, info); it can be made again from the
record's row, so one comparison of bytes tells a record that lies at the wrong place from the right one.

A table of rows is JSON by columns, followed by a trailer with its digest and its length: footers of packs and index
blobs both end in one, and what has no valid trailer does not exist.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coffea_dirac.errors import CorruptRecordError
from coffea_dirac.interfaces import Discovered, Json, Record, Row

Signer = Callable[[bytes], str]
"""Takes a statement, returns its signature."""
Verifier = Callable[[bytes, str], bool]
"""Takes a statement and a signature, says whether they belong together."""

_RECORD_MAGIC = b"CDrec01\n"
_TABLE_MAGIC = b"CDtab01\n"
# magic, sizes of statement, signature and payload, digest of statement and signature
_PREFIX = struct.Struct("<8sIIQ32s")
# digest of the table, its size, magic
_TRAILER = struct.Struct("<32sQ8s")
TRAILER_SIZE = _TRAILER.size
_KINDS = ("metadata", "file", "written")
_SAME_IN_JSON = frozenset({str, int, float, bool, type(None)})


_as_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def canonical(value: Json) -> bytes:
    """Return JSON that is the same for equal values in every process."""
    return _as_json(value).encode("ascii")


def statement(row: Row) -> bytes:
    """Return what a record says of itself, made from its row; this is what is signed."""
    return _statement(row, row.inputs, row.digest, row.info)


def _statement(what: Record | Row, inputs: Sequence[Discovered], digest: str, info: Json) -> bytes:
    return canonical(["record 1", what.key, inputs, what.second_key, digest, what.codec, info])


def record_bytes(record: Record, *, pack: str, offset: int, signer: Signer | None = None) -> tuple[Row, bytes]:
    """Return the row and the bytes of a record that will lie at `offset` of `pack`."""
    digest = hashlib.sha256(record.payload).hexdigest()
    inputs = tuple(Discovered(*i) for i in record.inputs)
    info: Mapping[str, Json] = dict(record.info)
    said = _statement(record, inputs, digest, info)
    if not _SAME_IN_JSON.issuperset(map(type, info.values())):
        # As the reader of this record will have it, whose statement must be the same.
        info = json.loads(said)[-1]
    signature = signer(said) if signer is not None else ""
    signed = signature.encode("ascii")
    prefix = _PREFIX.pack(
        _RECORD_MAGIC, len(said), len(signed), len(record.payload), hashlib.sha256(said + signed).digest()
    )
    data = b"".join((prefix, said, signed, record.payload))
    return Row(
        record.key, inputs, record.second_key, digest, record.codec, pack, offset, len(data), signature, info
    ), data


def payload_of(row: Row, data: bytes | memoryview, verifier: Verifier | None = None) -> bytes:
    """Return the payload of a record after checking all of it against its row.

    Raises
    ------
    CorruptRecordError
        If anything differs from what was kept, or the signature does not hold.
    """
    place = f"{row.pack} at {row.offset}"
    if len(data) != row.length or len(data) < _PREFIX.size:
        raise CorruptRecordError(f"{place}: {len(data)} bytes where {row.length} were kept")
    magic, n_said, n_signed, n_payload, digest = _PREFIX.unpack_from(data)
    if magic != _RECORD_MAGIC:
        raise CorruptRecordError(f"{place}: there is no record")
    begin = _PREFIX.size + n_said + n_signed
    if begin + n_payload != len(data):
        raise CorruptRecordError(f"{place}: the record's own sizes do not add up")
    head = bytes(data[_PREFIX.size : begin])
    said, signed = head[:n_said], head[n_said:]
    if hashlib.sha256(head).digest() != digest:
        raise CorruptRecordError(f"{place}: the record's header is damaged")
    if said != statement(row) or signed != row.signature.encode("ascii", "replace"):
        raise CorruptRecordError(f"{place}: there is a record of something else than {row.key[:12]}")
    if verifier is not None and not verifier(said, row.signature):
        raise CorruptRecordError(f"{place}: the signature does not hold")
    payload = bytes(data[begin:])
    if hashlib.sha256(payload).hexdigest() != row.digest:
        raise CorruptRecordError(f"{place}: the payload is damaged")
    return payload


@dataclass(frozen=True)
class Table:
    """Rows by columns, as they lie in a footer or an index blob; `row` makes one of them."""

    packs: Sequence[str]
    inputs: Sequence[tuple[Discovered, ...]]
    codecs: Sequence[str]
    shared: Sequence[Mapping[str, Json]]
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.columns["key"])

    @property
    def keys(self) -> Sequence[str]:
        """The key of each row."""
        return self.columns["key"]

    def row(self, i: int) -> Row:
        """Return row `i`."""
        c = self.columns
        return Row(
            key=c["key"][i],
            inputs=self.inputs[c["inputs"][i]],
            second_key=c["second_key"][i],
            digest=c["digest"][i],
            codec=self.codecs[c["codec"][i]],
            pack=self.packs[c["pack"][i]],
            offset=c["offset"][i],
            length=c["length"][i],
            signature=c["signature"][i],
            info={**self.shared[c["shared"][i]], **c["own"][i]},
        )


class _Values:
    """Values numbered in the order in which they come; 100,000 rows share few of them."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, name: Any, value: Any) -> int:
        number = self._numbers.setdefault(name, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


_REFERENCES = ("pack", "inputs", "codec", "shared")
_TEXTS = ("key", "second_key", "digest", "signature")
_SIZES = ("offset", "length")


def table_bytes(rows: Sequence[Row]) -> bytes:
    """Return rows as a table with its trailer."""
    packs, inputs, codecs, shared = _Values(), _Values(), _Values(), _Values()
    columns: dict[str, list[Any]] = {name: [] for name in (*_REFERENCES, *_TEXTS, *_SIZES, "own")}
    for row in rows:
        own = {k: v for k, v in row.info.items() if isinstance(v, int | float)}
        common = {k: v for k, v in row.info.items() if k not in own}
        numbers = (
            packs.number(row.pack, row.pack),
            inputs.number(row.inputs, row.inputs),
            codecs.number(row.codec, row.codec),
            shared.number(canonical(common), common),
        )
        cells = (*numbers, row.key, row.second_key, row.digest, row.signature, row.offset, row.length, own)
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return _table_bytes(packs, inputs, codecs, shared, columns)


def _table_bytes(
    packs: _Values, inputs: _Values, codecs: _Values, shared: _Values, columns: Mapping[str, Sequence[Any]]
) -> bytes:
    parts = {"packs": packs.values, "inputs": inputs.values, "codecs": codecs.values, "shared": shared.values}
    body = canonical({**parts, "columns": columns})
    return body + _TRAILER.pack(hashlib.sha256(body).digest(), len(body), _TABLE_MAGIC)


def joined_bytes(tables: Iterable[Table], packs: Collection[str]) -> bytes:
    """Return one table of the rows of many that lie in `packs`, each once; nothing is made of a row on the way."""
    values = {name: _Values() for name in _REFERENCES}
    columns: dict[str, list[Any]] = {name: [] for name in (*_REFERENCES, *_TEXTS, *_SIZES, "own")}
    seen: set[tuple[str, int]] = set()
    for table in tables:
        places = list(zip((table.packs[i] for i in table.columns["pack"]), table.columns["offset"], strict=True))
        new: dict[tuple[str, int], int] = {}
        for i, place in enumerate(places):
            if place[0] in packs and place not in seen:
                new.setdefault(place, i)
        seen.update(new)
        wanted = new.values()
        for name, column in columns.items():
            cells = [table.columns[name][i] for i in wanted]
            column.extend(_renumbered(name, cells, table, values[name]) if name in values else cells)
    return _table_bytes(values["pack"], values["inputs"], values["codec"], values["shared"], columns)


def _renumbered(name: str, cells: Sequence[int], table: Table, values: _Values) -> list[int]:
    old = {"pack": table.packs, "inputs": table.inputs, "codec": table.codecs, "shared": table.shared}[name]
    numbers = {}
    for cell in dict.fromkeys(cells):
        value: Any = old[cell]
        numbers[cell] = values.number(canonical(value) if name == "shared" else value, value)
    return [numbers[cell] for cell in cells]


def table_size(tail: bytes) -> int:
    """Return the size of the table that `tail` ends with, trailer included.

    Raises
    ------
    CorruptRecordError
        If `tail` does not end with a trailer.
    """
    if len(tail) < TRAILER_SIZE or not tail.endswith(_TABLE_MAGIC):
        raise CorruptRecordError("it does not end as a pack or an index does")
    return int(_TRAILER.unpack(tail[-TRAILER_SIZE:])[1]) + TRAILER_SIZE


def read_table(tail: bytes, *, pack: str | None = None) -> Table:
    """Return the table that `tail` ends with; `pack` is where its rows lie if that is not in the table.

    Raises
    ------
    CorruptRecordError
        If there is no table, or it is damaged.
    """
    size = table_size(tail)
    if size > len(tail):
        raise CorruptRecordError("its table is cut off")
    body = tail[len(tail) - size : len(tail) - TRAILER_SIZE]
    if hashlib.sha256(body).digest() != _TRAILER.unpack(tail[-TRAILER_SIZE:])[0]:
        raise CorruptRecordError("its table is damaged")
    try:
        return _checked(json.loads(body), pack)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # Whole, yet not ours: somebody else's format, or made to deceive.
        raise CorruptRecordError(f"its table is none of rows ({type(error).__name__}: {error})") from error


def _checked(found: Any, pack: str | None) -> Table:
    """Return a table all of whose cells can be trusted to be of the right type and in range."""
    columns = {name: found["columns"][name] for name in (*_REFERENCES, *_TEXTS, *_SIZES, "own")}
    inputs = [tuple(_input(*i) for i in value) for value in found["inputs"]]
    packs = [pack] * len(found["packs"]) if pack is not None else list(map(_text, found["packs"]))
    table = Table(packs, inputs, list(map(_text, found["codecs"])), [dict(v) for v in found["shared"]], columns)
    lengths = {"pack": len(packs), "inputs": len(inputs), "codec": len(table.codecs), "shared": len(table.shared)}
    for name, column in columns.items():
        kind = str if name in _TEXTS else dict if name == "own" else int
        if not isinstance(column, list) or len(column) != len(columns["key"]) or set(map(type, column)) - {kind}:
            raise ValueError(f"a wrong column {name}")
        if kind is int and column and (min(column) < 0 or max(column) >= lengths.get(name, 2**62)):
            raise ValueError(f"a cell of {name} out of range")
    return table


def _input(kind: Any, name: Any, digest: Any) -> Discovered:
    if kind not in _KINDS:
        raise ValueError("a discovered input of an unknown kind")
    return Discovered(kind, _text(name), _text(digest))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} for a text")
    return value
