"""What dask's tasks are made of: the only place that knows dask's task classes."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from typing import Any, NamedTuple

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

from coffea_dirac.stages.stage import Stage

Key = Any
"""A dask key: a string, a number, or a tuple of these."""

# ------------------------------------------------------------------------------------------------------- what a node is


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
    if type(node) is Task and node.func is not _execute_subgraph:  # nearly all are
        return _set_of(node) if node.func is set else Call(node.func, node.args, node.kwargs)
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


def _set_of(node: Any) -> Call | Container:
    """Return a call of ``set``; of a list of results, which dask makes in the order of their hashes, as a container."""
    listed = node.args[0] if len(node.args) == 1 else None
    # dask 2025 spells such a list as a call, dask 2026 as a container; a set without results as a list of values.
    if isinstance(listed, Task) and getattr(listed.func, "__name__", "") in ("_identity_cast", "to_container"):
        return Container("Set", tuple(listed.args))
    if type(listed) is list:
        return Container("Set", tuple(listed))
    return Call(node.func, node.args, node.kwargs)


def _bare(node: Any) -> Any:
    return node.value if isinstance(node, DataNode) else node


def is_node(value: Any) -> bool:
    """Whether a value is one of dask's nodes, futures included."""
    return isinstance(value, GraphNode | TaskRef)


def is_task(node: Any) -> bool:
    """Whether computing a node calls a function."""
    return isinstance(node, Task) and not isinstance(node, NestedContainer)


def is_future(value: Any) -> bool:
    """Whether a value stands for a result that a cluster holds."""
    # What is nothing but a reference names another key of the same graph.
    is_bare = type(value) is TaskRef
    return not is_bare and (isinstance(value, TaskRef) or bool(getattr(value, "__dask_future__", False)))


def dependencies(node: Any) -> Collection[Key]:
    """Return the keys that a node needs."""
    return (node.key,) if isinstance(node, TaskRef) else node.dependencies


def as_node(key: Key, task: Any, keys: Any) -> Any:
    """Return one of dask's nodes for what a graph has under a key; legacy tuples are converted."""
    if isinstance(task, GraphNode):
        return task
    found = convert_legacy_task(key, task, keys)
    return found if isinstance(found, GraphNode | TaskRef) else DataNode(key, found)


# -------------------------------------------------------------------------------------------------------- what it calls


# Under these names wrappers hold the function that they call.
_HOLDERS = ("func", "fn", "py_func", "__wrapped__")
_DEEPEST = 10


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


# Functions that call one of their arguments, and where it is: dask-awkward's reductions, calls with keywords, bags.
_CALLERS = {"pipe": -1, "apply": 0, "map_chunk": 0}


def tells_by_itself(node: Any) -> bool:
    """Whether the function that is called follows from `func` of a node, whatever its arguments."""
    return isinstance(node, Task) and getattr(node.func, "__name__", "") not in (*_CALLERS, _execute_subgraph.__name__)


def innermost(node: Any) -> Any:
    """Return the function that a call calls, without the wrappers of collections."""
    func, args = getattr(node, "func", node), getattr(node, "args", ())
    while func is _execute_subgraph and args:
        # Fused tasks are called by what comes out of them.
        graph, out = _bare(args[0]), _bare(args[1])
        node = as_node(out, graph[out], graph)
        func, args = getattr(node, "func", node), getattr(node, "args", ())
    place = _CALLERS.get(getattr(func, "__name__", ""))
    if place is not None and args and callable(_bare(args[place])):
        func = _bare(args[place])
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


def called(func: Any) -> str:
    """Return the name of a function that a task holds; wrappers of one function have names of their own."""
    inner = innermost(func)
    return name_of(func) if inner is func else f"{name_of(func)} in {type(func).__name__}"


