"""pandas: data frames, series, indexes and moments, column by column.

pandas guesses types wherever it is given none, and differently from version to version: each array is made with the
dtype it had, and what has another one at the end is not given back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.tseries.frequencies import to_offset

from coffea_dirac.codecs.arrays import write_array
from coffea_dirac.codecs.plain import pairs, read_pairs
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)
_TIMES = (pd.arrays.DatetimeArray, pd.arrays.TimedeltaArray)
_INDEXES = (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex, pd.PeriodIndex, pd.IntervalIndex)


def writer(kind: type) -> Writer | None:
    """Return how a value of pandas is written, or None."""
    return _WRITERS.get(kind)


# ------------------------------------------------------------------------------------------------- frames and series


def _notes(encoder: Encoder, value: Any) -> Node:
    return [bool(value.flags.allows_duplicate_labels), *pairs(encoder, value.attrs)]


def _noted(decoder: Decoder, value: Any, node: Sequence[Any]) -> Any:
    unique, *attrs = node
    found = value if unique else value.set_flags(allows_duplicate_labels=False)
    found.attrs = read_pairs(decoder, attrs)
    return found


def _write_frame(encoder: Encoder, value: Any) -> Node:
    columns = [_column(encoder, value, column.array) for _, column in value.items()]
    index, names = _index(encoder, value, value.index), _index(encoder, value, value.columns)
    return ["pandas:frame", index, names, _notes(encoder, value), *columns]


def _read_frame(decoder: Decoder, args: Sequence[Any]) -> Any:
    index, columns, notes, *nodes = args
    rows, names = decoder.value(index), decoder.value(columns)
    series = [_made(pd.Series, decoder, node, index=rows) for node in nodes]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=rows)
    if len(frame.columns) != len(names) or len(frame) != len(rows):
        raise PayloadError("a data frame has not the size that its index says")
    frame.columns = names
    frame.index = rows
    for place, node in enumerate(nodes):
        _check(frame.iloc[:, place].dtype, node)
    return _noted(decoder, frame, notes)


def _write_series(encoder: Encoder, value: Any) -> Node:
    name = encoder.item(value.name, "name")
    column = _column(encoder, value, value.array)
    return ["pandas:series", _index(encoder, value, value.index), name, _notes(encoder, value), column]


def _read_series(decoder: Decoder, args: Sequence[Any]) -> Any:
    index, name, notes, node = args
    found = _made(pd.Series, decoder, node, index=decoder.value(index), name=decoder.value(name))
    return _noted(decoder, found, notes)


def _made(kind: Any, decoder: Decoder, node: Sequence[Any], **options: Any) -> Any:
    array = decoder.value(node)
    found = kind(array, dtype=array.dtype, copy=True, **options)
    _check(found.dtype, node)
    return found


def _check(dtype: Any, node: Sequence[Any]) -> None:
    if _spelled(dtype) != node[1]:
        raise PayloadError(f"a part of dtype {node[1]} comes out as {_spelled(dtype)} with this version of pandas")


# ---------------------------------------------------------------------------------------------------------- columns


def _spelled(dtype: Any) -> str:
    """Return a dtype's name, for texts with what pandas leaves out of it."""
    if isinstance(dtype, pd.StringDtype):
        return f"string[{dtype.storage},{'NA' if dtype.na_value is pd.NA else 'nan'}]"
    return f"{dtype.str if isinstance(dtype, np.dtype) else dtype}"


def _is_told(dtype: Any) -> bool:
    """Whether a dtype can be had again by its name."""
    try:
        return bool(pd.api.types.pandas_dtype(str(dtype)) == dtype)
    except (TypeError, ValueError):
        return False


def _column(encoder: Encoder, owner: Any, array: Any) -> Node:
    """Return the node of one array: its kind, its dtype, and what it is made of."""
    if type(array) is pd.arrays.NumpyExtensionArray:
        plain = array.to_numpy()
        return ["pandas:plain", _spelled(plain.dtype), write_array(encoder, plain)]
    dtype = array.dtype
    for kinds, tag, parts in _KINDS:
        if isinstance(array, kinds):
            return [tag, _spelled(dtype), *parts(encoder, owner, array)]
    if isinstance(dtype, pd.StringDtype):
        return ["pandas:strings", _spelled(dtype), *_texts(encoder, array)]
    if isinstance(dtype, pd.ArrowDtype):
        return ["pandas:arrow", _spelled(dtype), *_arrow(encoder, owner, array)]
    raise encoder.refuse(owner, f"a part of it has dtype {dtype}; change it with astype()")


