"""What dask's graphs are made of: layers of partitions and of tasks, and smaller graphs of what is left of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Iterator, Mapping, Set
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from dask.blockwise import Blockwise, blockwise_token
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.local import get_sync

from coffea_dirac.graph import nodes
from coffea_dirac.graph.nodes import Key

Block = tuple[int, ...]

# --------------------------------------------------------------------------------------------------------------- layers


class Argument(NamedTuple):
    """What a partition of a layer is computed from: a partition of another layer, a piece of input, or a value.

    `places` are the coordinates of the partition to take from those of the partition at hand; -1 stands for the first.
    """

    token: Key
    kind: str
    value: Any
    places: tuple[int, ...] = ()


@dataclass
class Mapped:
    """A layer each of whose partitions is the same call, on partitions at known places of other layers."""

    name: str
    task: Any
    arguments: tuple[Argument, ...]
    shape: Block
    blocks: Collection[Block] | None = None

    def has(self, block: Block) -> bool:
        """Whether the layer has this partition."""
        if self.blocks is not None:
            return block in self.blocks
        return len(block) == len(self.shape) and all(
            type(i) is int and 0 <= i < n for i, n in zip(block, self.shape, strict=True)
        )

    def all_blocks(self) -> Iterable[Block]:
        """Return every partition."""
        return self.blocks if self.blocks is not None else itertools.product(*map(range, self.shape))


def coordinates(block: Block, places: tuple[int, ...]) -> Block:
    """Return the coordinates that an argument takes from those of the partition at hand."""
    return tuple(block[p] if p >= 0 else 0 for p in places)


def _mapped(layer: Any) -> Mapped | None:
    """Return a Blockwise layer as a `Mapped`, or None if its partitions are made of several of another layer."""
    if not isinstance(layer, Blockwise) or not nodes.is_task(layer.task):
        return None
    position = {index: i for i, index in enumerate(layer.output_indices)}
    arguments = []
    for i, (value, indices) in enumerate(layer.indices):
        token = blockwise_token(i)
        if indices is None:
            arguments.append(Argument(token, "value", value))
            continue
        if not all(index in position for index in indices):
            return None
        numbers = layer.numblocks[value]
        places = tuple(position[index] if numbers[k] > 1 else -1 for k, index in enumerate(indices))
        if (source := layer.io_deps.get(value)) is not None:
            if source.produces_tasks or source.produces_keys:
                return None
            arguments.append(Argument(token, "input", source, places))
        else:
            arguments.append(Argument(token, "layer", value, places))
    known = {argument.token for argument in arguments}
    if not set(layer.task.dependencies) <= known:
        return None
    shape = tuple(layer.dims[index] for index in layer.output_indices)
    return Mapped(layer.output, layer.task, tuple(arguments), shape, layer.output_blocks or None)


@dataclass
class View:
    """A dask graph to look at: layers of partitions, and single tasks; nothing of it is changed.

    `folds` are the keys of tree reductions and of what they reduce, `owners` the layers of single tasks, `others` more
    layers of those that are in several: what ``to_delayed`` makes has the keys of what it is made of.
    """

    mapped: dict[str, Mapped] = field(default_factory=dict)
    tasks: dict[Key, Any] = field(default_factory=dict)
    folds: set[Key] = field(default_factory=set)
    owners: dict[Key, str] = field(default_factory=dict)
    others: dict[Key, set[str]] = field(default_factory=dict)
    _nodes: dict[Key, Any] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        return key in self.tasks or self.layer(key) is not None

    def layer(self, key: Key) -> Mapped | None:
        """Return the layer that a key is a partition of, None for a single task."""
        if type(key) is not tuple or not key or type(key[0]) is not str:
            return None
        layer = self.mapped.get(key[0])
        return layer if layer is not None and layer.has(key[1:]) else None

    def names_of_layers(self, key: Key) -> set[str]:
        """Return the names of the layers that a key is in."""
        layer, found = self.layer(key), {self.owners[key]} if key in self.owners else set[str]()
        if layer is not None:
            found.add(layer.name)
        return found | self.others[key] if key in self.others else found

    def layers_below(self, name: str) -> list[str]:
        """Return the layers of partitions that such a layer takes partitions of."""
        return [a.value for a in self.mapped[name].arguments if a.kind == "layer" and a.value in self.mapped]

    def node(self, key: Key) -> Any:
        """Return a single task as one of dask's nodes."""
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = nodes.as_node(key, self.tasks[key], self)
        return found


