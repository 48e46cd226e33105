"""pandas: data frames, series and indexes, column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from coffea_dirac.codecs.arrays import write_array
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer

_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)


def writer(kind: type) -> Writer | None:
    """Return how a value of pandas is written, or None."""
    return _WRITERS.get(kind)


def _names(encoder: Encoder, value: Any) -> Node:
    if value.attrs or not value.flags.allows_duplicate_labels:
        raise encoder.refuse(value, "it has attrs or flags of its own; keep them beside it")
    return None


def _write_frame(encoder: Encoder, value: Any) -> Node:
    _names(encoder, value)
    columns = [_column(encoder, value, value.iloc[:, i].array) for i in range(value.shape[1])]
    return ["pandas:frame", _index(encoder, value, value.index), _index(encoder, value, value.columns), *columns]


def _read_frame(decoder: Decoder, args: Sequence[Any]) -> Any:
    index, columns, *arrays = args
    rows, names = decoder.value(index), decoder.value(columns)
    series = [pd.Series(decoder.value(array), index=rows, copy=True) for array in arrays]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=rows)
    frame.columns = names
    frame.index = rows
    return frame


def _write_series(encoder: Encoder, value: Any) -> Node:
    _names(encoder, value)
    return [
        "pandas:series",
        _index(encoder, value, value.index),
        encoder.item(value.name, "name"),
        _column(encoder, value, value.array),
    ]


def _read_series(decoder: Decoder, args: Sequence[Any]) -> Any:
    index, name, array = map(decoder.value, args)
    return pd.Series(array, index=index, name=name, copy=True)


def _kind_of(array: Any) -> str | None:
    if isinstance(array, pd.arrays.NumpyExtensionArray):
        return "plain"
    if isinstance(array, _MASKED):
        return "masked"
    if isinstance(array, pd.Categorical):
        return "categories"
    if isinstance(array, pd.arrays.DatetimeArray | pd.arrays.TimedeltaArray):
        return "times"
    return "strings" if isinstance(array.dtype, pd.StringDtype) else None


def _column(encoder: Encoder, owner: Any, array: Any) -> Node:
    kind = _kind_of(array)
    if kind is None:
        raise encoder.refuse(owner, f"a part of it has dtype {array.dtype}; change it with astype()")
    if kind == "plain":
        return ["pandas:plain", write_array(encoder, array.to_numpy())]
    if kind == "masked":
        return ["pandas:masked", str(array.dtype), write_array(encoder, array._data), write_array(encoder, array._mask)]
    if kind == "categories":
        categories = _index(encoder, array, array.categories)
        return ["pandas:categories", write_array(encoder, array.codes), categories, bool(array.ordered)]
    if kind == "times":
        return ["pandas:times", str(array.dtype), write_array(encoder, array.asi8)]
    texts = [None if pd.isna(text) else str(text) for text in array]
    missing = "nan" if array.dtype.na_value is not pd.NA else "NA"
    return ["pandas:strings", array.dtype.storage, missing, *map(encoder.node, texts)]


def _read_masked(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, data, mask = args
    kind = type(pd.array([], dtype=name))
    return kind(decoder.value(data), decoder.value(mask))


def _read_categories(decoder: Decoder, args: Sequence[Any]) -> Any:
    codes, categories, ordered = args
    dtype = pd.CategoricalDtype(decoder.value(categories), ordered=ordered)
    return pd.Categorical.from_codes(decoder.value(codes), dtype=dtype)


def _read_times(decoder: Decoder, args: Sequence[Any]) -> Any:
    name, data = args
    dtype = pd.api.types.pandas_dtype(name)
    unit = np.datetime_data(dtype)[0] if isinstance(dtype, np.dtype) else dtype.unit
    kind = "m8" if name.startswith("timedelta") else "M8"
    times = pd.array(decoder.value(data).view(f"{kind}[{unit}]"))
    return times if isinstance(dtype, np.dtype) else times.tz_localize("UTC").tz_convert(dtype.tz)


def _read_strings(decoder: Decoder, args: Sequence[Any]) -> Any:
    storage, missing, *texts = args
    dtype = pd.StringDtype(storage, na_value=np.nan if missing == "nan" else pd.NA)
    return pd.array([decoder.value(text) for text in texts], dtype=dtype)


def _index(encoder: Encoder, owner: Any, index: Any) -> Node:
    if type(index) is pd.RangeIndex:
        return ["pandas:range", index.start, index.stop, index.step, encoder.node(index.name)]
    if type(index) is pd.MultiIndex:
        levels = [_index(encoder, owner, level) for level in index.levels]
        codes = [write_array(encoder, np.asarray(code)) for code in index.codes]
        return ["pandas:levels", levels, codes, [encoder.node(name) for name in index.names]]
    if type(index) not in (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex):
        raise encoder.refuse(owner, f"its index is a {type(index).__name__}; use reset_index()")
    freq = getattr(index, "freqstr", None)
    return ["pandas:index", _column(encoder, owner, index.array), encoder.node(index.name), freq]


def _read_levels(decoder: Decoder, args: Sequence[Any]) -> Any:
    levels, codes, names = ([decoder.value(node) for node in part] for part in args)
    return pd.MultiIndex(levels, codes, names=names, verify_integrity=True)


def _read_index(decoder: Decoder, args: Sequence[Any]) -> Any:
    array, name, freq = args
    index = pd.Index(decoder.value(array), name=decoder.value(name), copy=True)
    if freq is not None:
        index.freq = freq
    return index


def _write_index(encoder: Encoder, value: Any) -> Node:
    return _index(encoder, value, value)


_WRITERS: Mapping[type, Writer] = {
    pd.DataFrame: _write_frame,
    pd.Series: _write_series,
    type(pd.NA): lambda *_: ["pandas:NA"],
    **dict.fromkeys(
        (pd.Index, pd.RangeIndex, pd.MultiIndex, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex), _write_index
    ),
}
_read_range: Callable[[Decoder, Sequence[Any]], Any] = lambda d, a: pd.RangeIndex(*a[:3], name=d.value(a[3]))  # noqa: E731
READERS: Mapping[str, Reader] = {
    "pandas:frame": _read_frame,
    "pandas:series": _read_series,
    "pandas:plain": lambda decoder, args: decoder.value(args[0]),
    "pandas:masked": _read_masked,
    "pandas:categories": _read_categories,
    "pandas:times": _read_times,
    "pandas:strings": _read_strings,
    "pandas:range": _read_range,
    "pandas:levels": _read_levels,
    "pandas:index": _read_index,
    "pandas:NA": lambda *_: pd.NA,
}
