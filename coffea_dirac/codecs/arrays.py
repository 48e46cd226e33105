"""numpy: arrays of all dtypes, masked arrays and scalars, by their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

# An x87 number fills ten of its sixteen bytes; the rest is whatever was in memory.
_X87_BITS, _X87_BYTES = 63, 10
_LONG = (np.longdouble, np.clongdouble)


def writer(kind: type) -> Writer | None:
    """Return how values of a numpy type are written, or None."""
    if kind in _SCALARS_BY_VALUE:
        return _SCALARS_BY_VALUE[kind]
    if issubclass(kind, np.dtype):
        return lambda encoder, value: ["numpy:dtype", _spell(encoder, value, value)]
    if issubclass(kind, np.generic) and kind.__module__ == "numpy":
        return _write_scalar
    return {
        np.ndarray: write_array,
        np.ma.MaskedArray: _write_masked,
        type(np.ma.masked): lambda *_: ["numpy:masked"],
    }.get(kind)


def write_array(encoder: Encoder, value: Any) -> Node:
    """Return the node of a plain array."""
    array = np.asarray(value)
    shape = list(array.shape)
    if array.dtype == object:
        return ["numpy:objects", shape, *(encoder.item(item, i) for i, item in enumerate(array.reshape(-1)))]
    if array.dtype.kind == "T":
        if array.dtype != np.dtypes.StringDType():
            raise encoder.refuse(value, "it has strings with a value for missing ones; use array.astype(object)")
        return ["numpy:strings", shape, *(encoder.node(item) for item in array.reshape(-1).tolist())]
    spelled = _spell(encoder, value, array.dtype)
    axes = _axes(array)
    buffer = encoder.buffer(raw(array.transpose(axes) if axes else array))
    return ["numpy:array", spelled, shape, buffer, *([axes] if axes else [])]


def _axes(array: np.ndarray[Any, Any]) -> list[int]:
    """Return the axes of an array from the outermost in memory to the innermost; nothing if that is their order.

    numpy adds in the order of memory, and so rounds otherwise what is equal and lies otherwise.
    """
    if array.flags.c_contiguous:
        return []
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    return axes if axes != list(range(array.ndim)) else []


def raw(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the bytes of an array in C order, not copied if they are so already; bytes that mean nothing are zero."""
    if not array.nbytes:
        return memoryview(b"")
    array = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.type in _LONG:
        array = array.copy()
        if np.finfo(np.longdouble).nmant == _X87_BITS:
            array.view(np.uint8).reshape(-1, 16)[:, _X87_BYTES:] = 0
    elif _has_gaps(array.dtype):
        clean = np.zeros(array.shape, array.dtype)
        _copy_fields(array, clean)
        array = clean
    return array.view(np.uint8).data


def _has_gaps(dtype: np.dtype[Any]) -> bool:
    if dtype.subdtype is not None:
        return _has_gaps(dtype.subdtype[0])
    if dtype.names is None:
        return False
    fields = [dtype[name] for name in dtype.names]
    return sum(f.itemsize for f in fields) != dtype.itemsize or any(map(_has_gaps, fields))


