"""How far two payloads are apart: bit for bit, or by more than the numbers in them may differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from coffea_dirac.codecs.arrays import read_dtype
from coffea_dirac.codecs.tree import PAYLOAD, Decoder, Node
from coffea_dirac.errors import PayloadError

# Narrow floating-point numbers cannot be nearer than this many of their last digits.
_ULPS = 32


def first_difference(old: bytes, new: bytes, *, tolerance: float = 0.0) -> str:
    """Return what differs first between two payloads, empty if nothing does by more than `tolerance`.

    Parameters
    ----------
    old, new : bytes
        Payloads of one codec.
    tolerance : float
        How far floating-point numbers may differ, in parts of the largest of their array; 0: not by a bit.

    Examples
    --------
    >>> from coffea_dirac.codecs import encode
    >>> one, two = encode({"n": 2, "sum": 1.0}).data, encode({"n": 2, "sum": 1.25}).data
    >>> first_difference(one, two)
    '1.0 became 1.25'
    >>> first_difference(one, two, tolerance=0.5)
    ''
    """
    if old == new:
        return ""
    try:
        (decoder, tree), (other, second) = Decoder.open(old), Decoder.open(new)
        found = next(_differences(tree, second, (decoder, other), tolerance), "")
    except (PayloadError, ValueError, KeyError, IndexError) as error:
        return f"the two cannot be compared ({error})"
    return found or ("" if tolerance else "the two have other bytes")


def _differences(old: Node, new: Node, decoders: tuple[Decoder, Decoder], tolerance: float) -> Iterator[str]:
    (own, old), (theirs, new) = _opened(decoders[0], old), _opened(decoders[1], new)
    decoders = own, theirs
    if type(old) is not type(new):
        yield f"{_short(old)} became {_short(new)}"
    elif isinstance(old, float):
        yield from _numbers(np.array([old]), np.array([new]), tolerance)
    elif not isinstance(old, list):
        if old != new:
            yield f"{_short(old)} became {_short(new)}"
    elif len(old) != len(new):
        yield f"a {_kind(old)} with {len(old)} parts became a {_kind(new)} with {len(new)}"
    else:
        pairs = list(zip(_buffers(old), _buffers(new), strict=True))
        # Numbers of buffers stand at another place if what comes before has another size.
        layout = _layout_at(old) if pairs else None
        for n, (one, two) in enumerate(zip(old, new, strict=True)):
            if n != layout:
                yield from _differences(one, two, decoders, tolerance)
            elif isinstance(one, list) and one[:2] != two[:2]:
                yield "an array of another form or length"
        for (number, dtype), (other, other_dtype) in pairs:
            if dtype != other_dtype:
                yield f"an array of {dtype} became one of {other_dtype}"
            one, two = (np.frombuffer(d.buffer(n), dtype) for d, n in zip(decoders, (number, other), strict=True))
            yield from _arrays(one, two, tolerance)


def _opened(decoder: Decoder, node: Node) -> tuple[Decoder, Node]:
    """Return what a payload in a payload holds, and what decodes that; any other node as it is."""
    is_payload = isinstance(node, list) and _kind(node) == PAYLOAD
    return Decoder.open(decoder.buffer(node[1])) if is_payload else (decoder, node)


def _kind(node: list[Any]) -> str:
    return str(node[0]) if node and isinstance(node[0], str) else "list"


def _layout_at(node: list[Any]) -> int:
    """Return where a node holds the numbers of its buffers."""
    kind = _kind(node)
    # What comes last in an array that is not in C order is the order of its axes.
    return 1 if kind.startswith("awkward:") else 3 if kind == "numpy:array" else len(node) - 1


def _buffers(node: list[Any]) -> Iterator[tuple[int, np.dtype[Any]]]:
    """Yield the buffers that a node itself has, with the type of what is in them."""
    kind = _kind(node)
    if kind == "numpy:array":
        yield node[3], read_dtype(None, node[1])  # type: ignore[arg-type]
    elif kind == "hist:histogram":
        yield node[7], np.dtype([tuple(field) for field in node[4]])
    elif kind in ("awkward:array", "awkward:record"):
        text, _, named = node[1]
        types = dict(_primitives(json.loads(text)))
        for name, number in named:
            yield number, np.dtype(types.get(name, "u1"))
    elif kind in ("bytes", "bytearray", "array:array"):
        yield node[-1], np.dtype("u1")


def _primitives(form: Any) -> Iterator[tuple[str, str]]:
    """Yield the buffers of a form that hold numbers, with their type."""
    if isinstance(form, list):
        for item in form:
            yield from _primitives(item)
    elif isinstance(form, dict):
        if form.get("class") == "NumpyArray":
            yield f"{form['form_key']}-data", form["primitive"]
        for part in form.values():
            yield from _primitives(part)


def _arrays(old: Any, new: Any, tolerance: float) -> Iterator[str]:
    if old.shape != new.shape:
        yield f"an array of {old.size} numbers became one of {new.size}"
    elif old.dtype.names is not None:
        for name in old.dtype.names:
            yield from _arrays(old[name], new[name], tolerance)
    elif old.dtype.kind in "fc":
        yield from _numbers(old, new, tolerance)
    elif old.tobytes() != new.tobytes():
        yield f"{int(np.sum(old != new))} of {old.size} numbers differ"


def _numbers(old: Any, new: Any, tolerance: float) -> Iterator[str]:
    if old.tobytes() == new.tobytes():
        return
    with np.errstate(all="ignore"):
        finite = np.isfinite(old) & np.isfinite(new)
        same = (old == new) | (np.isnan(old) & np.isnan(new))
        largest = float(np.max(np.abs(np.where(finite, old, 0)), initial=0.0))
        allowed = max(tolerance, _ULPS * float(np.finfo(old.dtype).eps)) * largest if tolerance else 0.0
        apart = np.abs(np.where(finite, new - old, 0))
        bad = ~same & ~(finite & (apart <= allowed))
    n = int(np.sum(bad))
    if n == 1 == old.size:
        yield f"{old.reshape(-1)[0].item()!r} became {new.reshape(-1)[0].item()!r}"
    elif n:
        yield f"{n} of {old.size} numbers differ, by up to {float(np.max(apart, initial=0.0)):.3g}"


def _short(node: Node) -> str:
    text = repr(node)
    return text if len(text) <= 60 else text[:57] + "..."
