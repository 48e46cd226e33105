"""Values for the tests of codecs, and what it means that two are the same."""

from __future__ import annotations

import array
import datetime as dt
import decimal
import fractions
import functools
import pathlib
import struct
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import awkward as ak
import boost_histogram as bh
import hist
import numpy as np
import pandas as pd
from coffea.processor import accumulator as coffea


def same(a: Any, b: Any) -> bool:  # noqa: C901 - one branch for each kind
    """Whether two values agree in type, order and every bit; written without the codecs."""
    if type(a) is not type(b):
        return False
    if isinstance(a, bh.Histogram):
        return _same_histogram(a, b)
    if isinstance(a, ak.Array | ak.Record):
        return _same_awkward(a, b)
    if isinstance(a, pd.DataFrame | pd.Series | pd.Index):
        return _same_pandas(a, b)
    if isinstance(a, bh.axis.Axis):
        return same(a.__dict__, b.__dict__) and a.traits == b.traits and _state(a) == _state(b)
    if isinstance(a, bh.storage.Storage):
        return True
    if isinstance(a, np.ma.MaskedArray):
        fill = same(a._fill_value, b._fill_value)
        return (
            fill and same(a.data, b.data) and same(np.asarray(a.mask), np.asarray(b.mask)) and a.hardmask == b.hardmask
        )
    if isinstance(a, np.ndarray | np.generic):
        return _same_array(a, b)
    if a is pd.NaT or a is pd.NA:
        return a is b
    if isinstance(a, dt.datetime | dt.time):
        return (a.isoformat(), a.fold, repr(a.tzinfo)) == (b.isoformat(), b.fold, repr(b.tzinfo))
    if isinstance(a, decimal.Decimal):
        return str(a) == str(b)
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, dict):
        factories = _same_factory(getattr(a, "default_factory", None), getattr(b, "default_factory", None))
        return factories and same_items(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, list | tuple):
        return same_items(a, b)
    if isinstance(a, coffea.value_accumulator):
        return _same_factory(a.default_factory, b.default_factory) and same(a.value, b.value)
    if isinstance(a, coffea.column_accumulator):
        return same(a.value, b.value) and same(a._empty, b._empty)
    return bool(a == b)