# Functions that write into an argument, or files by a library of C++, which nobody sees; or that read what was written
# so: no result stands for that.
_WRITERS = {
    "dask.array.core": frozenset({"load_chunk", "load_store_chunk", "store_chunk"}),
    "dask_awkward.lib.io.json": frozenset({"_ToJsonFn"}),
    "dask_awkward.lib.io.parquet": frozenset({"_ToParquetFn"}),
}


def writes(func: Any) -> bool:
    """Whether a function is one of dask's that write into an array of the caller's, or files."""
    func = innermost(func)
    names = _WRITERS.get(str(getattr(func, "__module__", None)), ())
    return bool(names) and str(getattr(func, "__name__", type(func).__name__)) in names


def moves_data(node: Any) -> bool:
    """Whether a task hands data to workers by itself, as shuffles of a cluster do: its result stands for nothing."""
    if not is_task(node):
        return False
    func = innermost(node)
    module, name = str(getattr(func, "__module__", "")), str(getattr(func, "__name__", ""))
    return type(node) is not Task or (name.endswith("_transfer") and module.startswith(("dask.", "distributed.")))


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


# ---------------------------------------------------------------------------------------------------------- other nodes


def call(key: Key, func: Callable[..., Any], *args: Any) -> Any:
    """Return the node of a call."""
    return Task(key, func, *args)


def data(key: Key, value: Any) -> Any:
    """Return the node of a value."""
    return DataNode(key, value)


def calls(func: Callable[..., Any], keys: Iterable[Key], arguments: Iterable[tuple[Any, ...]], kwargs: Any) -> Any:
    """Return the graph of calls of one function, in which futures among the arguments stand for their results."""
    named = {name: parse_input(value) for name, value in kwargs.items()}
    return {key: Task(key, func, *map(parse_input, args), **named) for key, args in zip(keys, arguments, strict=False)}


def alias(key: Key, target: Key) -> Any:
    """Return the node that is another key's result."""
    return Alias(key, target)


def renamed(node: Any, names: Mapping[Key, Key], key: Key) -> Any:
    """Return a node under another key, with other names for what it needs."""
    return node.substitute(dict(names), key=key)


def _itself(value: Any) -> Any:
    return value


Wrap = Callable[[Callable[..., Any], tuple[Any, ...]], Any]


def wrapped(key: Key, node: Any, wrap: Wrap, inside: Wrap) -> Any:
    """Return a node whose function is ``wrap(function, which arguments hold several nodes)``; data stays as it is.

    Functions of calls among its arguments become ``inside(...)`` of the same: they too get what was read.
    """
    if isinstance(node, Task) and not inspect.iscoroutinefunction(node.func):
        args, kwargs, nested = node.args, node.kwargs, ()
        if any(isinstance(a, Task) for a in (*args, *kwargs.values())):  # few have calls or lists in them
            args = [_wrapped_inside(a, inside) for a in args]
            kwargs = {name: _wrapped_inside(a, inside) for name, a in kwargs.items()}
            nested = tuple(n for n, a in (*enumerate(args), *kwargs.items()) if isinstance(a, NestedContainer))
        if type(node) is not Task and key == node.key:
            return _with_function(node, wrap(node.func, nested))
        return Task(key, wrap(node.func, nested), *args, **kwargs)
    if isinstance(node, Alias) and node.target != key:
        return Task(key, wrap(_itself, ()), TaskRef(node.target))
    return node


def _with_function(node: Any, func: Any) -> Any:
    """Return a node of one of the classes that schedulers know, with another function."""
    found = copy(node)
    found.func, found._token = func, None
    return found


def _wrapped_inside(node: Any, inside: Wrap) -> Any:
    """Return an argument; a list of results stays one, any other call (dask makes one of many a list) is wrapped."""
    if not isinstance(node, Task):
        return node
    is_plain = isinstance(node, NestedContainer) and not any(isinstance(a, Task) for a in node.args)
    return node if is_plain else wrapped(None, node, inside, inside)


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
