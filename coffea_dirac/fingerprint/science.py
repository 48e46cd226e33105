"""Arrays, histograms, models and the like by their content, through the libraries that made them.

No library is imported here: a value can only be one of theirs if its library is loaded already.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint.behaviors import carried
from coffea_dirac.fingerprint.values import digest_bytes
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

Handler = Callable[[Any, Any], Json]


def handler_of(kind: type) -> Handler | None:
    """Return what encodes instances of a class of a known library, or None."""
    for base in kind.__mro__:
        handler = _HANDLERS.get((base.__module__.partition(".")[0], base.__name__))
        if handler is not None:
            return handler
    return None


# -------------------------------------------------------------------------------------------------------------- numpy


def _dtype(walker: Walker, value: Any) -> Json:
    if value.names is not None:
        return ["dtype", [[name, _dtype(walker, value[name])] for name in value.names]]
    if value.subdtype is not None:
        return ["dtype", _dtype(walker, value.subdtype[0]), list(value.shape)]
    return f"dtype {value.str}"


def _ndarray(walker: Walker, value: Any) -> Json:
    """Encode dtype, shape and elements in C order, whatever the strides."""
    if type(value).__name__ == "MaskedArray":
        return ["masked", _plain(walker, value.data), _plain(walker, value.mask), walker.encode(value.fill_value)]
    return _plain(walker, value)


def _plain(walker: Walker, value: Any) -> Json:
    np = sys.modules["numpy"]
    array = np.asarray(value)
    head = ["array", _dtype(walker, array.dtype), list(array.shape)]
    if array.dtype.names is not None:
        # Field by field: the padding between them is not content.
        return [*head, [[name, _plain(walker, array[name])] for name in array.dtype.names]]
    if array.dtype.hasobject or array.dtype.char == "T":
        return [*head, [walker.encode(element) for element in array.reshape(-1).tolist()]]
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.size <= 16 and array.dtype.kind in "iufb":
        return [*head, flat.tobytes().hex(), f"{flat.tolist()}"]
    return [*head, digest_bytes(flat.view(np.uint8).data if flat.size else b"")]


def _scalar(walker: Walker, value: Any) -> Json:
    array = sys.modules["numpy"].asarray(value)
    if array.dtype.names is not None or array.dtype.hasobject:
        return ["scalar", _plain(walker, array)]
    return ["scalar", _dtype(walker, array.dtype), array.tobytes().hex(), str(value)]


def _ufunc(walker: Walker, value: Any) -> Json:
    """Encode a ufunc by name; one made by np.frompyfunc by the functions it holds."""
    name = str(value.__name__)
    for module in ("numpy", "scipy.special"):
        if vars(sys.modules.get(module, types)).get(name) is value:
            return walker.library(module, name)
    held = [f for f in gc.get_referents(value) if isinstance(f, types.FunctionType | types.BuiltinFunctionType)]
    if not held:
        raise walker.error(
            f"the ufunc {value.__name__} does not tell what it calls: pass the function and make it inside"
        )
    return ["ufunc", value.nin, value.nout, *(walker.encode(f) for f in held)]


def _vectorize(walker: Walker, value: Any) -> Json:
    names = ("pyfunc", "otypes", "signature", "excluded", "cache")
    return ["vectorize", *(walker.encode(getattr(value, name, None)) for name in names)]


def _generator(walker: Walker, value: Any) -> Json:
    return ["Generator", walker.encode(value.bit_generator.state)]


def _random_state(walker: Walker, value: Any) -> Json:
    if value is getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None):
        return "numpy's global random state"  # seeded anew by every process: randomness is not seen
    return ["RandomState", walker.encode(value.get_state(legacy=False))]


# ------------------------------------------------------------------------------------------------- awkward and pandas


def _awkward(walker: Walker, value: Any) -> Json:
    """Encode the form and the packed buffers: equal for equal content, whatever the array was cut from."""
    ak = sys.modules["awkward"]
    layout = ak.to_layout(value)
    if ak.backend(value) == "typetracer" or not getattr(layout, "is_all_materialized", True):
        raise walker.error(
            "an array whose columns are not read yet has no content: pass the names of columns, or read them first"
        )
    if type(layout).__name__ == "Record":
        return ["ak.Record", layout.at, _awkward(walker, ak.Array(layout.array))]
    form, length, buffers = ak.to_buffers(ak.to_packed(ak.Array(layout)))
    content = [[name, _plain(walker, buffers[name])] for name in sorted(buffers)]
    # Attributes that begin with @ are for this process only; awkward leaves them out of pickles too.
    attrs = {name: item for name, item in value.attrs.items() if not name.startswith("@")}
    own = [walker.encode(attrs)] if attrs else []
    if behavior := getattr(value, "_behavior", None):
        own.append(carried(walker, behavior))
    return ["ak.Array", form.to_json(), length, content, own]


def _form(walker: Walker, value: Any) -> Json:
    return ["ak.Form", value.to_json()]


def _dataframe(walker: Walker, value: Any) -> Json:
    columns = [_column(walker, value.iloc[:, i]) for i in range(value.shape[1])]
    return [
        "DataFrame",
        _index(walker, value.index),
        _index(walker, value.columns),
        columns,
        walker.encode(value.attrs),
    ]


def _column(walker: Walker, value: Any) -> Json:
    return [_pandas_dtype(walker, value.dtype), walker.encode(value.to_numpy())]


def _pandas_dtype(walker: Walker, dtype: Any) -> Json:
    categories = getattr(dtype, "categories", None)
    if categories is None:
        return str(dtype)
    return [str(dtype), bool(dtype.ordered), _index(walker, categories)]


def _series(walker: Walker, value: Any) -> Json:
    named = [walker.encode(value.name), walker.encode(value.attrs)]
    return ["Series", named, _index(walker, value.index), _column(walker, value)]


def _index(walker: Walker, value: Any) -> Json:
    names = walker.encode(list(value.names))
    dtypes = str(getattr(value, "dtypes", value.dtype)) if value.nlevels > 1 else _pandas_dtype(walker, value.dtype)
    return ["Index", type(value).__name__, names, dtypes, walker.encode(value.to_numpy())]


# ----------------------------------------------------------------------------------------------------------- histograms


def _histogram(walker: Walker, value: Any) -> Json:
    state = [[k, walker.encode(v)] for k, v in sorted(vars(value).items()) if k not in ("axes", "_hist")]
    axes = [walker.encode(axis) for axis in value.axes]
    storage = value.storage_type.__name__
    return ["histogram", axes, storage, _plain(walker, value.view(flow=True)), state]


def _axis(walker: Walker, value: Any) -> Json:
    content = list(value) if "Category" in type(value).__name__ else value.edges
    traits = str(value.traits)
    state = [[k, walker.encode(v)] for k, v in sorted(vars(value).items())]
    kind = [type(value._ax).__name__, traits, str(getattr(value, "transform", ""))]
    return ["axis", kind, walker.encode(content), state]


def _storage(walker: Walker, value: Any) -> Json:
    return ["storage", type(value).__name__]


# --------------------------------------------------------------------------------------------------- models and lookups


def _booster(walker: Walker, value: Any) -> Json:
    return ["Booster", digest_bytes(bytes(value.save_raw(raw_format="json"))), walker.encode(value.attributes())]


def _dispatcher(walker: Walker, value: Any) -> Json:
    """Encode a numba function by what it compiles and how, not by what it has compiled."""
    return ["dispatcher", walker.encode(value.py_func), walker.encode(dict(value.targetoptions))]


def _dufunc(walker: Walker, value: Any) -> Json:
    return ["dufunc", walker.encode(value._dispatcher.py_func), walker.encode(dict(value.targetoptions))]


_HANDLERS: dict[tuple[str, str], Handler] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "generic"): _scalar,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ufunc"): _ufunc,
    ("numpy", "vectorize"): _vectorize,
    ("numpy", "Generator"): _generator,
    ("numpy", "RandomState"): _random_state,
    ("awkward", "Array"): _awkward,
    ("awkward", "Record"): _awkward,
    ("awkward", "Form"): _form,
    ("pandas", "DataFrame"): _dataframe,
    ("pandas", "Series"): _series,
    ("pandas", "Index"): _index,
    ("boost_histogram", "Histogram"): _histogram,
    ("boost_histogram", "Axis"): _axis,
    ("boost_histogram", "Storage"): _storage,
    ("xgboost", "Booster"): _booster,
    ("numba", "Dispatcher"): _dispatcher,
    ("numba", "DUFunc"): _dufunc,
}
