"""What dask graphs are made of: the only place that knows dask's layers and task classes."""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dask.base
from dask._expr import Expr
from dask._task_spec import (
    Alias,
    DataNode,
    GraphNode,
    NestedContainer,
    Task,
    TaskRef,
    _execute_subgraph,
    convert_legacy_task,
    parse_input,
)
from dask.blockwise import Blockwise, blockwise_token
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.local import get_sync

from coffea_dirac.stages.stage import Stage

Key = Any
"""A dask key: a string, a number, or a tuple of these."""
Block = tuple[int, ...]
MARK = "coffea_dirac-"
# Under these names wrappers hold the function that they call.
_HOLDERS = ("func", "fn", "py_func", "__wrapped__")
_DEEPEST = 10


# ---------------------------------------------------------------------------------------------------------------- nodes


class Ref(NamedTuple):
    """The result of another key."""

    key: Key


class Data(NamedTuple):
    """A value that lies in the graph."""

    value: Any


class Call(NamedTuple):
    """A function with arguments, which may be nodes."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Container(NamedTuple):
    """A list, tuple, set or dict (as keys and values in turn) of nodes."""

    kind: str
    args: tuple[Any, ...]


class Inner(NamedTuple):
    """A graph inside of a task: `out` of it is wanted, `bound` are its keys that come from outside."""

    graph: Mapping[Key, Any]
    out: Key
    bound: Mapping[Key, Any]


def structure(node: Any) -> Ref | Data | Call | Container | Inner:
    """Return what a node is, in terms that do not depend on dask's version."""
    if isinstance(node, TaskRef):
        return Ref(node.key)
    if isinstance(node, Alias):
        return Ref(node.target)
    if isinstance(node, DataNode):
        return Data(node.value)
    if isinstance(node, NestedContainer):
        return Container(type(node).__name__, tuple(node.args))
    if isinstance(node, Task):
        if node.func is _execute_subgraph:
            inner, out, names, *dependencies = (_bare(a) for a in node.args)
            bound = {**dict(zip(names, dependencies, strict=True)), **node.kwargs}
            return Inner(inner, out, bound)
        return Call(node.func, tuple(node.args), node.kwargs)
    return Data(node)


def _bare(node: Any) -> Any:
    return node.value if isinstance(node, DataNode) else node


def is_node(value: Any) -> bool:
    """Whether a value is one of dask's nodes, futures included."""
    return isinstance(value, GraphNode | TaskRef)


def is_task(node: Any) -> bool:
    """Whether computing a node calls a function."""
    return isinstance(node, Task) and not isinstance(node, NestedContainer)


def stage_of(node: Any) -> Any:
    """Return the ``@stage`` that a task calls, also through partials and the wrappers of collections; else None."""
    func = getattr(node, "func", None)
    for _ in range(_DEEPEST):
        if isinstance(func, Stage):
            return func
        func = next((getattr(func, name) for name in _HOLDERS if hasattr(func, name)), None)
        if func is None:
            return None
    return None


def innermost(node: Any) -> Any:
    """Return the function that a task calls, without the wrappers of collections."""
    func, args = getattr(node, "func", node), getattr(node, "args", ())
    if getattr(func, "__name__", "") == "pipe" and args:
        func = _bare(args[-1])
    for _ in range(_DEEPEST):
        held = next((getattr(func, name) for name in _HOLDERS if callable(getattr(func, name, None))), None)
        if held is None or isinstance(func, Stage):
            break
        func = held
    return func


def name_of(node: Any) -> str:
    """Return the name of the function that a task calls."""
    func = innermost(node)
    if isinstance(func, Stage):
        return str(func.name)
    return str(getattr(func, "__qualname__", type(func).__name__)).rpartition("<locals>.")[2]


def is_future(value: Any) -> bool:
    """Whether a value stands for a result that a cluster holds."""
    return isinstance(value, TaskRef) or bool(getattr(value, "__dask_future__", False))