def same_items(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _same_array(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.dtype.char != b.dtype.char or a.shape != b.shape:
        return False
    if a.dtype.hasobject:
        return same_items(a.reshape(-1).tolist(), b.reshape(-1).tolist())
    if a.dtype.names:
        return all(_same_array(a[name], b[name]) for name in a.dtype.names)
    if a.dtype.type in (np.longdouble, np.clongdouble):
        return bool(np.array_equal(a, b, equal_nan=True))
    return a.tobytes() == b.tobytes()


def _same_factory(a: Any, b: Any) -> bool:
    if type(a) is functools.partial:
        return (
            type(b) is functools.partial
            and _same_factory(a.func, b.func)
            and len(a.args) == len(b.args)
            and all(map(_same_factory, a.args, b.args))
            and same(a.keywords, b.keywords)
        )
    return a is b or same(a, b)


def _same_pandas(a: Any, b: Any) -> bool:
    """Whether types, dtypes, names, order, frequency and every item agree; pandas' own comparison asks for less."""
    if isinstance(a, pd.DataFrame):
        columns = (
            all(_same_pandas(a.iloc[:, i], b.iloc[:, i]) for i in range(a.shape[1])) if a.shape == b.shape else False
        )
        return (
            columns and same(a.attrs, b.attrs) and _same_pandas(a.index, b.index) and _same_pandas(a.columns, b.columns)
        )
    if isinstance(a, pd.MultiIndex):
        levels = len(a.levels) == len(b.levels) and all(map(_same_pandas, a.levels, b.levels))
        return (
            levels and same(list(a.names), list(b.names)) and same_items([*map(list, a.codes)], [*map(list, b.codes)])
        )
    if a.dtype != b.dtype or repr(a.dtype) != repr(b.dtype) or not same(a.name, b.name):
        return False
    if isinstance(a, pd.Series):
        notes = same(a.attrs, b.attrs) and a.flags.allows_duplicate_labels == b.flags.allows_duplicate_labels
        return notes and _same_pandas(a.index, b.index) and same_items(list(a.array), list(b.array))
    return getattr(a, "freq", None) == getattr(b, "freq", None) and same_items(list(a.array), list(b.array))


def _same_histogram(a: Any, b: Any) -> bool:
    if a.storage_type is not b.storage_type or not same(a.__dict__, b.__dict__) or a.ndim != b.ndim:
        return False
    axes = all(
        type(x) is type(y) and same(x.__dict__, y.__dict__) and x.traits == y.traits and _state(x) == _state(y)
        for x, y in zip(a.axes, b.axes, strict=True)
    )
    # Looking at an Unlimited storage changes it.
    return axes and _same_array(np.asarray(a.copy().view(flow=True)), np.asarray(b.copy().view(flow=True)))


def _state(axis: Any) -> Any:
    """Return an axis' state to the bit: what pickles have of it, its own transform functions by what they do."""
    simple = [x for x in axis._ax.__getstate__() if isinstance(x, int | float | str)]
    return [
        list(axis) if axis.traits.continuous else [str(x) for x in axis],
        str(axis.transform) if hasattr(axis, "transform") else "",
        simple,
    ]


def _same_awkward(a: Any, b: Any) -> bool:
    if not same(lasting(a), lasting(b)) or a.behavior != b.behavior:
        return False
    if isinstance(a, ak.Record):
        return bool(a.layout.at == b.layout.at) and _same_layout(a.layout.array, b.layout.array)
    return _same_layout(a.layout, b.layout)


def lasting(array: Any) -> dict[str, Any]:
    """Return an array's attributes but those that are for its process only: they begin with @."""
    return {name: value for name, value in array.attrs.items() if not name.startswith("@")}


def _same_layout(a: Any, b: Any) -> bool:
    if ak.type(a) != ak.type(b) or len(a) != len(b):
        return False
    # Packed, as what is kept is: lists may lie in any order in memory, with others between them.
    a, b = ak.to_packed(a, highlevel=False), ak.to_packed(b, highlevel=False)
    return a.form == b.form and json_of(a) == json_of(b) and repr(ak.to_list(a)) == repr(ak.to_list(b))


def json_of(layout: Any) -> str:
    return str(layout.form.to_json())


STORAGES = [
    hist.storage.Double(),
    hist.storage.Int64(),
    hist.storage.AtomicInt64(),
    hist.storage.Unlimited(),
    hist.storage.Weight(),
    hist.storage.Mean(),
    hist.storage.WeightedMean(),
]
AXES = {
    "regular": lambda: hist.axis.Regular(7, 0.1, 0.7, name="x", label="x [GeV]"),
    "regular without flow": lambda: hist.axis.Regular(7, -1, 1, flow=False, name="x"),
    "regular with underflow": lambda: hist.axis.Regular(7, -1, 1, overflow=False, name="x"),
    "regular with overflow": lambda: hist.axis.Regular(7, -1, 1, underflow=False, name="x", metadata={"unit": "GeV"}),
    "regular growing": lambda: hist.axis.Regular(7, -1, 1, growth=True, name="x"),
    "regular circular": lambda: hist.axis.Regular(7, -1, 1, circular=True, name="x"),
    "sqrt": lambda: hist.axis.Regular(7, 0.1, 3, transform=hist.axis.transform.sqrt, name="x"),
    "log": lambda: hist.axis.Regular(7, 0.1, 3, transform=hist.axis.transform.log, name="x"),
    "pow": lambda: hist.axis.Regular(7, 0.1, 3, transform=hist.axis.transform.Pow(0.3), name="x"),
    "variable": lambda: hist.axis.Variable([-1, 0.1, 0.3, np.inf], name="x", label="$p_T$"),
    "variable without flow": lambda: hist.axis.Variable([-1, 0.1, 0.3], flow=False, name="x"),
    "variable growing": lambda: hist.axis.Variable([-1, 0.1, 0.3], growth=True, name="x"),
    "variable circular": lambda: hist.axis.Variable([-1, 0.1, 0.3], circular=True, name="x"),
    "integer": lambda: hist.axis.Integer(-2, 3, name="x"),
    "integer without flow": lambda: hist.axis.Integer(-2, 3, flow=False, name="x"),
    "integer growing": lambda: hist.axis.Integer(-2, 3, growth=True, name="x"),
    "integer circular": lambda: hist.axis.Integer(-2, 3, circular=True, name="x"),
    "categories of numbers": lambda: hist.axis.IntCategory([3, -1, 0], name="x"),
    "categories of numbers growing": lambda: hist.axis.IntCategory([], growth=True, name="x"),
    "categories of numbers without overflow": lambda: hist.axis.IntCategory([3, 1], overflow=False, name="x"),
    "boolean": lambda: hist.axis.Boolean(name="x"),
}


def filled(axis: Any, storage: Any, *, seed: int = 0, size: int = 40) -> Any:
    """Return a histogram with a growing category axis besides `axis`, filled so that some bins have one entry only."""
    rng = np.random.default_rng(seed)
    found = hist.Hist(
        axis, hist.axis.StrCategory([], growth=True, name="process"), storage=storage, name="h", label="Events"
    )
    weighted = isinstance(storage, hist.storage.Weight | hist.storage.WeightedMean | hist.storage.Double)
    options: dict[str, Any] = {"weight": rng.normal(1, 0.5, size)} if weighted else {}
    if isinstance(storage, hist.storage.Mean | hist.storage.WeightedMean):
        options["sample"] = rng.normal(0, 3, size)
    values = rng.normal(0, 1, size)
    if isinstance(axis, hist.axis.Integer | hist.axis.IntCategory | hist.axis.Boolean):
        values = np.abs(values).astype(int) if isinstance(axis, hist.axis.Boolean) else values.astype(int)
        values = values % 2 if isinstance(axis, hist.axis.Boolean) else values
    for name in ("tt", "wjets", f"only {seed}"):
        found.fill(values, name, **options)
    return found


def pandas_values() -> dict[str, Any]:
    texts = pd.Series(["x", None], index=pd.Index(["p", "q"], dtype=object), dtype=object, name=("a", 1))
    days = pd.date_range("2026-01-01", periods=2, freq="D", name="day")
    noted = pd.DataFrame({"n": [1, 2]})
    noted.attrs["lumi"] = {"b": 41.5, "a": [np.float32(1)]}
    return {
        "numbers": pd.DataFrame(
            {"a": [1, 2], "b": [0.5, np.nan], "u": np.array([1, 2], "u1"), "h": np.array([1, 2], "f2")}
        ),
        # What pandas would guess to be texts, numbers or times, had it not been told that they are objects.
        "objects": [
            texts,
            pd.Series([1, 2], dtype=object),
            pd.Series([dt.datetime(2026, 1, 1), np.datetime64("2026-01-01")], dtype=object),
            pd.Series([np.str_("a")], dtype=object),
            pd.Series([{"a": 1}, (2, 3), None], dtype=object),
            pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], dtype=object)),
            pd.DataFrame({"o": pd.Series(["a", "b"], dtype=object), "s": ["c", "d"], "i": [1, 2]}),
            pd.Index([1, 2], dtype=object),
            pd.MultiIndex.from_arrays([pd.Index(["a", "b"], dtype=object), [1, 2]]),
            pd.Series(pd.Categorical.from_codes([0, 1], pd.Index(["a", "b"], dtype=object))),
        ],
        "texts": [
            pd.Series(["x", None, "ä"]),
            pd.Series(["x", None], dtype=pd.StringDtype("python")),
            pd.Series(["x", None], dtype=pd.StringDtype("pyarrow")),
            # The third kind is new in pandas 3.
            *(
                [pd.Series(["x", None], dtype=pd.StringDtype("python", na_value=np.nan))]
                if pd.__version__ >= "3"
                else []
            ),
        ],
        "masked": [
            pd.Series([1, None], dtype="Int64"),
            pd.Series([1.5, None], dtype="Float32"),
            pd.Series([True, None], dtype="boolean"),
        ],
        "arrow": [
            pd.Series([1, None], dtype="int64[pyarrow]"),
            pd.Series([1.5, None, np.nan], dtype="float[pyarrow]"),
            pd.Series(["x", None], dtype="string[pyarrow]"),
        ],
        "categories": [
            pd.Series(pd.Categorical(["u", None, "u"], categories=["d", "u"], ordered=True)),
            pd.CategoricalIndex(["a", "b", "a"], name="c"),
            pd.Categorical([1, 2]).categories,
            pd.cut(pd.Series([1, 2, 3]), 2),
        ],
        "times": [
            days,
            pd.date_range("2026", periods=2, freq="h", tz="US/Eastern"),
            pd.to_timedelta([1, 2], "s"),
            pd.Series(pd.to_datetime(["2026-01-01T00:00:00+02:00", None])),
            pd.Series(np.array(["2026-01-01", "NaT"], "M8[s]")),
            pd.Series(pd.DatetimeIndex(np.array(["2026-01-01"], "M8[ms]"), tz="Europe/Paris")),
            pd.Series(pd.period_range("2026", periods=2, freq="M")),
            pd.period_range("2026", periods=2, freq="D", name="q"),
            pd.interval_range(0, 2),
            pd.IntervalIndex.from_breaks(days, closed="left"),
        ],
        "moments": [
            pd.Timestamp("2026-01-01 00:00:00.123456789", tz="UTC"),
            pd.Timestamp("2026-01-01"),
            pd.Timedelta("-1s"),
            pd.Period("2026-01", "M"),
            pd.Interval(0, 1.5, closed="both"),
            pd.NaT,
            pd.NA,
        ],
        "indexes": [
            pd.RangeIndex(1, 10, 3, name="n"),
            pd.Index([1.5, np.nan]),
            pd.MultiIndex.from_tuples([("b", 1), ("a", np.nan)], names=["x", None])[1:],
            pd.DataFrame({"x": [1, 2, 3]}, index=pd.MultiIndex.from_product([["r"], [1, 2, 3]], names=["run", "lumi"])),
            pd.DataFrame({"x": [1, 2]}, index=["same", "same"]),
            pd.DataFrame([[1, 2]], columns=["same", "same"]),
            pd.DataFrame([[1, 2.5]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None])),
            pd.DataFrame(np.zeros((2, 3))),
        ],
        "empty": [
            pd.DataFrame(),
            pd.DataFrame(index=pd.RangeIndex(3)),
            pd.DataFrame(columns=["a", "b"]),
            pd.Series(dtype="f4"),
        ],
        "notes": [noted, noted["n"].set_flags(allows_duplicate_labels=False)],
    }


