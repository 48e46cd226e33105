"""The state of one merge: which places have a result, which can be merged now, and where.

A result that lies in the store is merged by a worker, with its siblings, into a record of its own.  A result that is
in memory only (nothing is kept, or it has no codec) is added here, in fileset order, as soon as it is next: one partial
sum for each level is in memory then, and what came too early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac.interfaces import Row
from coffea_dirac.merge import Leaf, Node, Place, mark_of

# So many results below one place are worth a task of their own before everything is there.
MERGE_LEAST = 32


class UnreadableError(Exception):
    """A result that is to be added here cannot be loaded: its place needs one again."""


@dataclass
class Found:
    """A result: a row of the store, a payload or a value in memory, with coffea's ``entries`` and ``columns``."""

    row: Row | None = None
    payload: tuple[str, bytes] | None = None
    value: Any = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """What a worker merges: rows and inner groups from left to right, into the record that `mark` is the key of."""

    mark: str
    parts: tuple[Row | Group, ...]
    n_leaves: int


class _State:
    """What a ledger knows of one node."""

    __slots__ = ("flying", "is_complete", "is_local", "metrics", "n_next", "n_open", "partial")

    def __init__(self, n_children: int) -> None:
        self.n_open, self.n_next, self.flying = n_children, 0, 0
        self.is_local = self.is_complete = False
        self.partial: Any = None
        self.metrics: dict[str, Any] = {}


