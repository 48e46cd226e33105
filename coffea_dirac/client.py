"""DiracClient: a dask client whose every graph goes through the cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import dask
from dask.tokenize import tokenize
from dask.utils import funcname
from distributed import Client

from coffea_dirac.cache import StageCache, default_cache, memo_place
from coffea_dirac.graph import layers, nodes, tasks
from coffea_dirac.graph.collections import Planned
from coffea_dirac.graph.door import Door, Graphs
from coffea_dirac.graph.doors import OPEN, OTHERS
from coffea_dirac.graph.seam import close_door, open_door
from coffea_dirac.report import Report

_DEFAULT = "default"
_CONTAINERS = (list, tuple, set, dict, Iterator)


class DiracClient(Client):  # type: ignore[misc]
    """A ``distributed.Client`` that loads what is kept, computes the rest and keeps it.

    ``get``, ``compute``, ``persist``, ``submit`` and ``map`` do what they do in dask, and so do ``.compute()`` and
    ``.persist()`` of collections while it is the current client.

    Parameters
    ----------
    *args, **options : Any
        As for ``distributed.Client``.
    cache : str, path-like, StageCache or None
        Where results are kept, on a file system that the workers share; None: nowhere.  By default a cache in this
        user's cache directory, or what ``COFFEA_DIRAC_CACHE`` names.

    Examples
    --------
    >>> import tempfile
    >>> with DiracClient(processes=False, dashboard_address=":0", cache=tempfile.mkdtemp()) as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    >>> client.cache.report.counts
    {'loaded': 0, 'computed': 1, 'cut': 0}
    """

    def __init__(self, *args: Any, cache: Any = _DEFAULT, **options: Any) -> None:
        if isinstance(cache, str) and cache == _DEFAULT:
            cache = default_cache()
        self.cache: StageCache | None = cache if cache is None or isinstance(cache, StageCache) else StageCache(cache)
        """What it did is in ``cache.report``."""
        self._own_door: tuple[StageCache, Door] | None = None
        self._is_asked = False
        super().__init__(*args, **options)
        if self.cache is not None:
            open_door()
            self._is_asked = True
            if _door_of_current not in OTHERS:
                OTHERS.append(_door_of_current)

    def door(self) -> Door | None:
        """Return what graphs go through: the cache of the ``with`` block at hand, else the client's own."""
        found = OPEN.get()
        if found is not None:
            return found if isinstance(found, Door) else None
        if self._own_door is None and self.cache is not None and self.status == "running":
            cache = self.cache.twin()
            self.cache.report = Report()
            graphs = Graphs(cache.policy, memo_place(cache), self.cache.marked)
            door = Door(cache, cache.begin(), self.cache.report, graphs)
            door.flush_workers, door.held = self._flush_workers, lambda: self.futures
            self._own_door = cache, door
        return self._own_door[1] if self._own_door else None

    def _flush_workers(self) -> None:
        if not self.asynchronous and self.status == "running":
            self.run(tasks.flush_all, on_error="ignore")

    def close(self, *args: Any, **options: Any) -> Any:
        """Write what is left to be kept, and close the client."""
        if self.asynchronous and self._is_asked:
            return self._closed_later(*args, **options)
        self._settle()
        return super().close(*args, **options)

    async def _closed_later(self, *args: Any, **options: Any) -> None:
        await self._settled_later()
        await super().close(*args, **options)

    async def _settled_later(self) -> None:
        if self._is_asked and self._own_door is not None and self.status == "running":
            await self.run(tasks.flush_all, on_error="ignore")
        self._settle()

    async def __aexit__(self, *exc_info: Any) -> None:
        # dask does not come by `close` here.
        await self._settled_later()
        await super().__aexit__(*exc_info)

    def _settle(self) -> None:
        if not self._is_asked:
            return
        self._is_asked = False
        close_door()
        if self._own_door is not None:
            cache, door = self._own_door
            door.leave()
            cache.end()
            self._own_door = None

    # ---------------------------------------------------------------- what goes through the cache

    def get(self, dsk: Any, keys: Any, *args: Any, **options: Any) -> Any:
        """Compute keys of a graph; see ``distributed.Client.get``."""
        door = None if options.get("actors") or not layers.is_raw(dsk) else self.door()
        if options.get("actors"):
            self._forget(layers.flat([keys]))
        return super().get(dsk if door is None else door.reduced(dsk, keys), keys, *args, **options)

    def compute(
        self, collections: Any, sync: bool = False, optimize_graph: bool = True, *args: Any, **options: Any
    ) -> Any:
        """Compute collections; see ``distributed.Client.compute``."""
        found = self._planned(collections, optimize_graph, options)
        return super().compute(found, sync, optimize_graph, *args, **options)

    def persist(self, collections: Any, optimize_graph: bool = True, *args: Any, **options: Any) -> Any:
        """Compute collections and leave their results at the workers; see ``distributed.Client.persist``."""
        return super().persist(self._planned(collections, optimize_graph, options), optimize_graph, *args, **options)

    def scatter(self, data: Any, *args: Any, **options: Any) -> Any:
        """Spread values over the workers; what uses them is kept.  See ``distributed.Client.scatter``."""
        found = super().scatter(data, *args, **options)
        if self.asynchronous:
            return self._scattered_later(found, data)
        self._note_values(found, data)
        return found

    async def _scattered_later(self, found: Any, data: Any) -> Any:
        futures = await found
        self._note_values(futures, data)
        return futures

    def _note_values(self, futures: Any, data: Any) -> None:
        door = self.door()
        if door is None or isinstance(data, set | frozenset):  # of a set nobody knows which future is whose
            return
        if isinstance(data, dict):
            futures, data = [futures[name] for name in data], list(data.values())
        elif not isinstance(data, list | tuple):
            futures, data = [futures], [data]
        door.note_values({future.key: value for future, value in zip(futures, data, strict=True)})

    def submit(self, func: Any, *args: Any, key: Any = None, pure: bool = True, **options: Any) -> Any:
        """Submit a call; see ``distributed.Client.submit``."""
        given, kwargs = _split(options)
        if key is None and pure and callable(func):
            key = f"{funcname(func)}-{tokenize(func, kwargs, *args)}"
        if key in self.futures:
            return super().submit(func, *args, key=key, pure=pure, **options)
        if not self._goes_through(func, pure, given):
            found = super().submit(func, *args, key=key, pure=pure, **options)
            self._forget([found.key])
            return found
        given.setdefault("fifo_timeout", "100 ms")
        return self.get(nodes.calls(func, [key], [args], kwargs), key, sync=False, **given)

    def map(self, func: Any, *iterables: Any, key: Any = None, pure: bool = True, **options: Any) -> Any:
        """Submit calls of a function on each of many arguments; see ``distributed.Client.map``."""
        given, kwargs = _split(options)
        plain = all(isinstance(one, list | tuple | range) for one in iterables)
        if not self._goes_through(func, pure, given) or options.get("batch_size") or not plain:
            found = super().map(func, *iterables, key=key, pure=pure, **options)
            self._forget([future.key for future in found])
            return found
        arguments = list(zip(*iterables, strict=False))
        if not isinstance(key, list | tuple):
            token = tokenize(func, kwargs)
            key = [f"{key or funcname(func)}-{tokenize(token, one)}" for one in arguments]
        given.pop("batch_size", None)
        given.setdefault("fifo_timeout", "100 ms")
        return self.get(nodes.calls(func, key, arguments, kwargs), list(key), sync=False, **given)

    def _forget(self, keys: Iterable[Any]) -> None:
        if self._own_door is not None:
            self._own_door[1].forget(keys)

    def _goes_through(self, func: Any, pure: bool, options: Any) -> bool:
        if not pure or not callable(func) or inspect.iscoroutinefunction(func):
            return False
        return not (options.get("actor") or options.get("actors")) and self.door() is not None

    def _planned(self, collections: Any, optimize_graph: bool, options: Any) -> Any:
        """Return stand-ins with a smaller graph for what is a collection."""
        door = self.door()
        is_many = isinstance(collections, list | tuple | set | frozenset)
        many = list(collections) if is_many else [collections]
        if door is None or options.get("actors"):
            for one in filter(dask.is_dask_collection, many):
                self._forget(layers.flat(one.__dask_keys__()))
            return collections
        if options.get("traverse", True):
            many = [dask.delayed(one) if isinstance(one, _CONTAINERS) else one for one in many]
        found = [one for one in many if dask.is_dask_collection(one) and not isinstance(one, Planned)]
        if not found:
            return collections
        stand_ins = door.planned(found, is_optimised=optimize_graph, options={})
        if stand_ins is None:
            return collections
        by_id = dict(zip(map(id, found), stand_ins, strict=True))
        many = [by_id.get(id(one), one) for one in many]
        return many if is_many else many[0]


_OPTIONS = frozenset(
    name
    for method in (Client.submit, Client.map)
    for name, p in inspect.signature(method).parameters.items()
    if p.kind is p.KEYWORD_ONLY
)


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is said to dask, and what goes to the function."""
    given = {name: value for name, value in options.items() if name in _OPTIONS}
    return given, {name: value for name, value in options.items() if name not in given}


def _door_of_current() -> Door | None:
    """Return the door of the current client, None if that is not one of ours."""
    try:
        client = Client.current(allow_global=True)
    except ValueError:
        return None
    return client.door() if isinstance(client, DiracClient) else None