def view(graph: Mapping[Key, Any]) -> View:
    """Return a graph to look at; layers that only tell their tasks one by one are asked for them, as copies."""
    found = View()
    for name, layer in layers(graph).items():
        mapped = _mapped(layer)
        if mapped is not None:
            found.mapped[mapped.name] = mapped
            continue
        tasks = dict(copy(layer))
        found.tasks.update(tasks)
        for key in tasks.keys() & found.owners.keys():
            found.others.setdefault(key, set()).add(found.owners[key])
        found.owners.update(dict.fromkeys(tasks, name))
        if hasattr(layer, "tree_node_func") and hasattr(layer, "name_input"):
            found.folds.update(tasks)
            found.folds.update((layer.name_input, i) for i in range(layer.npartitions_input))
    return found


def layers(graph: Mapping[Key, Any]) -> Mapping[str, Any]:
    """Return the layers of a graph; a plain one is one layer."""
    return graph.layers if isinstance(graph, HighLevelGraph) else {"graph": graph}


def name_of_key(found: View, key: Key) -> str:
    """Return the name of the function that makes a key."""
    layer = found.layer(key)
    return nodes.name_of(layer.task if layer is not None else found.node(key))


Above = TypeVar("Above", bound=Hashable)


def bottom_up(
    starts: Iterable[Above], below: Callable[[Above], Iterable[Above]], found: Container[Above]
) -> Iterator[Above]:
    """Yield `starts` and all below them that is not in `found`, each after what lies below it.

    The caller puts into `found` what was yielded.  What lies below itself comes before something that it needs.

    Examples
    --------
    >>> heights = {}
    >>> for name in bottom_up(["fill", "cut"], {"fill": ["cut"], "cut": ["read"], "read": []}.get, heights):
    ...     heights[name] = len(heights)
    >>> heights
    {'read': 0, 'cut': 1, 'fill': 2}
    """
    opened = set[Above]()
    for start in starts:
        stack = [start]
        while stack:
            current = stack[-1]
            if current not in found and current not in opened:
                opened.add(current)
                # Graphs have long chains: recursion would go too deep.
                if missing := [one for one in below(current) if one not in found and one not in opened]:
                    stack += missing
                    continue
            stack.pop()
            if current not in found:
                yield current


def flat(keys: Any) -> list[Key]:
    """Return the keys in nested lists."""
    return list(flatten(keys))


def trees_read(found: View) -> set[tuple[str, str]]:
    """Return the files and trees that the inputs of layers name."""
    found_pieces = (
        argument.value.get(coordinates(block, argument.places), None)
        for layer in found.mapped.values()
        for argument in layer.arguments
        if argument.kind == "input"
        for block in layer.all_blocks()
    )
    pieces = (p for p in found_pieces if type(p) is tuple and len(p) > 1)
    return {p[:2] for p in pieces if type(p[0]) is type(p[1]) is str and p[0].endswith(".root")}


def reports_errors(found: View) -> bool:
    """Whether a layer reads its input in such a way that errors are told in a report."""
    return any(map(tells_errors, found.mapped.values()))


def tells_errors(layer: Mapped | None) -> bool:
    """Whether a layer's partitions are a report beside what was read."""
    return layer is not None and bool(getattr(layer.task.func, "return_report", False))


# ------------------------------------------------------------------------------------------------------- smaller graphs


MARK = "coffea_dirac-"


def merged(graphs: Collection[Mapping[Key, Any]]) -> Any:
    """Return several graphs as one."""
    if len(graphs) == 1:
        return next(iter(graphs))
    if any(isinstance(graph, HighLevelGraph) for graph in graphs):
        return HighLevelGraph.merge(*graphs)
    return {key: task for graph in graphs for key, task in graph.items()}