def private_graph(value: types.FunctionType) -> Inner | None:
    """Return the graph in the closure of the function that dask makes to put collections back where they were.

    Its keys are random in every process.
    """
    if value.__qualname__ != "unpack_collections.<locals>.repack" or value.__module__ != "dask.base":
        return None
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells}
    if not {"repack_dsk", "collections_token", "out"} <= found.keys():
        return None
    return Inner(found["repack_dsk"], found["out"], {found["collections_token"]: "the collections"})


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
    if not isinstance(layer, Blockwise) or not isinstance(layer.task, Task):
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

    `folds` are the keys of tree reductions and of what they reduce, `owners` the layers of single tasks.
    """

    mapped: dict[str, Mapped] = field(default_factory=dict)
    tasks: dict[Key, Any] = field(default_factory=dict)
    folds: set[Key] = field(default_factory=set)
    owners: dict[Key, str] = field(default_factory=dict)
    _nodes: dict[Key, Any] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        return key in self.tasks or self.layer(key) is not None

    def layer(self, key: Key) -> Mapped | None:
        """Return the layer that a key is a partition of, None for a single task."""
        if type(key) is not tuple or not key or type(key[0]) is not str:
            return None
        layer = self.mapped.get(key[0])
        return layer if layer is not None and layer.has(key[1:]) else None

    def node(self, key: Key) -> Any:
        """Return a single task as one of dask's nodes."""
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = as_node(key, self.tasks[key], self)
        return found


def name_of_key(found: View, key: Key) -> str:
    """Return the name of the function that makes a key."""
    layer = found.layer(key)
    return name_of(layer.task if layer is not None else found.node(key))


def as_node(key: Key, task: Any, keys: Any) -> Any:
    """Return one of dask's nodes for what a graph has under a key; legacy tuples are converted."""
    if isinstance(task, GraphNode):
        return task
    found = convert_legacy_task(key, task, keys)
    return found if isinstance(found, GraphNode | TaskRef) else DataNode(key, found)


def dependencies(node: Any) -> Collection[Key]:
    """Return the keys that a node needs."""
    return (node.key,) if isinstance(node, TaskRef) else node.dependencies


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
        found.owners.update(dict.fromkeys(tasks, name))
        if hasattr(layer, "tree_node_func") and hasattr(layer, "name_input"):
            found.folds.update(tasks)
            found.folds.update((layer.name_input, i) for i in range(layer.npartitions_input))
    return found


def layers(graph: Mapping[Key, Any]) -> Mapping[str, Any]:
    """Return the layers of a graph; a plain one is one layer."""
    return graph.layers if isinstance(graph, HighLevelGraph) else {"graph": graph}


# ------------------------------------------------------------------------------------------------------- smaller graphs


def flat(keys: Any) -> list[Key]:
    """Return the keys in nested lists."""
    return list(flatten(keys))


# Functions of dask that write into an argument or read what was written there: no result stands for that.
_WRITERS = {"dask.array.core": frozenset({"load_chunk", "load_store_chunk", "store_chunk"})}
ASKS_FOR_EXPRESSIONS = hasattr(dask.base, "collections_to_expr")


def writes(func: Any) -> bool:
    """Whether a function is one of dask's that write into an array of the caller's."""
    module = getattr(func, "__module__", None)
    return module in _WRITERS and getattr(func, "__name__", "") in _WRITERS[module]


def is_expression(collection: Any) -> bool:
    """Whether a collection is one of dask's expressions, which make a graph only when they are optimised."""
    return isinstance(getattr(collection, "expr", None), Expr)


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


def merged(graphs: Collection[Mapping[Key, Any]]) -> Any:
    """Return several graphs as one."""
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
        mocks = {name: layer.mock() if hasattr(layer, "mock") else layer for name, layer in chosen.layers.items()}
        key = (self.name, 0)
        return MaterializedLayer({key: DataNode(key, get_sync(HighLevelGraph(mocks, chosen.dependencies), key))})


def only(graph: Mapping[Key, Any], computed: Collection[str], loads: Mapping[str, Mapping[Key, Any]]) -> Any:
    """Return the layers of a graph that something is computed of, and others that load in place of those kept."""
    if not isinstance(graph, HighLevelGraph):
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


def call(key: Key, func: Callable[..., Any], *args: Any) -> Any:
    """Return the node of a call."""
    return Task(key, func, *args)


Wrap = Callable[[Callable[..., Any], tuple[Any, ...]], Any]


