"""The walk over a result: a small tree in JSON, and beside it the large buffers as they are in memory.

A payload is ``size of the head | head | buffers``, all aligned to eight bytes.  The head is JSON, ``[tree, sizes]``.
In the tree None, bool, str, finite floats and integers below 2**63 stand for themselves; everything else is a list
that begins with the name of its kind.  A `Payload` may be a part of a result: then its bytes are a buffer as they are.
Equal values of equal types make equal bytes in every process; which kinds there are is written here and in the modules
of `_GROUPS`, so a payload can name no code to be run.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coffea_dirac.codecs import plain
from coffea_dirac.errors import CodecError, ConfigurationError, PayloadError

Node = Any
"""A value that ``json.dumps`` takes and ``json.loads`` gives back as it was."""
Writer = Callable[["Encoder", Any], Node]
Reader = Callable[["Decoder", Sequence[Any]], Any]

CODEC = "tree/1"
PAYLOAD = "coffea_dirac:payload"
"""Kind of the node of a payload."""
_DEEPEST = 100
_HEAD = struct.Struct("<Q")
_ALIGNMENT = 8
_as_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
# Where the kinds of a library are described, by the first part of its types' module.
_GROUPS = {
    "numpy": "arrays",
    "awkward": "columns",
    "hist": "histograms",
    "boost_histogram": "histograms",
    "collections": "accumulators",
    "coffea": "accumulators",
    "coffea_dirac": "filesets",
    "pandas": "frames",
    **dict.fromkeys(
        ("array", "builtins", "datetime", "decimal", "fractions", "pathlib", "types", "uuid", "zoneinfo"), "standard"
    ),
}


class Payload(NamedTuple):
    """A result as bytes, and the name of the codec that reads them; in another result it stands for what it holds."""

    codec: str
    data: bytes


@dataclass(frozen=True)
class _Own:
    """How a type of the user's is written."""

    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


_own_by_type: dict[type, _Own] = {}
_own_by_name: dict[str, _Own] = {}


def register_codec(kind: type, dump: Callable[[Any], Any], load: Callable[[Any], Any], *, version: int = 1) -> None:
    """Teach the cache to keep results of a type of your own.

    Call it where the type is defined, at the top level of a module that the workers import too.

    Parameters
    ----------
    kind : type
        The type; exactly this one, not its subclasses.
    dump : callable
        Takes a value, returns bytes or anything else that can be kept (a dict of arrays, a histogram, ...).
    load : callable
        Takes what `dump` returned, returns an equal value.
    version : int
        Raise it when `load` no longer understands what an earlier `dump` wrote; what that wrote is then computed again.

    Examples
    --------
    >>> import ipaddress
    >>> register_codec(ipaddress.IPv4Address, str, ipaddress.IPv4Address)
    >>> decode(*encode({"worker": ipaddress.IPv4Address("127.0.0.1")}))
    {'worker': IPv4Address('127.0.0.1')}
    """
    if not isinstance(kind, type) or not callable(dump) or not callable(load):
        raise ConfigurationError("register_codec takes a type and two functions: register_codec(Cutflow, dump, load)")
    if "<locals>" in kind.__qualname__:
        raise ConfigurationError(
            f"{kind.__qualname__} is defined inside a function, where no other process finds it; define it at top level"
        )
    if kind in plain.WRITERS or _of_library(kind) is not None:
        raise ConfigurationError(f"{_name(kind)} is kept already; register_codec is for other types")
    own = _Own(f"{_name(kind)}/{version}", dump, load)
    _own_by_type[kind] = own
    _own_by_name[own.name] = own


