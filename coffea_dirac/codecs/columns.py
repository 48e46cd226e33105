"""awkward: arrays and records by their form and buffers, layout for layout."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np

from coffea_dirac.codecs.arrays import raw
from coffea_dirac.codecs.item_metadata import MARK, at_hand, marked
from coffea_dirac.codecs.plain import pairs, read_pairs
from coffea_dirac.codecs.tree import Decoder, Encoder, Node, Reader, Writer
from coffea_dirac.errors import PayloadError

_METHODS = "coffea.nanoevents.methods"
# Where an array's own behavior may come from; they are coffea's, so that a payload can name no other module.
_BEHAVIORS = tuple(
    f"{_METHODS}.{name}"
    for name in ("base", "vector", "candidate", "nanoaod", "delphes", "physlite", "pdune", "edm4hep", "fcc")
)


def writer(kind: type) -> Writer | None:
    """Return how arrays and records are written, or None.

    Their classes are made by behaviors; which one is written too, and a reader without that behavior refuses.
    """
    if issubclass(kind, ak.Array):
        return _write_array
    return _write_record if issubclass(kind, ak.Record) else None


def _write_array(encoder: Encoder, value: Any) -> Node:
    return ["awkward:array", _layout(encoder, value.layout), *_rest(encoder, value)]


def _write_record(encoder: Encoder, value: Any) -> Node:
    return ["awkward:record", _layout(encoder, value.layout.array), value.layout.at, *_rest(encoder, value)]


def _layout(encoder: Encoder, layout: Any) -> Node:
    # Packed: of a selection only what was selected is written, not all that it was selected from.
    packed = ak.materialize(layout, highlevel=False).to_packed()
    form, length, buffers = ak.to_buffers(packed, byteorder="<")
    text = json.dumps(_with_metadata(form.to_dict(), marked))
    return [text, int(length), [[name, encoder.buffer(raw(np.asarray(buffers[name])))] for name in sorted(buffers)]]


def _with_metadata(form: Any, change: Callable[[Any], Any]) -> Any:
    """Return a form, as a dict, with its metadata changed wherever arrays of events say something of them."""
    if isinstance(form, list):
        return [_with_metadata(part, change) for part in form]
    if not isinstance(form, dict) or "class" not in form:
        return form
    found = {name: _with_metadata(part, change) for name, part in form.items() if name != "parameters"}
    parameters = form.get("parameters") or {}
    if "metadata" in parameters:
        parameters = {**parameters, "metadata": change(parameters["metadata"])}
    return {**found, "parameters": parameters}


def _rest(encoder: Encoder, value: Any) -> list[Node]:
    # Attributes that begin with @ are for this process only; awkward leaves them out of pickles too.
    attrs = {name: item for name, item in value.attrs.items() if not name.startswith("@")}
    return [_class(type(value)), _behavior(encoder, value), pairs(encoder, attrs)]


def _class(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _behavior(encoder: Encoder, value: Any) -> Node:
    own = value.behavior
    if own is None:
        return None
    for name in _BEHAVIORS:
        known = getattr(sys.modules.get(name), "behavior", None)
        if own is known or (known is not None and dict(own) == dict(known)):
            return name
    raise encoder.refuse(
        value,
        "it has a behavior= of its own; put that into ak.behavior, or keep ak.Array(array.layout)",
    )


def _read_layout(decoder: Decoder, node: Sequence[Any]) -> Any:
    text, length, buffers = node
    container = {name: np.frombuffer(decoder.buffer(number), np.uint8).copy() for name, number in buffers}
    form = ak.forms.from_dict(_with_metadata(json.loads(text), at_hand)) if MARK in text else ak.forms.from_json(text)
    return ak.from_buffers(form, length, container, byteorder="<", highlevel=False)


def _read_array(decoder: Decoder, args: Sequence[Any]) -> Any:
    layout, *rest = args
    return _dressed(decoder, ak.Array, _read_layout(decoder, layout), rest)


def _read_record(decoder: Decoder, args: Sequence[Any]) -> Any:
    layout, at, *rest = args
    return _dressed(decoder, ak.Record, ak.record.Record(_read_layout(decoder, layout), at), rest)


def _dressed(decoder: Decoder, make: Any, layout: Any, rest: Sequence[Any]) -> Any:
    kind, module, attrs = rest
    behavior = None
    if module is not None:
        if module not in _BEHAVIORS:
            raise PayloadError(f"it has the behavior of {module}, which is none of coffea's")
        behavior = importlib.import_module(module).behavior
    found = make(layout, behavior=behavior, attrs=read_pairs(decoder, attrs))
    if _class(type(found)) != kind:
        raise PayloadError(
            f"it has an array of class {kind}, whose behavior is not registered here: import its module first"
        )
    return found


READERS: Mapping[str, Reader] = {"awkward:array": _read_array, "awkward:record": _read_record}