def _copy_fields(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> None:
    """Copy field by field: numpy copies a whole structure with what lies between its fields."""
    if source.dtype.names is None:
        target[...] = source
    for name in source.dtype.names or ():
        _copy_fields(source[name], target[name])


def _spell(encoder: Encoder, value: Any, dtype: np.dtype[Any], *, inside: bool = False) -> Node:
    """Return a dtype as JSON: its name, or for structures their fields."""
    if dtype.metadata or dtype.hasobject or (inside and dtype.type in _LONG):
        raise encoder.refuse(value, f"of its dtype the part {dtype} cannot be kept; make plain arrays of its fields")
    if dtype.subdtype is not None:
        return ["array", _spell(encoder, value, dtype.subdtype[0], inside=True), list(dtype.subdtype[1])]
    if dtype.names is not None:
        assert dtype.fields is not None
        fields = [
            [name, _spell(encoder, value, f[0], inside=True), f[1], *map(encoder.node, f[2:])]
            for name, f in dtype.fields.items()
            if name in dtype.names
        ]
        return ["fields", dtype.itemsize, dtype.isalignedstruct, fields]
    name = dtype.str
    if np.dtype(name).char != dtype.char:
        # Two C types of one size, as long and long long.
        name += dtype.char
    if dtype.type in _LONG:
        # The same size holds other numbers on another kind of machine.
        name += f"/{np.finfo(np.longdouble).nmant}"
    return name


def read_dtype(decoder: Decoder, spelled: Node) -> np.dtype[Any]:
    """Return the dtype that was written so."""
    if isinstance(spelled, str):
        name, _, bits = spelled.partition("/")
        if bits and int(bits) != np.finfo(np.longdouble).nmant:
            raise PayloadError("it has long doubles of another kind of machine")
        # The name that numpy gives ends with a digit or a bracket.
        dtype = np.dtype(name[-1]).newbyteorder(name[0]) if name[-1].isalpha() else np.dtype(name)  # type: ignore[arg-type]
        if dtype.hasobject:
            raise PayloadError("it has an array of objects where bytes should be")
        return dtype
    if spelled[0] == "array":
        return np.dtype((read_dtype(decoder, spelled[1]), tuple(spelled[2])))
    _, size, aligned, fields = spelled
    parts = {
        "names": [f[0] for f in fields],
        "formats": [read_dtype(decoder, f[1]) for f in fields],
        "offsets": [f[2] for f in fields],
        "itemsize": size,
    }
    if any(len(f) > 3 for f in fields):
        parts["titles"] = [decoder.value(f[3]) if len(f) > 3 else None for f in fields]
    return np.dtype(parts, align=aligned)  # type: ignore[call-overload, no-any-return]


def _read_array(decoder: Decoder, args: Sequence[Any]) -> np.ndarray[Any, Any]:
    spelled, shape, number, *others = args
    dtype, data = read_dtype(decoder, spelled), decoder.buffer(number)
    count = _count(shape)
    if count * dtype.itemsize != len(data):
        raise PayloadError("an array has not the size that its shape says")
    axes = others[0] if others else list(range(len(shape)))
    if sorted(axes) != list(range(len(shape))):
        raise PayloadError("an array has other axes than its shape says")
    if not data:
        return np.zeros(shape, dtype)
    # A copy, since results are added to in place.
    in_memory = np.frombuffer(data, dtype, count).reshape([shape[axis] for axis in axes]).copy()
    return in_memory.transpose([axes.index(axis) for axis in range(len(shape))])


def _count(shape: Sequence[int]) -> int:
    count = 1
    for n in shape:
        if type(n) is not int or n < 0:
            raise PayloadError("an array has no such shape")
        count *= n
    return count


def _read_items(decoder: Decoder, args: Sequence[Any], dtype: Any) -> np.ndarray[Any, Any]:
    shape, *nodes = args
    if _count(shape) != len(nodes):
        raise PayloadError("an array has not as many items as its shape says")
    flat = np.empty(len(nodes), dtype)
    for i, node in enumerate(nodes):
        flat[i] = decoder.value(node)
    return flat.reshape(shape)


def _write_masked(encoder: Encoder, value: Any) -> Node:
    if value.dtype.hasobject or value.__dict__.get("_optinfo"):
        raise encoder.refuse(value, "it is masked and has objects inside; keep its data and its mask as two arrays")
    mask = None if value.mask is np.ma.nomask else write_array(encoder, value.mask)
    fill = None if value._fill_value is None else write_array(encoder, np.asarray(value._fill_value))
    return ["numpy:maskedarray", write_array(encoder, value.data), mask, fill, bool(value.hardmask)]


def _read_masked(decoder: Decoder, args: Sequence[Any]) -> Any:
    data, mask, fill, hard = args
    value: Any = np.ma.MaskedArray(
        decoder.value(data), mask=np.ma.nomask if mask is None else decoder.value(mask), hard_mask=hard
    )
    if fill is not None:
        value._fill_value = decoder.value(fill)
    return value


def _write_scalar(encoder: Encoder, value: Any) -> Node:
    array = np.asarray(value)
    return ["numpy:scalar", _spell(encoder, value, array.dtype), bytes(raw(array)).hex()]


def _read_scalar(decoder: Decoder, args: Sequence[Any]) -> Any:
    spelled, text = args
    data = bytes.fromhex(text)
    dtype = read_dtype(decoder, spelled)
    if dtype.itemsize != len(data):
        raise PayloadError("a number has not the size that it should have")
    return np.frombuffer(data, dtype)[0].copy() if data else np.zeros((), dtype)[()]


# Their arrays would cut off zeros at the end, and so would str().
_SCALARS_BY_VALUE: Mapping[type, Writer] = {
    np.str_: lambda encoder, value: ["numpy:str", encoder.node(value[:])],
    np.bytes_: lambda encoder, value: ["numpy:bytes", encoder.node(bytes(value))],
}

READERS: Mapping[str, Reader] = {
    "numpy:array": _read_array,
    "numpy:objects": lambda decoder, args: _read_items(decoder, args, object),
    "numpy:strings": lambda decoder, args: _read_items(decoder, args, np.dtypes.StringDType()),
    "numpy:maskedarray": _read_masked,
    "numpy:dtype": lambda decoder, args: read_dtype(decoder, args[0]),
    "numpy:masked": lambda *_: np.ma.masked,
    "numpy:scalar": _read_scalar,
    "numpy:str": lambda decoder, args: np.str_(decoder.value(args[0])),
    "numpy:bytes": lambda decoder, args: np.bytes_(decoder.value(args[0])),
}
