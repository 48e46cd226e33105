"""Values for the tests of codecs, and what it means that two are the same."""

from __future__ import annotations

import functools
import struct
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import awkward as ak
import boost_histogram as bh
import hist
import numpy as np
from coffea.processor import accumulator as coffea


def same(a: Any, b: Any) -> bool:  # noqa: C901 - one branch for each kind
    """Whether two values agree in type, order and every bit; written without the codecs."""
    if type(a) is not type(b):
        return False
    if isinstance(a, bh.Histogram):
        return _same_histogram(a, b)
    if isinstance(a, ak.Array | ak.Record):
        return _same_awkward(a, b)
    if isinstance(a, np.ma.MaskedArray):
        fill = same(a._fill_value, b._fill_value)
        return (
            fill and same(a.data, b.data) and same(np.asarray(a.mask), np.asarray(b.mask)) and a.hardmask == b.hardmask
        )
    if isinstance(a, np.ndarray | np.generic):
        return _same_array(a, b)
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
    if a.form != b.form or json_of(a) != json_of(b) or len(a) != len(b):
        return False
    # Only what can be reached: buffers may be longer than that.
    return ak.to_packed(a, highlevel=False).form == ak.to_packed(b, highlevel=False).form and repr(
        ak.to_list(a)
    ) == repr(ak.to_list(b))


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
        + [np.float32("nan"), np.datetime64("2026-11-23T12:00", "ns"), np.datetime64("NaT"), np.timedelta64(5, "D")]
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
