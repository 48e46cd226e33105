"""From a graph and what the store has to what must be computed: results that are kept stop the walk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from coffea_dirac.graph import layers, nodes
from coffea_dirac.graph.layers import Mapped, coordinates
from coffea_dirac.graph.nodes import Key
from coffea_dirac.graph.prints import Prints
from coffea_dirac.interfaces import Discovered, Json, Row

Policy = Literal["marked", "all"]


class Found(NamedTuple):
    """A kept result that is to be used: its row, and its payload if that is small."""

    row: Row
    payload: bytes | None


Sources = Mapping[Key, tuple[Discovered, ...]]
"""What was discovered when results were made."""
LookUp = Callable[[Mapping[Key, str]], Mapping[Key, Found]]
"""{key: fingerprint} -> what is kept and sound of them."""


@dataclass
class Plan:
    """What to do for the keys that are wanted.

    Attributes
    ----------
    loads : dict of Key to Found
        What is loaded.
    keeps : dict of Key to str
        What is computed and kept, with its fingerprint.
    needed : dict of str to set of Key
        Layer -> its keys that are computed or loaded.
    unknown : dict of Key to str
        What would be kept and has no fingerprint, and why.
    """

    loads: dict[Key, Found] = field(default_factory=dict)
    keeps: dict[Key, str] = field(default_factory=dict)
    needed: dict[str, set[Key]] = field(default_factory=dict)
    unknown: dict[Key, str] = field(default_factory=dict)
    computed: set[Key] = field(default_factory=set)
    again: set[Key] = field(default_factory=set)
    """What is kept and computed even so, since what it was made of is read again, with a report of that reading."""

    def is_whole(self) -> bool:
        """Whether nothing is computed."""
        return not self.computed


@dataclass
class Planner:
    """Walks a graph from what is wanted to what is kept.

    Parameters
    ----------
    prints : Prints
        Of the graph.
    look_up : callable
        What is kept.
    policy : {"marked", "all"}
        What is kept besides what is wanted: marked nodes, or every task.
    marked : collection of Key
        Nodes that were marked by hand.
    """

    prints: Prints
    look_up: LookUp
    policy: Policy = "marked"
    marked: Collection[Key] = ()

    def plan(self, wanted: Iterable[Key]) -> Plan:
        """Return what to do for the `wanted` keys."""
        wanted, again = list(wanted), set[Key]()
        while torn := self._torn(found := self._walked(wanted, again)):
            again |= torn
        return found

    def _torn(self, plan: Plan) -> set[Key]:
        """Return what would be loaded beside another reading of the same partition, whose report may tell of errors."""
        view = self.prints.view
        if not plan.loads or not layers.reports_errors(view):
            return set()
        read = {key for key in plan.computed if layers.tells_errors(view.layer(key))}
        return {key for key in plan.loads if reached(view, key, read)} if read else set()

    def _walked(self, wanted: Iterable[Key], again: set[Key]) -> Plan:
        self._plan, self._wanted = Plan(again=again), set(wanted)
        self._seen: set[Key] = set()
        view = self.prints.view
        waiting: list[Key] = list(self._wanted)
        blocks: dict[str, set[Key]] = {}
        heights = _heights(view)
        while waiting or blocks:
            for key in waiting:
                layer = view.layer(key)
                if layer is not None:
                    blocks.setdefault(layer.name, set()).add(key)
            singles = {key for key in waiting if key in view.tasks}
            waiting = [k for key in self._missing(singles) for k in self._below(key)]
            waiting = [k for k in dict.fromkeys(waiting) if k not in self._seen]
            if not waiting and blocks:
                # Whichever layer is taken, the answer is the same; the topmost is met once.
                name = max(blocks, key=heights.__getitem__)
                waiting += self._down(view.mapped[name], blocks.pop(name), blocks)
        return self._plan

    def _below(self, key: Key) -> Collection[Key]:
        """Return what a single task needs; what is wanted only to be put into a list or a dict is wanted itself."""
        node = self.prints.view.node(key)
        found = nodes.dependencies(node)
        if key in self._wanted and not nodes.is_task(node):
            self._wanted.update(found)
        return found

    def _down(self, layer: Mapped, keys: set[Key], blocks: dict[str, set[Key]]) -> list[Key]:
        """Note the partitions that a layer needs of others in `blocks`; return the single tasks it needs."""
        missing = self._missing(keys, layer)
        singles: list[Key] = []
        for argument in layer.arguments:
            if argument.kind == "value" and isinstance(found := nodes.structure(argument.value), nodes.Ref):
                singles.append(found.key)
            elif argument.kind == "layer":
                needed = _moved(argument, missing) - self._seen
                if argument.value in self.prints.view.mapped:
                    blocks.setdefault(argument.value, set()).update(needed)
                else:
                    singles += needed
        return [k for k in singles if k not in self._seen]

    def _missing(self, keys: Iterable[Key], layer: Mapped | None = None) -> set[Key]:
        """Return those of `keys` that are not kept; the others are noted to be loaded."""
        new = set(keys) - self._seen
        self._seen |= new
        keepable = self._keepable(new, layer)
        asked = {key: keepable[key] for key in keepable if key not in self._plan.again}
        found = self.look_up(asked) if asked else {}
        self._plan.loads.update(found)
        missing = new - found.keys()
        self._plan.computed |= missing
        self._plan.keeps.update({key: keepable[key] for key in keepable if key in missing})
        if layer is not None and new:
            self._plan.needed.setdefault(layer.name, set()).update(new)
        return missing

    def _keepable(self, keys: Iterable[Key], layer: Mapped | None) -> dict[Key, str]:
        view, found = self.prints.view, {}
        is_all = self.policy == "all" or (layer is not None and nodes.stage_of(layer.task) is not None)
        for key in keys:
            if not (is_all or self._is_marked(key, layer)):
                continue
            if layer is None and not _has_result(view.node(key)):
                continue
            digest = self.prints.of(key)
            if digest is not None:
                found[key] = digest
            elif key in self._wanted:
                self._plan.unknown[key] = next(iter(self.prints.problems.values()), "it has no fingerprint")
        return found

    def _is_marked(self, key: Key, layer: Mapped | None) -> bool:
        if key in self._wanted or key in self.marked or key in self.prints.view.folds:
            return True
        return layer is None and nodes.stage_of(self.prints.view.node(key)) is not None


def _heights(view: layers.View) -> dict[str, int]:
    """Return numbers of layers of partitions: each has a larger one than those below it."""
    found: dict[str, int] = {}
    for name in layers.bottom_up(view.mapped, view.layers_below, found):
        found[name] = len(found)
    return found


def _has_result(node: Any) -> bool:
    return nodes.is_task(node) and not nodes.moves_data(node)


def _moved(argument: layers.Argument, keys: Iterable[Key]) -> set[Key]:
    """Return the partitions of another layer that partitions of a layer take."""
    name, places = argument.value, argument.places
    return {(name, *coordinates(key[1:], places)) for key in keys}


def inherited(plan: Plan, view: layers.View, outside: Sources) -> Mapping[Key, tuple[Discovered, ...]]:
    """Return what was discovered when the results below each key that is kept were made, for keys that have any."""
    sources = {key: found.row.inputs for key, found in plan.loads.items() if found.row.inputs}
    sources.update({key: inputs for key, inputs in outside.items() if inputs})
    found = {key: reached(view, key, sources) for key in plan.keeps} if sources else {}
    return {
        key: tuple(sorted({i for source in below_it for i in sources[source]}))
        for key, below_it in found.items()
        if below_it
    }


def reached(view: layers.View, key: Key, sources: Collection[Key]) -> set[Key]:
    """Return those of `sources` that lie nearest below a key."""
    found, stack, seen = set(), [key], {key}
    while stack:
        current = stack.pop()
        if current in sources and current != key:
            found.add(current)
            continue
        new = [k for k in below(view, current) if k not in seen]
        seen.update(new)
        stack += new
    return found


def below(view: layers.View, key: Key) -> Iterable[Key]:
    """Return the keys that a key needs directly."""
    layer = view.layer(key)
    if layer is None:
        return nodes.dependencies(view.node(key)) if key in view.tasks else ()
    found = []
    for argument in layer.arguments:
        if argument.kind == "layer":
            found.append((argument.value, *coordinates(key[1:], argument.places)))
        elif argument.kind == "value" and isinstance(ref := nodes.structure(argument.value), nodes.Ref):
            found.append(ref.key)
    return found


def reason(text: str) -> Mapping[str, Json]:
    """Return why something is computed and not kept."""
    return {"reason": "no fingerprint", "where": text}