def named_values() -> dict[str, Any]:
    """Return one value of each kind; made anew in each process."""
    rng = np.random.default_rng(3)
    aligned = np.dtype([("a", "i1"), ("b", "f8"), ("c", "S3", (2,))], align=True)
    ragged = ak.Array([[1.5, float("nan")], [], [-0.0]])
    values: dict[str, Any] = {
        "plain": [None, True, False, 0, -1, 1 << 62, 1 << 63, -(1 << 63), 1 << 20000, 0.1, -0.0, 1e308, 5e-324],
        "not finite": [float("nan"), struct.unpack("<d", b"\x01\0\0\0\0\0\xf8\x7f")[0], float("inf"), -float("inf")],
        "complex": [1j, complex(-0.0, float("nan"))],
        "texts": ["", "a", "ä", "\U0001f600", "\udc80", "\ud83d\ude00", 'q"\\\n\0'],
        "bytes": [b"", b"\0\1", bytearray(b"xyz")],
        "containers": [(), [], {}, set(), frozenset(), (1, (2, [3])), {"b": 1, "a": {2: None}}],
        "keys": {(1, "a"): 1, frozenset({1, 2}): 2, None: 3, 1.5: 4, b"k": 5, np.int32(7): 6, True: 7},
        "sets": [{"b", "a", "c", 1, 2.5, (3, "x"), None}, frozenset(range(50)), {frozenset("ab"), frozenset("cd")}],
        "collections": [
            OrderedDict(b=1, a=2),
            Counter("abracadabra"),
            defaultdict(int, a=1),
            defaultdict(None, {"x": 1}),
            defaultdict(functools.partial(defaultdict, functools.partial(list, (1, 2))), x=defaultdict(list)),
            defaultdict(np.float64, y=np.float64(1)),
        ],
        "standard library": [
            dt.datetime(2026, 11, 23, 1, 2, 3, 4),
            dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Zurich")),
            dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3), "here")),
            dt.date(1, 1, 1),
            dt.time(23, 59, 59, 999999, fold=1),
            dt.timedelta(-1, 2, 3),
            *map(decimal.Decimal, ("1.50", "-0", "NaN", "sNaN12", "1E+30", "Infinity")),
            fractions.Fraction(-1, 3),
            uuid.UUID(int=5),
            pathlib.PurePosixPath("a/../b"),
            pathlib.PurePosixPath("\udc80"),
            pathlib.PureWindowsPath("C:\\a"),
            range(1, 10, 2),
            range(1 << 70),
            slice(None, 3, None),
            Ellipsis,
            types.SimpleNamespace(b=1, a=[2]),
            types.MappingProxyType({"b": 1, "a": 2}),
            deque([1, [2]], maxlen=3),
            deque(),
            array.array("d", [1.5, -0.0]),
            array.array("b"),
        ],
        "axes and storages": [
            *(axis() for axis in AXES.values()),
            *STORAGES,
            bh.axis.Regular(2, 0, 1, metadata={"a": 1}),
        ],
        "dtypes": [np.dtype("f8"), np.dtype(">i2"), aligned],
        **{f"pandas {name}": value for name, value in pandas_values().items()},
        "coffea": [
            coffea.defaultdict_accumulator(int, {"sumw": 3}),
            coffea.defaultdict_accumulator(functools.partial(coffea.defaultdict_accumulator, float), {"x": 1}),
            coffea.dict_accumulator({"a": coffea.list_accumulator([1, 2]), "b": coffea.set_accumulator({"y", "x"})}),
            coffea.value_accumulator(float, 1.5),
            coffea.value_accumulator(list, [1]),
            coffea.column_accumulator(np.arange(6.0).reshape(3, 2)),
            coffea.column_accumulator(ak.Array([[1, 2], [3]])),
        ],
        "scalars": [np.dtype(c).type(1) for c in "?bBhHiIlLqQefdgFDG"]
        + [
            np.float32("nan"),
            np.datetime64("2026-11-23T12:00", "ns"),
            np.datetime64("NaT", "s"),
            np.timedelta64(5, "D"),
        ]
        + [
            np.str_("a\0"),
            np.bytes_(b"a\0"),
            np.array([(1, 2)], "i4,f8")[0],
            np.void(b"ab"),
            np.str_(""),
            np.bytes_(b""),
        ],
        "arrays": [rng.integers(0, 2, 9).astype(c).reshape(3, 3)[::2, ::-1] for c in "?bBhHiIlLqQefdgFDG"],
        "odd arrays": [
            np.array(1.5),
            np.zeros((0, 3)),
            np.zeros((2, 0, 3), "f4"),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.broadcast_to(np.float64(2), (3, 4)),
            np.arange(5, dtype=">i4"),
            np.array(["a", "bcd"]),
            np.array(["", ""]),
            np.array([b"a", b"bcd\0"]),
            np.array(["2026-11-23", "NaT"], "M8[D]"),
            np.array([3, 4], "m8[ms]"),
            np.zeros(3, "V5"),
            np.zeros(2, aligned),
            np.zeros(2, [("x", [("y", "f4"), ("z", "i8")]), (("title", "w"), "i2")]),
            np.array([1, "a", None, [2, np.float32(3)]], dtype=object),
            np.array(None, dtype=object),
            np.zeros((2, 0), dtype=object),
            np.array(["a", "longer than sixteen bytes"], dtype=np.dtypes.StringDType()),
        ],
        "masked": [
            np.ma.MaskedArray([1.0, 2.0, 3.0], mask=[0, 1, 0]),
            np.ma.MaskedArray([1, 2], fill_value=7, hard_mask=True),
            np.ma.MaskedArray([[1, 2]], mask=[[True, True]]),
            np.ma.masked,
        ],
        "awkward": [
            ragged,
            ragged[1:],
            ak.Array([1, 2, 3]),
            ak.Array([]),
            ak.Array([[None, 1], None, []]),
            ak.Array([{"x": 1, "y": [1.0]}, None])[1:],
            ak.Array([1, "two", [3], {"z": 4}]),
            ak.Array(["text", "ä", ""]),
            ak.Array([b"raw", b""]),
            ak.Array([(1, 2.0), (3, 4.0)]),
            ak.Array(np.arange(12).reshape(2, 3, 2)),
            ak.Array([{"x": 1}, {"x": 2}])[1],
            ak.Array([True, False])[[True, False]],
            ak.mask(ak.Array([1.0, 2.0]), [True, False]),
            ak.with_parameter(ak.Array([[1], []]), "note", {"b": 1, "a": [2]}),
            ak.with_name(ak.Array([{"x": 1}]), "Unheard"),
            ak.Array([1, 2], attrs={"year": 2018, "@here": object()}),
            ak.str.to_categorical(ak.Array(["a", "b", "a"])) if hasattr(ak, "str") else ak.Array(["a"]),
            ak.Array(
                ak.contents.ListArray(ak.index.Index64([3, 0]), ak.index.Index64([4, 2]), ak.Array([1, 2, 3, 4]).layout)
            ),
            ak.Array([np.datetime64("2026-11-23")]),
        ],
        "sums of bins": [
            bh.accumulators.Sum(1.5),
            bh.accumulators.WeightedSum(1.5, 2.5),
            bh.accumulators.Mean(3, 2, 1),
            bh.accumulators.WeightedMean(3, 4, 2, 1),
        ],
        "odd histograms": [
            hist.Hist(hist.axis.Regular(2, 0, 1)),
            hist.NamedHist(hist.axis.Regular(2, 0, 1, name="x"), storage=hist.storage.Weight(), metadata=[1, {2}]),
            bh.Histogram(bh.axis.Regular(2, 0, 1, metadata="m"), bh.axis.Integer(0, 3), metadata=("m",)),
            hist.Hist(hist.axis.Regular(2, 0, 1, name="x"), name="n", label=None),
            filled(hist.axis.Regular(3, 0, 1, name="x"), hist.storage.Weight()).project("x"),
            filled(hist.axis.Regular(3, 0, 1, name="x"), hist.storage.Weight())[:, "tt"],
            filled(hist.axis.Regular(30, 0, 1, name="x"), hist.storage.Weight())[5:20:2j, "tt"],
            filled(hist.axis.Regular(3, 0, 1, name="x"), hist.storage.Weight()).view(flow=True),
        ],
    }
    for axis in AXES:
        values[f"axis {axis}"] = filled(AXES[axis](), hist.storage.Weight())
    for storage in STORAGES:
        values[f"storage {type(storage).__name__}"] = filled(AXES["regular"](), storage)
    if hasattr(bh.storage, "MultiCell"):
        cells = bh.Histogram(bh.axis.Regular(3, 0, 1), bh.axis.Integer(0, 2), storage=bh.storage.MultiCell(4))
        cells.view(flow=True)[...] = rng.normal(size=cells.view(flow=True).shape)
        values["storage MultiCell"] = cells
    return values


def digests() -> dict[str, str]:
    """Return the digest of each value's payload."""
    import hashlib

    from coffea_dirac.codecs import encode

    return {name: hashlib.sha256(encode(value).data).hexdigest() for name, value in named_values().items()}