def encode(value: Any) -> Payload:
    """Return a result as bytes.

    Raises
    ------
    CodecError
        If a part of it has no codec; `CodecError.path` says which.

    Examples
    --------
    >>> payload = encode({"cutflow": {"all": 10, "4j2b": 3}, "seen": {2, 1}})
    >>> decode(payload.codec, payload.data)
    {'cutflow': {'all': 10, '4j2b': 3}, 'seen': {1, 2}}
    """
    encoder = Encoder()
    try:
        return Payload(CODEC, encoder.finish(encoder.node(value)))
    except CodecError:
        raise
    except RecursionError:
        raise encoder.refuse(value, "it is nested too deeply, or contains itself") from None
    except Exception as error:
        # Whatever a value does when it is looked at, the result is computed and not kept; the analysis goes on.
        raise encoder.refuse(value, f"looking at it raised {type(error).__name__}: {error}") from error


def decode(codec: str, data: bytes | memoryview) -> Any:
    """Return the result that `encode` made `data` of.

    Nothing that `data` names is imported or run: it can only ask for the kinds that are built in or registered.

    Raises
    ------
    PayloadError
        If it cannot be read: damaged, of another version, or of a type that is not registered here.
    """
    if codec != CODEC:
        raise PayloadError(f"its codec {codec!r} is not known here; {CODEC!r} is")
    try:
        decoder, tree = Decoder.open(data)
        value = decoder.value(tree)
        decoder.check_all_used()
    except PayloadError:
        raise
    except Exception as error:
        # Whatever is wrong with the bytes, and however it shows, the result is the same: they are not used.
        raise PayloadError(f"{type(error).__name__}: {error}") from error
    return value


@dataclass
class Encoder:
    """Makes nodes of values; writers call `node` for what they contain and `buffer` for what is large."""

    _path: list[Any] = field(default_factory=list)
    _buffers: list[bytes | memoryview] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)

    def node(self, value: Any) -> Node:
        """Return the node of a value, or raise `CodecError`."""
        writer = plain.WRITERS.get(type(value)) or _writer(type(value))
        if writer is None:
            raise self.refuse(value)
        return writer(self, value)

    def item(self, value: Any, step: Any) -> Node:
        """Return the node of what lies at ``[step]`` of the value in hand."""
        if (simple := plain.SIMPLE.get(type(value))) is not None:
            return simple(self, value)
        self._path.append(step)
        if len(self._path) > _DEEPEST:
            raise self.refuse(value, f"it lies more than {_DEEPEST} levels deep, or the result contains itself")
        node = self.node(value)
        self._path.pop()
        return node

    def buffer(self, data: bytes | memoryview) -> int:
        """Put bytes beside the tree and return their number; a memoryview must be of bytes."""
        self._buffers.append(data)
        self._sizes.append(len(data))
        return len(self._sizes) - 1

    def alone(self, value: Any) -> bytes:
        """Return the bytes of a member of the value in hand, as if it were all there is."""
        other = Encoder(_path=[*self._path])
        return other.finish(other.item(value, value))

    def refuse(self, value: Any, hint: str = "") -> CodecError:
        """Return the error for a value that cannot be written."""
        steps = "".join(f"[{_short(step)}]" for step in self._path[:_DEEPEST])
        return CodecError(f"result{steps}", _name(type(value)), hint)

    def finish(self, tree: Node) -> bytes:
        """Return tree and buffers as one."""
        text = _as_json([tree, self._sizes]).encode("ascii")
        parts: list[bytes | memoryview] = [_HEAD.pack(len(text)), text, _padding(len(text))]
        for data in self._buffers:
            parts += (data, _padding(len(data)))
        return b"".join(parts)