def wrapped(key: Key, node: Any, wrap: Wrap, inside: Wrap) -> Any:
    """Return a node whose function is ``wrap(function, which arguments hold several nodes)``; data stays as it is.

    Functions of calls among its arguments become ``inside(...)`` of the same: they too get what was read.
    """
    if isinstance(node, Task) and not inspect.iscoroutinefunction(node.func):
        args = [_wrapped_inside(a, inside) for a in node.args]
        kwargs = {name: _wrapped_inside(a, inside) for name, a in node.kwargs.items()}
        nested = tuple(n for n, a in (*enumerate(args), *kwargs.items()) if isinstance(a, NestedContainer))
        return Task(key, wrap(node.func, nested), *args, **kwargs)
    if isinstance(node, Alias) and node.target != key:
        return Task(key, wrap(_itself, ()), TaskRef(node.target))
    return node


def _wrapped_inside(node: Any, inside: Wrap) -> Any:
    """Return an argument; a list of results stays one, any other call (dask makes one of many a list) is wrapped."""
    if not isinstance(node, Task):
        return node
    is_plain = isinstance(node, NestedContainer) and not any(isinstance(a, Task) for a in node.args)
    return node if is_plain else wrapped(None, node, inside, inside)


def renamed(node: Any, names: Mapping[Key, Key], key: Key) -> Any:
    """Return a node under another key, with other names for what it needs."""
    return node.substitute(dict(names), key=key)


def calls(func: Callable[..., Any], keys: Iterable[Key], arguments: Iterable[tuple[Any, ...]], kwargs: Any) -> Any:
    """Return the graph of calls of one function, in which futures among the arguments stand for their results."""
    named = {name: parse_input(value) for name, value in kwargs.items()}
    return {key: Task(key, func, *map(parse_input, args), **named) for key, args in zip(keys, arguments, strict=False)}


def reports_errors(found: View) -> bool:
    """Whether a layer reads its input in such a way that errors are told in a report."""
    return any(getattr(layer.task.func, "return_report", False) for layer in found.mapped.values())


def with_readers(node: Any, wrap: Callable[[Any], Any]) -> Any:
    """Return a node with ``wrap(reader)`` for each such reader in it, also in the graphs inside of it."""
    if isinstance(node, tuple) and node and callable(node[0]):
        return (_reader(node[0], wrap), *(with_readers(part, wrap) for part in node[1:]))
    if not isinstance(node, Task) or isinstance(node, NestedContainer):
        return node
    args = node.args
    if node.func is _execute_subgraph:
        inner = {key: with_readers(part, wrap) for key, part in _bare(args[0]).items()}
        args = (inner, *args[1:])
    return Task(node.key, _reader(node.func, wrap), *args, **node.kwargs)


def _reader(func: Any, wrap: Callable[[Any], Any]) -> Any:
    return wrap(func) if getattr(func, "return_report", False) else func


def alias(key: Key, target: Key) -> Any:
    """Return the node that is another key's result."""
    return Alias(key, target)


def _itself(value: Any) -> Any:
    return value


class Table(NamedTuple):
    """The tasks of one layer of a finished graph."""

    name: str
    tasks: dict[Key, Any]
    annotations: Mapping[str, Any] | None = None


def tables(graph: Mapping[Key, Any]) -> list[Table]:
    """Return the layers of an optimised graph, with nodes for tasks; futures stay as they are."""
    found = [Table(n, dict(layer), getattr(layer, "annotations", None)) for n, layer in layers(graph).items()]
    keys = {key for table in found for key in table.tasks}
    for table in found:
        for key, task in table.tasks.items():
            table.tasks[key] = task if is_future(task) else as_node(key, task, keys)
    return found


def assembled(parts: Iterable[Table]) -> HighLevelGraph:
    """Return a graph of finished layers, each with its annotations."""
    full = [table for table in parts if table.tasks]
    found = {f"{MARK}{i}-{t.name}": MaterializedLayer(t.tasks, annotations=t.annotations) for i, t in enumerate(full)}
    return HighLevelGraph(found, {name: set() for name in found})


def is_raw(graph: Any) -> bool:
    """Whether a graph came from its author: not from `assembled`, nor as one of dask's expressions."""
    return isinstance(graph, Mapping) and not is_planned(graph)


def is_planned(graph: Any) -> bool:
    """Whether a graph was made by `assembled`."""
    return isinstance(graph, HighLevelGraph) and all(str(name).startswith(MARK) for name in graph.layers)