class LoadedLayer(MaterializedLayer):  # type: ignore[misc]
    """A layer that is loaded: it can tell what its partitions look like, for those who ask which columns are needed."""

    def __init__(self, mapping: Mapping[Key, Any], name: str, graph: HighLevelGraph) -> None:
        super().__init__(mapping)
        self.name, self.graph = name, graph

    def mock(self) -> MaterializedLayer:
        """Return a layer that makes a partition without data; no column counts as needed for it."""
        chosen = self.graph.cull_layers([self.name])
        mocks = {name: _mocked(layer) for name, layer in chosen.layers.items()}
        key, tasks = (self.name, 0), dict(HighLevelGraph(mocks, chosen.dependencies))
        return MaterializedLayer({key: nodes.data(key, get_sync(_below(key, tasks), key))})


def _below(key: Key, tasks: Mapping[Key, Any]) -> dict[Key, Any]:
    """Return the tasks that a key needs; for others, whose own needs are not there, dask would wait for ever."""
    found: dict[Key, Any] = {}
    waiting = [key]
    while waiting:
        current = waiting.pop()
        if current not in tasks:
            raise LookupError(f"{key} cannot be made without data: {current} is missing")
        if current not in found:
            found[current] = nodes.as_node(current, tasks[current], tasks)
            waiting += nodes.dependencies(found[current])
    return found


def _mocked(layer: Any) -> Any:
    """Return a layer that makes partitions without data, with a report beside them where it makes one with data."""
    if getattr(getattr(layer, "io_func", None), "return_report", False):
        return layer.prepare_for_projection()[0]
    return layer.mock() if hasattr(layer, "mock") else layer


def only(graph: Mapping[Key, Any], computed: Set[str], loads: Mapping[str, Mapping[Key, Any]]) -> Any:
    """Return the layers of a graph that something is computed of, and others that load in place of those kept."""
    if not isinstance(graph, HighLevelGraph) or (not loads and graph.layers.keys() <= computed):
        return graph
    chosen = {}
    for name, layer in graph.layers.items():
        if name in computed:
            chosen[name] = layer
        elif name in loads:
            chosen[name] = LoadedLayer(loads[name], name, graph)
    above = {
        name: {d for d in graph.dependencies.get(name, ()) if d in chosen} if name in computed else set()
        for name in chosen
    }
    return HighLevelGraph(chosen, above)


class Table(NamedTuple):
    """The tasks of one layer of a finished graph."""

    name: str
    tasks: dict[Key, Any]
    annotations: Mapping[str, Any] | None = None


def tables(graph: Mapping[Key, Any], seen: View) -> list[Table]:
    """Return the layers of an optimised graph, with nodes for tasks; futures stay as they are.

    `seen` is the graph before: what dask has left as it was is a node already.
    """
    found = [Table(n, dict(layer), getattr(layer, "annotations", None)) for n, layer in layers(graph).items()]
    keys = {key for table in found for key in table.tasks}
    for table in found:
        for key, task in table.tasks.items():
            if not nodes.is_future(task):
                is_old = seen.tasks.get(key) is task
                table.tasks[key] = seen.node(key) if is_old else nodes.as_node(key, task, keys)
    return found


def assembled(parts: Iterable[Table]) -> HighLevelGraph:
    """Return a graph of finished layers, those with annotations by themselves."""
    # A graph of delayed calls has a layer for each: what has no annotations is one layer from here on.
    plain: dict[Key, Any] = {}
    found = {f"{MARK}tasks": MaterializedLayer(plain)}
    for i, table in enumerate(parts):
        if table.annotations:
            found[f"{MARK}{i}-{table.name}"] = MaterializedLayer(table.tasks, annotations=table.annotations)
        else:
            plain.update(table.tasks)
    return HighLevelGraph(found, {name: set() for name in found})


def is_raw(graph: Any) -> bool:
    """Whether a graph came from its author: not from `assembled`, nor as one of dask's expressions."""
    return isinstance(graph, Mapping) and not is_planned(graph)


def is_planned(graph: Any) -> bool:
    """Whether a graph was made by `assembled`."""
    return isinstance(graph, HighLevelGraph) and all(str(name).startswith(MARK) for name in graph.layers)
