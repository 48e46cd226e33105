"""Histograms of hist and boost-histogram, by the raw fields of their storage.

A serialisation through values and variances, as uhi's, loses the state of Mean and WeightedMean: a bin with one entry
has no variance, and what is merged with it later has none either.  Here the storage is written as it is in memory.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import boost_histogram as bh
import hist
import numpy as np

from coffea_dirac.codecs.objects import class_name, class_of, hook_of
from coffea_dirac.codecs.plain import pairs, read_pairs
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

_CLASSES: Mapping[str, type] = {"hist.Hist": hist.Hist, "hist.NamedHist": hist.NamedHist, "bh.Histogram": bh.Histogram}
_NAMES = {kind: name for name, kind in _CLASSES.items()}
# Bytes of one bin.
_STORAGES = {
    "Double": 8,
    "Int64": 8,
    "AtomicInt64": 8,
    "Unlimited": 8,
    "Weight": 16,
    "Mean": 24,
    "WeightedMean": 32,
    "MultiCell": 8,
}
_AXES = ("Regular", "Variable", "Integer", "IntCategory", "StrCategory", "Boolean")
_ACCUMULATORS = ("Sum", "WeightedSum", "Mean", "WeightedMean")


def writer(kind: type) -> Writer | None:
    """Return how histograms of a type, and sums of their bins, are written, or None."""
    if kind in _NAMES:
        return _write_histogram
    if issubclass(kind, bh.Histogram):
        return _write_histogram if not _why_not(kind) else None
    if issubclass(kind, bh.axis.Axis):
        return _write_bare_axis
    if issubclass(kind, bh.storage.Storage):
        return _write_storage
    if any(kind is getattr(bh.accumulators, name) for name in _ACCUMULATORS):
        return _write_accumulator
    if any(kind is view for view in _views().values()):
        return _write_view
    return None


def _why_not(kind: type) -> str:
    """Return why histograms of a subclass cannot be kept, empty if they can; a payload may name no other classes."""
    if not issubclass(kind, bh.Histogram):
        return "it is no histogram"
    hook = hook_of(kind, libraries=("hist", "boost_histogram"))
    return f"its class defines {hook}" if hook else ""


def _class_of(name: Node) -> Any:
    return _CLASSES[name] if isinstance(name, str) else class_of(name[0], name[1], _why_not)


def _write_histogram(encoder: Encoder, value: Any) -> Node:
    storage = _storage_of(value)
    if storage not in _STORAGES:
        raise encoder.refuse(value, f"its storage {storage} is not known to this version")
    axes = [_write_axis(encoder, value, axis) for axis in value.axes]
    size, fields = 1, _fields_of_last(storage)
    if fields is not None:
        cells = value._hist.__getstate__()[-1]
    else:
        # Looking at an Unlimited storage changes it, so that is done to a copy.
        view = np.asarray((value.copy() if storage == "Unlimited" else value).view(flow=True))
        cells, fields = np.ascontiguousarray(view.T).reshape(-1), view.dtype.descr
        size = view.shape[0] if storage == "MultiCell" else 1
    attributes = pairs(encoder, value.__dict__)
    buffer = encoder.buffer(cells.view(np.uint8).data if cells.nbytes else memoryview(b""))
    name = _NAMES.get(type(value)) or class_name(encoder, value, type(value))
    return ["hist:histogram", name, storage, size, fields, axes, attributes, buffer]


@functools.cache
def _fields_of_last(storage: str) -> list[Any] | None:
    """Return the fields of a storage's cells if what boost-histogram pickles ends with the cells as they lie in memory.

    Then cells are read and written there: making a view takes longer than all the rest, since numpy parses the names of
    its fields each time.
    """
    if storage in ("Unlimited", "MultiCell"):
        return None
    made = bh.Histogram(bh.axis.Integer(0, 3), storage=getattr(bh.storage, storage)())
    view = np.asarray(made.view(flow=True))
    view.view(np.uint8)[:] = np.arange(view.nbytes)
    last = made._hist.__getstate__()[-1]
    is_memory = isinstance(last, np.ndarray) and last.tobytes() == view.tobytes()
    return [list(field) for field in view.dtype.descr] if is_memory else None


_storage_by_core: dict[type, str] = {}


def _storage_of(value: Any) -> str:
    """Return the name of a histogram's storage, looked for once for each kind of core that boost-histogram has."""
    core = type(value._hist)
    if core not in _storage_by_core:
        _storage_by_core[core] = value.storage_type.__name__
    return _storage_by_core[core]


