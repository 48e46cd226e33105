"""A smaller graph: what is kept is loaded, what is missing is computed and kept, everything above a hit is dropped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac.graph import layers, nodes
from coffea_dirac.graph.layers import Table, View
from coffea_dirac.graph.nodes import Key
from coffea_dirac.graph.plan import Plan
from coffea_dirac.graph.reasons import Functions
from coffea_dirac.graph.tasks import Keep, Load, Place, Run, Tolerant
from coffea_dirac.interfaces import Discovered

Optimise = Callable[[Any, list[Key]], Any]
_LOADS = "loads"


@dataclass
class Rewriter:
    """Makes the tasks of a smaller graph.

    Parameters
    ----------
    view : View
        The graph as it was asked for.
    plan : Plan
        What to do for what is wanted.
    place : Place
        Where results are kept.
    functions : Functions
        Tells the function of a key.
    inherited : mapping
        Key -> what was discovered when the results below it were made.
    """

    view: View
    plan: Plan
    place: Place
    functions: Functions
    inherited: Mapping[Key, tuple[Discovered, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._has_readers = layers.reports_errors(self.view)

    def reduced(self, graph: Any, wanted: Collection[Key], optimise: Optimise | None) -> list[Table]:
        """Return the layers of a graph for what is `wanted`; only what is computed of it is optimised.

        They are not to be run before `looked_at` has seen them, with those of all other graphs.
        """
        plan = self.plan
        loads = {key: nodes.call(key, Load(self.place.store, *plan.loads[key])) for key in plan.loads}
        computed = [key for key in wanted if key not in loads]
        if not computed:
            return [Table(_LOADS, {key: loads[key] for key in wanted})]
        small = layers.only(graph, *self._layers(loads))
        if optimise is not None:
            small = optimise(small, self._to_survive(computed, set(layers.layers(small))))
        found = layers.tables(small, self.view)
        for table in found:
            for key in table.tasks:
                table.tasks[key] = loads.get(key, table.tasks[key])
        present = {key for table in found for key in table.tasks}
        found.append(Table(_LOADS, {key: task for key, task in loads.items() if key not in present}))
        return _culled(found, wanted)

    def _layers(self, loads: Mapping[Key, Any]) -> tuple[set[str], dict[str, dict[Key, Any]]]:
        """Return the layers that something is computed of, and the loads of the others."""
        computed = {name for key in self.plan.computed for name in self.view.names_of_layers(key)}
        loaded = dict[str, dict[Key, Any]]()
        for key, task in loads.items():
            for name in self.view.names_of_layers(key):
                loaded.setdefault(name, {})[key] = task
        return computed, loaded

    def _to_survive(self, computed: Iterable[Key], present: Set[str]) -> list[Key]:
        """Return the keys that must not be fused into others: what is wanted, kept, or loaded, of layers at hand."""
        inner = [k for k in (*self.plan.keeps, *self.plan.loads) if k not in self.view.folds or self.view.layer(k)]
        inner = [k for k in inner if not self.view.names_of_layers(k).isdisjoint(present)]
        return list(dict.fromkeys([*computed, *inner]))

    def looked_at(self, found: list[Table], wanted: Collection[Key]) -> list[Table]:
        """Put a `Run` around each function; what is wanted and used by others is computed under another key.

        Collections of different kinds are optimised apart, and yet one may be wanted and another made of it.
        """
        used = {d for table in found for task in table.tasks.values() for d in _needs(task)}
        made = {key for table in found for key, task in table.tasks.items() if not nodes.is_future(task)}
        inner = {key: _inner_key(key) for key in made.intersection(used, wanted) if key not in self.plan.loads}
        for table in found:
            for key, task in list(table.tasks.items()):
                if nodes.is_future(task) or key in self.plan.loads:
                    continue
                if inner and (inner.keys() & set(_needs(task))):
                    task = nodes.renamed(task, inner, key)
                if key in inner:
                    table.tasks[inner[key]] = self._run(inner[key], key, task, is_output=False)
                    table.tasks[key] = self._run(key, None, nodes.alias(key, inner[key]), is_output=True)
                else:
                    table.tasks[key] = self._run(key, key, task, is_output=key in wanted)
        return found

    def _run(self, key: Key, of: Key, task: Any, *, is_output: bool) -> Any:
        keep = None
        if of in self.plan.keeps and self.place.session:
            stage, template = self.functions(of)
            inputs = self.inherited.get(of, ())
            keep = Keep(self.plan.keeps[of], stage, template, inputs)
        if self._has_readers:
            task = nodes.with_readers(task, Tolerant)
        return nodes.wrapped(
            key,
            task,
            lambda func, nested: Run(func, self.place, keep, nested=nested, is_output=is_output),
            lambda func, nested: Run(func, self.place, nested=nested),
        )


def _needs(task: Any) -> Collection[Key]:
    return () if nodes.is_future(task) else nodes.dependencies(task)


def _inner_key(key: Key) -> Key:
    prefix = "traced-"
    return (prefix + str(key[0]), *key[1:]) if isinstance(key, tuple) else prefix + str(key)


def _culled(found: list[Table], wanted: Iterable[Key]) -> list[Table]:
    """Return the tasks that something wanted needs."""
    place = {key: table for table in found for key in table.tasks}
    stack, seen = list(wanted), set(wanted)
    while stack:
        key = stack.pop()
        if key in place:
            new = [k for k in _needs(place[key].tasks[key]) if k not in seen]
            seen.update(new)
            stack += new
    return [table._replace(tasks={k: t for k, t in table.tasks.items() if k in seen}) for table in found]
