"""What is asked for of dask's collections, and stand-ins for them with a smaller graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import dask
import dask.base
from dask._expr import Expr

from coffea_dirac.graph.layers import flat
from coffea_dirac.graph.nodes import Key

_ASKS_FOR_EXPRESSIONS = hasattr(dask.base, "collections_to_expr")


class Asked(NamedTuple):
    """One collection: its graph as the user made it, and its own keys, never those that dask makes of them."""

    collection: Any
    graph: Mapping[Key, Any]
    nested_keys: Any

    @property
    def keys(self) -> list[Key]:
        """The keys, flat."""
        return flat(self.nested_keys)

    @property
    def optimiser(self) -> Callable[..., Any] | None:
        """How dask optimises graphs of such collections."""
        return getattr(self.collection, "__dask_optimize__", None)


def asked(collections: Iterable[Any], *, is_optimised: bool) -> list[Asked]:
    """Return what is asked for; expressions are optimised each by itself, which is how they make a graph at all."""
    found = []
    for collection in collections:
        one = collection
        # Before dask asks for expressions it asks the collection as it is for its keys.
        if is_optimised and _ASKS_FOR_EXPRESSIONS and _is_expression(one):
            one = one.optimize()
        found.append(Asked(one, one.__dask_graph__(), one.__dask_keys__()))
    return found


def _is_expression(collection: Any) -> bool:
    """Whether a collection is one of dask's expressions, which make a graph only when they are optimised."""
    return isinstance(getattr(collection, "expr", None), Expr)


def has_own_optimisations(options: Mapping[str, Any]) -> bool:
    """Whether dask is told to change graphs by functions that are not its own: they may change what comes out."""
    if options.get("optimizations") or dask.config.get("optimizations", None):
        return True
    return any(callable(value) for name, value in dask.config.config.items() if name.endswith("_optimize"))


def groups(found: Sequence[Asked]) -> list[list[Asked]]:
    """Return collections that are optimised together, as dask groups them."""
    together: dict[Any, list[Asked]] = {}
    for one in found:
        together.setdefault(one.optimiser, []).append(one)
    return list(together.values())


def optimise(group: Sequence[Asked], options: Mapping[str, Any]) -> Callable[[Any, list[Key]], Any] | None:
    """Return how dask optimises the graph of a group."""
    chosen = group[0].optimiser
    return None if chosen is None else lambda graph, keys: chosen(graph, keys, **options)


class Planned:
    """A collection as it was, with a smaller graph that needs no optimising.

    Parameters
    ----------
    original : collection
        Says how results are put together.
    graph : HighLevelGraph
        The smaller graph.
    nested_keys : nested lists of keys
        Those of `original`.
    """

    def __init__(self, original: Any, graph: Any, nested_keys: Any) -> None:
        self._original, self._graph, self._keys = original, graph, nested_keys

    def __dask_graph__(self) -> Any:
        return self._graph

    def __dask_layers__(self) -> Sequence[str]:
        return tuple(self._graph.layers)

    def __dask_keys__(self) -> Any:
        return self._keys

    def __dask_tokenize__(self) -> Any:
        return ("planned", self._keys)

    def __dask_postcompute__(self) -> Any:
        return self._original.__dask_postcompute__()

    def __dask_postpersist__(self) -> Any:
        return self._original.__dask_postpersist__()

    @staticmethod
    def __dask_optimize__(graph: Any, keys: Any, **options: Any) -> Any:
        return graph

    @property
    def __dask_scheduler__(self) -> Any:
        return self._original.__dask_scheduler__
