"""Where dask lets a door in: the functions through which ``compute`` and ``persist`` get a graph.

dask has no public place that sees collections before they are optimised and that an explicit ``scheduler=`` does not
go around.  So as long as a door is open these functions are replaced by others that ask it first; outside of the
context of the door they do what they did.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import dask
import dask.base

from coffea_dirac.graph import layers
from coffea_dirac.graph.collections import Planned
from coffea_dirac.graph.doors import door_at_hand

# dask 2025 has the first, dask 2026 the second.
_MAKERS = ("collections_to_dsk", "collections_to_expr")
_GETTERS = (("dask", "get"), ("dask.threaded", "get"), ("dask.multiprocessing", "get"))
_CALLERS = frozenset({"compute", "persist"})

_lock = threading.Lock()
_replaced: list[tuple[Any, str, Any]] = []
_n_open = 0


def open_door() -> None:
    """Let graphs through the doors of their contexts, as often as `close_door` is still to be called."""
    global _n_open
    with _lock:
        _n_open += 1
        if _n_open == 1:
            for name in _MAKERS:
                _replace(dask.base, name, _asking)
            if (client := sys.modules.get("distributed.client")) is not None:
                for name in _MAKERS:
                    _replace(client, name, _asking)
            for module, name in _GETTERS:
                _replace(sys.modules.get(module), name, _getting)


def close_door() -> None:
    """Undo one `open_door`; after the last, dask is as it was."""
    global _n_open
    with _lock:
        _n_open -= 1
        if _n_open == 0:
            while _replaced:
                module, name, original = _replaced.pop()
                setattr(module, name, original)


def _replace(module: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    if (original := getattr(module, name, None)) is not None:
        _replaced.append((module, name, original))
        setattr(module, name, wrap(original))


def _asking(original: Any) -> Any:
    @functools.wraps(original)
    def make(collections: Iterable[Any], optimize_graph: bool = True, **options: Any) -> Any:
        door = door_at_hand()
        if door is None or not _is_for_results(sys._getframe(1)):
            return original(collections, optimize_graph, **options)
        given = list(collections) if isinstance(collections, list | tuple | set) else [collections]
        if any(isinstance(one, Planned) for one in given):
            return original(collections, optimize_graph, **options)
        found = door.planned(given, is_optimised=optimize_graph, options=options)
        return original(found or collections, optimize_graph, **options)

    return make


def _is_for_results(frame: Any) -> bool:
    """Whether the caller computes, and does not draw or optimise only."""
    if frame.f_code.co_name == "collections_to_dsk":  # a method of dask's client
        frame = frame.f_back
    return frame.f_code.co_name in _CALLERS


def _getting(original: Any) -> Any:
    @functools.wraps(original)
    def get(dsk: Any, keys: Any, *args: Any, **options: Any) -> Any:
        door = door_at_hand()
        if door is None or not layers.is_raw(dsk):
            return original(dsk, keys, *args, **options)
        return original(door.reduced(dsk, keys), keys, *args, **options)

    return get