class Decoder:
    """Makes values of nodes; readers call `value` for what they contain and `buffer` for what is large."""

    def __init__(self, data: memoryview, sizes: Sequence[int]) -> None:
        steps = (size + len(_padding(size)) for size in sizes)
        starts = list(itertools.accumulate(steps, initial=0))
        if not all(type(size) is int and size >= 0 for size in sizes) or starts[-1] != len(data):
            raise PayloadError("its buffers have not the size that they should have")
        self._slices = [data[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self._unused = set(range(len(sizes)))

    @classmethod
    def open(cls, data: bytes | memoryview) -> tuple[Decoder, Node]:
        """Return a decoder for the buffers of a payload, and its tree."""
        size = _HEAD.unpack_from(data)[0]
        begin = _HEAD.size + size + len(_padding(size))
        if begin > len(data):
            raise PayloadError("it is cut off")
        tree, sizes = json.loads(bytes(data[_HEAD.size : _HEAD.size + size]))
        return cls(memoryview(data)[begin:], sizes), tree

    def value(self, node: Node) -> Any:
        """Return the value of a node."""
        if not isinstance(node, list):
            if isinstance(node, dict):
                raise PayloadError("there is a JSON object in its tree")
            return node
        return _reader(node[0])(self, node[1:])

    def buffer(self, number: int) -> memoryview:
        """Return the bytes that the encoder numbered so; each can be asked for once."""
        self._unused.remove(number)
        return self._slices[number]

    def check_all_used(self) -> None:
        """Refuse a payload that carries more than its tree says."""
        if self._unused:
            raise PayloadError("it has buffers that belong to nothing")


def _padding(size: int) -> bytes:
    return b"\0" * (-size % _ALIGNMENT)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _short(step: Any) -> str:
    text = repr(step)
    return text if len(text) <= 40 else text[:37] + "..."


def _group(library: str) -> Any:
    """Return the module that describes the kinds of a library, or None."""
    name = _GROUPS.get(library)
    return importlib.import_module(f"coffea_dirac.codecs.{name}") if name else None


def has_own_codec(kind: type) -> bool:
    """Whether `register_codec` was called for exactly this type."""
    return kind in _own_by_type


def _built_in(kind: type) -> Writer | None:
    found = _write_payload if kind is Payload else plain.WRITERS.get(kind) or _of_library(kind)
    if found is None:
        found = _group_of_objects().writer(kind)
    return found


@functools.lru_cache(maxsize=1024)
def _of_library(kind: type) -> Writer | None:
    # Subclasses that a library makes as it runs (awkward's arrays with behavior) live in other modules than it.
    for library in dict.fromkeys(base.__module__.partition(".")[0] for base in kind.__mro__):
        group = _group(library)
        writer: Writer | None = group.writer(kind) if group else None
        if writer is not None:
            return writer
    return None


def _group_of_objects() -> Any:
    # It knows the accumulators, whose module imports coffea: only when an object of the user's is met.
    return importlib.import_module("coffea_dirac.codecs.objects")


def _writer(kind: type) -> Writer | None:
    own = _own_by_type.get(kind)
    if own is None:
        return _built_in(kind)
    return lambda encoder, value: ["own", own.name, encoder.item(_dumped(encoder, own, value), "dump()")]


def _dumped(encoder: Encoder, own: _Own, value: Any) -> Any:
    try:
        return own.dump(value)
    except Exception as error:
        raise encoder.refuse(value, f"its dump function raised {type(error).__name__}: {error}") from error


@functools.cache
def _reader(tag: str) -> Reader:
    reader = {"own": _read_own, PAYLOAD: _read_payload}.get(tag) or plain.READERS.get(tag)
    if reader is None:
        group = _group(tag.partition(":")[0]) if ":" in tag else _group_of_objects()
        reader = group.READERS.get(tag) if group else None
    if reader is None:
        raise PayloadError(f"it has a part of kind {tag!r}, which this version does not know")
    return reader


def _read_own(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, tree = args
    own = _own_by_name.get(name)
    if own is None:
        kind, _, version = name.partition("/")
        raise PayloadError(
            f"it has a part of type {kind} in version {version}, which no codec here reads: "
            f"import the module that calls register_codec({kind.rpartition('.')[2]}, ...)"
        )
    return own.load(decoder.value(tree))


def _write_payload(encoder: Encoder, value: Payload) -> Node:
    return [PAYLOAD, encoder.buffer(value.data)] if value.codec == CODEC else encoder.node(decode(*value))


def _read_payload(decoder: Decoder, args: Sequence[Any]) -> Any:
    return decode(CODEC, decoder.buffer(args[0]))