class Ledger:
    """Results by place, and what can be merged.

    Parameters
    ----------
    root : Node or Leaf
        What `merge.tree` returned.
    load : callable
        (place, Found) -> a value that may be changed; raises `UnreadableError` if there is none after all.
    add : callable
        (partial sum or None, value) -> their sum; may change the partial sum.

    Attributes
    ----------
    unreadable : list of (place, Found)
        What could not be loaded to be added here; each of these places needs a result again.

    Examples
    --------
    >>> from coffea_dirac.merge import tree
    >>> leaves = [Leaf("ttbar", "a.root", f"{i}", i) for i in range(3)]
    >>> ledger = Ledger(tree(leaves), lambda place, found: found.value, lambda a, b: (a or []) + b)
    >>> for leaf in reversed(leaves):
    ...     ledger.enter(leaf, Found(value=[leaf.position]))
    >>> ledger.result.value
    [0, 1, 2]
    """

    def __init__(self, root: Place, load: Callable[[Place, Found], Any], add: Callable[[Any, Any], Any]) -> None:
        self.root = root
        self._load, self._add = load, add
        self._found: dict[Place, Found] = {}
        self._states: dict[Node, _State] = {}
        self._ready: dict[Node, None] = {}
        self._parents: dict[Leaf, Node] = {}
        self._marks: dict[Place, str] = {}
        self._absent: set[Place] = set()
        self.unreadable: list[tuple[Place, Found]] = []
        self._watch(root)

    def _watch(self, place: Place) -> None:
        nodes = [place] if isinstance(place, Node) else []
        while nodes:
            node = nodes.pop()
            self._states[node] = _State(len(node.children))
            for child in node.children:
                if isinstance(child, Node):
                    nodes.append(child)
                else:
                    self._parents[child] = node

    def _parent(self, place: Place) -> Node | None:
        return place.parent if isinstance(place, Node) else self._parents.get(place)

    @property
    def result(self) -> Found | None:
        """The result of the whole, once there is one."""
        return self._found.get(self.root)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be merged."""
        return self.root in self._found or self.root in self._absent

    # ---------------------------------------------------------------- what comes in

    def enter(self, place: Place, found: Found) -> None:
        """Note the result of a place."""
        is_news = not (isinstance(place, Node) and self._states[place].is_complete)
        if isinstance(place, Node):
            self._states[place].is_complete = True
            self._ready.pop(place, None)
            self._forget_below(place)
        self._found[place] = found
        if found.row is None:
            self._make_local(self._parent(place))
        self._done(place, is_news=is_news)

    def leave_out(self, leaf: Leaf) -> None:
        """Note that a leaf has no result and will have none."""
        self._absent.add(leaf)
        self._done(leaf, is_news=True)

    def split(self, leaf: Leaf, parts: Sequence[Leaf]) -> None:
        """Put several leaves in the place of one; what is merged from them stays in memory and is not kept."""
        parent = self._parents.pop(leaf, None)
        node = Node(list(parts), leaf.identity)
        node.parent = parent
        if parent is None:
            self.root = node
        else:
            parent.children[parent.children.index(leaf)] = node
        self._watch(node)
        self._make_local(node)

    def _done(self, place: Place, *, is_news: bool) -> None:
        """Let the parent of a place know that it is complete, or that its merged result is here."""
        parent = self._parent(place)
        if parent is None:
            return
        state = self._states[parent]
        state.n_open -= is_news
        if state.is_local:
            self._fold_on(parent)
        elif state.n_open == 0 and not state.is_complete:
            self._complete(parent)
        elif state.is_complete and self._takes_over(parent):
            self._ready.pop(parent, None)
            self._done(parent, is_news=False)

    def _complete(self, node: Node) -> None:
        """All below a node that lies in the store is there: it can be merged, alone or as a part of its parent."""
        present = self._present(node)
        self._states[node].is_complete = True
        if not present:
            self._absent.add(node)
        elif not self._takes_over(node):
            self._ready[node] = None
            for child in present:
                if isinstance(child, Node):
                    self._ready.pop(child, None)
        self._done(node, is_news=True)

    def _takes_over(self, node: Node) -> bool:
        """Let the result of an only child be that of the node, if it is there."""
        present = self._present(node)
        if len(present) != 1 or present[0] not in self._found:
            return False
        self._found[node] = self._found.pop(present[0])
        return True

    def _present(self, node: Node) -> list[Place]:
        return [child for child in node.children if child not in self._absent]

    def _make_local(self, node: Node | None) -> None:
        """Merge `node` and all above it here, since a result below it is in memory only."""
        while node is not None and not self._states[node].is_local:
            self._states[node].is_local = True
            self._ready.pop(node, None)
            for child in node.children:
                if isinstance(child, Node) and child not in self._found and child not in self._absent:
                    state = self._states[child]
                    if state.is_complete and not state.is_local:
                        self._ready[child] = None
            node = node.parent

    def _forget_below(self, node: Node) -> None:
        for child in node.children:
            if self._found.pop(child, None) is None and isinstance(child, Node):
                self._forget_below(child)

    # ---------------------------------------------------------------- merging here

    def _fold_on(self, node: Node) -> None:
        """Add to the partial sum of a local node what is next in order."""
        state = self._states[node]
        while state.n_next < len(node.children):
            child = node.children[state.n_next]
            if child not in self._absent:
                if child not in self._found:
                    return
                found = self._found.pop(child)
                try:
                    value = self._load(child, found)
                except UnreadableError:
                    self.unreadable.append((child, found))
                    self._reset(child)
                    self._open_above(node)
                    return
                state.partial = self._add(state.partial, value)
                add_metrics(state.metrics, metrics_of(found))
            state.n_next += 1
        # All below may have been known before, when it was still to be merged at workers.
        is_news, state.is_complete = not state.is_complete, True
        if state.partial is None:
            self._absent.add(node)
        else:
            self._found[node] = Found(value=state.partial, metrics=state.metrics)
            state.partial = None
            self._make_local(node.parent)
        self._done(node, is_news=is_news)

    def so_far(self) -> Iterator[tuple[Place, Found]]:
        """Yield what is there, in fileset order; partial sums are those in use, so copy before you change them."""
        places = [self.root]
        while places:
            place = places.pop()
            if place in self._found:
                yield place, self._found[place]
            elif isinstance(place, Node):
                state = self._states[place]
                if state.partial is not None:
                    yield place, Found(value=state.partial, metrics=state.metrics)
                places.extend(reversed(place.children[state.n_next :]))

    # ---------------------------------------------------------------- merging at workers

    def know(self, leaf: Leaf, mark: str) -> None:
        """Note the full key of a leaf's result."""
        self._marks[leaf] = mark

    def mark(self, place: Place) -> str:
        """Return the mark of a place, empty if one of its leaves has none."""
        known = self._marks.get(place)
        if known is None and isinstance(place, Node):
            marks = [self.mark(child) for child in self._present(place)]
            known = "" if not all(marks) else marks[0] if len(marks) == 1 else mark_of(marks)
            if known:
                self._marks[place] = known
        return known or ""

    def take(self, *, is_last: bool) -> Node | None:
        """Return a node whose results are worth merging now and note that it flies, None if there is none.

        Parameters
        ----------
        is_last : bool
            Nothing else is left to do: merge whatever can be.
        """
        for node in self._ready:
            if not self._states[node].flying and (is_last or self._weight(node) >= MERGE_LEAST):
                del self._ready[node]
                self._fly(node, 1)
                return node
        return None

    def landed(self, node: Node) -> None:
        """Note that a node taken has come back, before its result is entered."""
        self._fly(node, -1)

    def put_back(self, node: Node) -> None:
        """Offer a node again whose merge was lost."""
        parent = node.parent
        if parent is None or not self._states[parent].is_complete or self._states[parent].is_local:
            self._ready[node] = None

    def _fly(self, node: Node | None, change: int) -> None:
        while node is not None:
            self._states[node].flying += change
            node = node.parent

    def _weight(self, place: Place) -> int:
        if place in self._found or isinstance(place, Leaf):
            return 1
        return sum(self._weight(child) for child in self._present(place))

    def group(self, node: Node) -> Group:
        """Return what a worker needs to merge a node."""
        present = self._present(node)
        if len(present) == 1 and isinstance(present[0], Node):
            return self.group(present[0])
        return Group(self.mark(node), tuple(map(self._part, present)), node.n_leaves)

    def _part(self, place: Place) -> Row | Group:
        found = self._found.get(place)
        if found is not None:
            assert found.row is not None, "what is in memory makes its parent local"
            return found.row
        assert isinstance(place, Node), "a complete leaf has a result"
        return self.group(place)

    # ---------------------------------------------------------------- what was lost

    def reopen(self, node: Node, lost: Sequence[Row]) -> list[Place]:
        """Forget the places below `node` whose rows are `lost`, and return them: each needs a result again."""
        places: list[Place] = []
        waiting: list[Place] = [node]
        while waiting:
            place = waiting.pop()
            found = self._found.get(place)
            if found is None and isinstance(place, Node):
                waiting.extend(place.children)
            elif found is not None and found.row in lost:
                places.append(place)
        for place in places:
            self._reset(place)
            self._open_above(self._parent(place))
        return places

    def _reset(self, place: Place) -> int:
        """Forget all results at and below a place; return 1 if it needs one again, 0 if it stays absent."""
        self._found.pop(place, None)
        self._marks.pop(place, None)
        if isinstance(place, Leaf):
            return place not in self._absent
        self._absent.discard(place)
        self._ready.pop(place, None)
        state = self._states[place] = _State(0)
        state.n_open = sum(self._reset(child) for child in place.children)
        if not state.n_open:
            self._absent.add(place)
        return state.n_open > 0

    def _open_above(self, node: Node | None) -> None:
        while node is not None:
            state = self._states[node]
            was_complete, state.is_complete = state.is_complete, False
            state.n_open += 1
            self._ready.pop(node, None)
            self._marks.pop(node, None)
            if not was_complete:
                return
            node = node.parent


def metrics_of(found: Found) -> Mapping[str, Any]:
    """Return coffea's ``entries`` and ``columns`` of a result, as they were kept or as they were just measured."""
    return found.row.info if found.row is not None else found.metrics


def add_metrics(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add ``entries`` and ``columns`` of one result to a total.

    Examples
    --------
    >>> total = {}
    >>> add_metrics(total, {"entries": 10, "columns": ["Jet_pt"]})
    >>> add_metrics(total, {"entries": 5, "columns": ["Jet_eta"]})
    >>> total["entries"], sorted(total["columns"])
    (15, ['Jet_eta', 'Jet_pt'])
    """
    total["columns"] = set(total.get("columns", ())) | set(more.get("columns", ()))
    total["entries"] = total.get("entries", 0) + more.get("entries", 0)