def _read_histogram(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, storage, size, fields, axes, attributes, number = args
    data = decoder.buffer(number)
    empty = _empty_again(json.dumps(axes), storage, size, len(data))
    if empty is None:
        empty = _empty(decoder, axes, storage, size, len(data))
    kind = _class_of(name)
    found = kind.__new__(kind)
    found.__setstate__((0, {"_hist": _filled(empty, storage, fields, data)}))
    # In their order, and past any property of a subclass.
    found.__dict__.clear()
    found.__dict__.update(read_pairs(decoder, attributes))
    return found


def _empty(decoder: Any, axes: Sequence[Any], storage: str, size: int, n_bytes: int) -> Any:
    """Return what boost-histogram holds in an empty histogram, if it is as large as it should be."""
    made = [_read_axis(decoder, axis) for axis in axes]
    # Before anything of that size is made.
    if math.prod(axis.extent for axis in made) * _STORAGES[storage] * size != n_bytes:
        raise PayloadError("a histogram has not the size that its axes say")
    kind = getattr(bh.storage, storage)
    return _core_of(storage)([axis._ax for axis in made], kind(size) if storage == "MultiCell" else kind())


@functools.cache
def _core_of(storage: str) -> Any:
    """Return the type of what boost-histogram holds in a histogram: to call it is far quicker than to make a whole."""
    kind = getattr(bh.storage, storage)
    return type(bh.Histogram(bh.axis.Integer(0, 1), storage=kind(1) if storage == "MultiCell" else kind())._hist)


def _filled(empty: Any, storage: str, fields: list[Any], data: memoryview) -> Any:
    """Return what boost-histogram holds in a histogram like an empty one, with these cells."""
    known = _fields_of_last(storage)
    if known is None:
        core = copy.deepcopy(empty)
        view = np.asarray(core.view(True))
        known = [list(field) for field in view.dtype.descr]
        if data:
            view.T.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    else:
        *state, cells = empty.__getstate__()
        # Axes hold what users say of them in a dict of their own.
        state = [dict(part) if type(part) is dict else part for part in state]
        kind: Any = type(empty)
        core = kind.__new__(kind)
        core.__setstate__((*state, np.frombuffer(data, cells.dtype) if data else cells))
    if known != fields:
        raise PayloadError(f"the storage {storage} has other fields in this version of boost-histogram")
    return core


class _Scalars:
    """A decoder where all nodes are values."""

    @staticmethod
    def value(node: Node) -> Any:
        return node


@functools.lru_cache(maxsize=256)
def _empty_again(axes: str, storage: str, size: int, n_bytes: int) -> Any:
    """Return it made once for all histograms that say the same of their axes: one result often holds many of these.

    None if an axis says what does not stand in the tree as it is.
    """
    nodes = json.loads(axes)
    return _empty(_Scalars, nodes, storage, size, n_bytes) if all(map(_is_plain, nodes)) else None


def _is_plain(axis: Sequence[Any]) -> bool:
    """Whether all that is said of an axis stands in the tree as it is: nothing in buffers, nothing with a kind."""
    return axis[0] != "Variable" and not any(isinstance(part, list) for part in (*axis[2], *axis[3:]))


def _write_axis(encoder: Encoder, value: Any, axis: Any) -> Node:
    kind = type(axis).__name__
    module = type(axis).__module__.partition(".")[0]
    if kind not in _AXES or module not in ("hist", "boost_histogram"):
        raise encoder.refuse(value, f"its axis {type(axis).__name__} is not known to this version")
    traits = axis.traits
    options = [traits.underflow, traits.overflow, traits.growth, traits.circular]
    return [kind, options, _bounds(encoder, value, axis, kind), *pairs(encoder, axis.__dict__)]


def _bounds(encoder: Encoder, value: Any, axis: Any, kind: str) -> Node:
    if kind == "Regular":
        # Edges are computed from lowest and width, and those cannot always be had back from the edges, to the bit.
        lowest, width = map(float, axis._ax.__getstate__()[-2:])
        numbers = [float(axis.edges[0]), float(axis.edges[-1]), lowest, width]
        return [_transform(encoder, value, axis.transform), axis.size, *map(encoder.node, numbers)]
    if kind == "Variable":
        return encoder.node(np.asarray(axis.edges, dtype=np.float64))
    if kind == "Integer":
        return [int(axis.edges[0]), int(axis.edges[-1])] if axis.size else [int(axis._ax.__getstate__()[-1])] * 2
    return [encoder.node(bin) for bin in axis] if kind != "Boolean" else []


def _transform(encoder: Encoder, value: Any, transform: Any) -> Node:
    if transform is None:
        return ""
    if isinstance(transform, bh.axis.transform.Pow):
        return float(transform.power)
    for name in ("sqrt", "log"):
        if transform == getattr(bh.axis.transform, name):
            return name
    raise encoder.refuse(value, "its axis has a transform of your own; sqrt, log and Pow can be kept")


def _read_axis(decoder: Decoder, node: Sequence[Any]) -> Any:
    kind, (underflow, overflow, growth, circular), bounds, *metadata = node
    options = {"underflow": underflow, "overflow": overflow, "growth": growth, "circular": circular}
    attributes = read_pairs(decoder, metadata)
    if kind == "Regular":
        return _read_regular(decoder, bounds, options, attributes)
    if kind == "Variable":
        return bh.axis.Variable(decoder.value(bounds), **options, __dict__=attributes)
    if kind == "Integer":
        return bh.axis.Integer(*bounds, **options, __dict__=attributes)
    if kind == "Boolean":
        return bh.axis.Boolean(__dict__=attributes)
    if kind not in ("IntCategory", "StrCategory"):
        raise PayloadError(f"it has an axis {kind!r}, which this version does not know")
    category = getattr(bh.axis, kind)
    return category([decoder.value(bin) for bin in bounds], growth=growth, overflow=overflow, __dict__=attributes)


def _read_regular(decoder: Decoder, bounds: Sequence[Any], options: dict[str, Any], attributes: dict[Any, Any]) -> Any:
    transform, size, *numbers = bounds
    first, last, lowest, width = map(decoder.value, numbers)
    if isinstance(transform, float):
        options = {"transform": bh.axis.transform.Pow(transform)}
    elif transform:
        options = {"transform": {"sqrt": bh.axis.transform.sqrt, "log": bh.axis.transform.log}[transform]}
    axis = bh.axis.Regular(size, first, last, **options, __dict__=attributes)
    state = axis._ax.__getstate__()
    if state[-2:] != (lowest, width):
        kind: Any = type(axis._ax)
        exact = kind.__new__(kind)
        exact.__setstate__((*state[:-2], lowest, width))
        axis.__setstate__({"_ax": exact})
    return axis


def _write_bare_axis(encoder: Encoder, value: Any) -> Node:
    return ["hist:axis", type(value).__module__.partition(".")[0], _write_axis(encoder, value, value)]


def _read_bare_axis(decoder: Decoder, args: Sequence[Any]) -> Any:
    library, node = args
    axis = _read_axis(decoder, node)
    if library != "hist":
        return axis
    attributes = dict(axis.__dict__)
    found = hist.Hist(axis).axes[0]
    # A histogram gives names and labels to axes without any.
    found.__dict__.clear()
    found.__dict__.update(attributes)
    return found


def _write_storage(encoder: Encoder, value: Any) -> Node:
    name = type(value).__name__
    if name not in _STORAGES or name == "MultiCell" or type(value) is not getattr(bh.storage, name):
        raise encoder.refuse(value, f"the storage {name} alone is not known to this version")
    return ["hist:storage", name]


def _read_storage(_: Decoder, args: Sequence[Any]) -> Any:
    if args[0] not in _STORAGES:
        raise PayloadError(f"it has a storage {args[0]!r}, which this version does not know")
    return getattr(bh.storage, args[0])()


def _write_accumulator(_: Encoder, value: Any) -> Node:
    return ["hist:sum", type(value).__name__, [float(x).hex() for x in value.__getstate__()[1:]]]


def _read_accumulator(_: Decoder, args: Sequence[Any]) -> Any:
    name, numbers = args
    if name not in _ACCUMULATORS:
        raise PayloadError(f"it has a sum {name!r}, which this version does not know")
    kind = getattr(bh.accumulators, name)
    found = kind.__new__(kind)
    found.__setstate__((0, *map(float.fromhex, numbers)))
    return found


def _views() -> dict[str, type]:
    return {name: getattr(bh.view, name) for name in ("WeightedSumView", "MeanView", "WeightedMeanView")}


def _write_view(encoder: Encoder, value: Any) -> Node:
    return ["hist:view", type(value).__name__, encoder.node(np.asarray(value))]


READERS: Mapping[str, Reader] = {
    "hist:histogram": _read_histogram,
    "hist:axis": _read_bare_axis,
    "hist:storage": _read_storage,
    "hist:sum": _read_accumulator,
    "hist:view": lambda decoder, args: decoder.value(args[1]).view(_views()[args[0]]),
}