def _masked(encoder: Encoder, _: Any, array: Any) -> list[Node]:
    # What lies under a missing value is whatever was there.
    data = np.where(array._mask, np.zeros((), array._data.dtype), array._data)
    return [write_array(encoder, data), write_array(encoder, array._mask)]


def _read_masked(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, data, mask = args
    kind = type(pd.array([], dtype=name))
    if kind not in _MASKED:
        raise PayloadError(f"it has a masked column of dtype {name}")
    return kind(decoder.value(data), decoder.value(mask))


def _categories(encoder: Encoder, owner: Any, array: Any) -> list[Node]:
    return [write_array(encoder, array.codes), _index(encoder, owner, array.categories), bool(array.ordered)]


def _read_categories(decoder: Decoder, args: Sequence[Any]) -> Any:
    _, codes, categories, ordered = args
    dtype = pd.CategoricalDtype(decoder.value(categories), ordered=ordered)
    return pd.Categorical.from_codes(decoder.value(codes), dtype=dtype)


def _times(encoder: Encoder, owner: Any, array: Any) -> list[Node]:
    if not _is_told(array.dtype):
        raise encoder.refuse(owner, f"the time zone {array.dtype.tz} cannot be had by its name; use tz_convert(name)")
    return [str(array.dtype), write_array(encoder, array.asi8)]


def _read_times(decoder: Decoder, args: Sequence[Any]) -> Any:
    _, name, data = args
    dtype = pd.api.types.pandas_dtype(name)
    unit = np.datetime_data(dtype)[0] if isinstance(dtype, np.dtype) else dtype.unit
    kind = "m8" if name.startswith("timedelta") else "M8"
    times = pd.array(decoder.value(data).view(f"{kind}[{unit}]"))
    return times if isinstance(dtype, np.dtype) else times.tz_localize("UTC").tz_convert(dtype.tz)


def _periods(encoder: Encoder, owner: Any, array: Any) -> list[Node]:
    if not _is_told(array.dtype):
        raise encoder.refuse(owner, f"its frequency {array.freq} is not told by its name")
    return [write_array(encoder, array.asi8)]


def _read_periods(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, data = args
    dtype: Any = pd.api.types.pandas_dtype(name)
    return pd.PeriodIndex.from_ordinals(decoder.value(data), freq=dtype.freq).array


def _intervals(encoder: Encoder, owner: Any, array: Any) -> list[Node]:
    return [_index(encoder, owner, array.left), _index(encoder, owner, array.right), array.closed]


def _read_intervals(decoder: Decoder, args: Sequence[Any]) -> Any:
    _, left, right, closed = args
    return pd.arrays.IntervalArray.from_arrays(decoder.value(left), decoder.value(right), closed=closed)


def _texts(encoder: Encoder, array: Any) -> list[Node]:
    return [None if pd.isna(text) else encoder.node(str(text)) for text in array]


def _read_strings(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, *texts = args
    storage, _, missing = name[len("string[") : -1].partition(",")
    dtype: Any = pd.StringDtype(storage, **({"na_value": np.nan} if missing == "nan" else {}))
    return pd.array([decoder.value(text) for text in texts], dtype=dtype)


def _arrow(encoder: Encoder, owner: Any, array: Any) -> list[Node]:
    values = array._pa_array
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [str(kind), *(encoder.node(text) for text in values.to_pylist())]
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise encoder.refuse(owner, f"a part of it has dtype {array.dtype}; change it with astype()")
    missing = values.is_null().to_numpy()
    return [str(kind), write_array(encoder, values.fill_null(0).to_numpy()), write_array(encoder, missing)]


def _read_arrow(decoder: Decoder, args: Sequence[Any]) -> Any:
    _, name, *parts = args
    kind = pa.type_for_alias(name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = pa.array([decoder.value(part) for part in parts], type=kind)
    else:
        values = pa.array(*map(decoder.value, parts[:1]), mask=decoder.value(parts[1]), type=kind)
    return pd.arrays.ArrowExtensionArray(pa.chunked_array([values]))


# ----------------------------------------------------------------------------------------------------------- indexes


def _index(encoder: Encoder, owner: Any, index: Any) -> Node:
    if type(index) is pd.RangeIndex:
        return ["pandas:range", index.start, index.stop, index.step, encoder.node(index.name)]
    if type(index) is pd.MultiIndex:
        levels = [_index(encoder, owner, level) for level in index.levels]
        codes = [write_array(encoder, np.asarray(code)) for code in index.codes]
        return ["pandas:levels", levels, codes, [encoder.node(name) for name in index.names], index.sortorder]
    if type(index) not in _INDEXES:
        raise encoder.refuse(owner, f"its index is a {type(index).__name__}; use reset_index()")
    freq = None if type(index) is pd.PeriodIndex else getattr(index, "freq", None)
    if freq is not None and to_offset(freq.freqstr) != freq:
        raise encoder.refuse(owner, f"the frequency {freq} of its index is not told by its name; set index.freq = None")
    return ["pandas:index", _column(encoder, owner, index.array), encoder.node(index.name), freq and freq.freqstr]


def _read_levels(decoder: Decoder, args: Sequence[Any]) -> Any:
    *parts, order = args
    levels, codes, names = ([decoder.value(node) for node in part] for part in parts)
    found = pd.MultiIndex(levels, codes, names=names, sortorder=order, verify_integrity=True)
    for level, node in zip(found.levels, args[0], strict=True):
        if node[0] == "pandas:index":
            _check(level.dtype, node[1])
    return found


def _read_index(decoder: Decoder, args: Sequence[Any]) -> Any:
    node, name, freq = args
    index = _made(pd.Index, decoder, node, name=decoder.value(name))
    if freq is not None:
        index.freq = freq
    return index


def _write_index(encoder: Encoder, value: Any) -> Node:
    return _index(encoder, value, value)


# ----------------------------------------------------------------------------------------------------------- moments


def _write_moment(encoder: Encoder, value: Any) -> Node:
    return ["pandas:moment", type(value).__name__, _column(encoder, value, pd.array([value]))]


def _read_moment(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, node = args
    found = decoder.value(node)[0]
    if type(found).__name__ != name:
        raise PayloadError(f"it has a {type(found).__name__} where a {name} belongs")
    return found


_Parts = Callable[[Encoder, Any, Any], list[Node]]
_KINDS: tuple[tuple[Any, str, _Parts], ...] = (
    (_MASKED, "pandas:masked", _masked),
    (pd.Categorical, "pandas:categories", _categories),
    (_TIMES, "pandas:times", _times),
    (pd.arrays.PeriodArray, "pandas:periods", _periods),
    (pd.arrays.IntervalArray, "pandas:intervals", _intervals),
)
_WRITERS: Mapping[type, Writer] = {
    pd.DataFrame: _write_frame,
    pd.Series: _write_series,
    type(pd.NA): lambda *_: ["pandas:NA"],
    type(pd.NaT): lambda *_: ["pandas:NaT"],
    **dict.fromkeys((pd.RangeIndex, pd.MultiIndex, *_INDEXES), _write_index),
    **dict.fromkeys((pd.Timestamp, pd.Timedelta, pd.Period, pd.Interval), _write_moment),
    pd.Categorical: lambda encoder, value: _column(encoder, value, value),
}
_read_range: Callable[[Decoder, Sequence[Any]], Any] = lambda d, a: pd.RangeIndex(*a[:3], name=d.value(a[3]))  # noqa: E731
READERS: Mapping[str, Reader] = {
    "pandas:frame": _read_frame,
    "pandas:series": _read_series,
    "pandas:plain": lambda decoder, args: decoder.value(args[1]),
    "pandas:masked": _read_masked,
    "pandas:categories": _read_categories,
    "pandas:times": _read_times,
    "pandas:periods": _read_periods,
    "pandas:intervals": _read_intervals,
    "pandas:strings": _read_strings,
    "pandas:arrow": _read_arrow,
    "pandas:range": _read_range,
    "pandas:levels": _read_levels,
    "pandas:index": _read_index,
    "pandas:moment": _read_moment,
    "pandas:NA": lambda *_: pd.NA,
    "pandas:NaT": lambda *_: pd.NaT,
}
