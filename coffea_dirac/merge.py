"""Partial results -> one, as a tree whose shape depends on the set of leaves only.

Leaves are in fileset order.  The levels are work item -> file -> dataset -> run; inside a level, groups end at
content-defined places: after a child whose digest is 0 modulo `MODULUS`, at most `WIDEST` children.  So adding or
removing
a file changes one path of the tree, and the order in which results arrive changes nothing: floating-point sums are made
in the same order each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

MODULUS = 16
WIDEST = 64


@dataclass(frozen=True, slots=True)
class Leaf:
    """One work item's place in the merge: `identity` is what its data is, `position` where its result is found."""

    dataset: str
    filename: str
    identity: str
    position: int


@dataclass(frozen=True, slots=True)
class Node:
    """A group of leaves or nodes that are folded from left to right."""

    digest: str
    children: tuple[Node | Leaf, ...]


def tree(leaves: Sequence[Leaf]) -> Node:
    """Return the merge tree of `leaves`, given in fileset order.

    Examples
    --------
    >>> leaves = [Leaf("ttbar", "a.root", f"{i:02x}", i) for i in range(3)]
    >>> tree(leaves) == tree(list(leaves))
    True
    """
    datasets: list[Node | Leaf] = []
    for _, of_dataset in groupby(leaves, key=lambda leaf: leaf.dataset):
        files: list[Node | Leaf] = [
            _grouped(list(of_file)) for _, of_file in groupby(of_dataset, key=lambda leaf: leaf.filename)
        ]
        datasets.append(_grouped(files))
    return _grouped(datasets)


def _grouped(children: Sequence[Node | Leaf]) -> Node:
    """Return one node over `children`, with as many levels of groups between as their number asks for."""
    level = list(children)
    while len(level) > WIDEST:
        level = [_node(group) for group in _groups(level)]
    return _node(level)


def _groups(children: Sequence[Node | Leaf]) -> Iterator[list[Node | Leaf]]:
    group: list[Node | Leaf] = []
    for child in children:
        group.append(child)
        # A group of one would not make the level shorter: such a cut waits for the next child.
        if len(group) > 1 and (int(_digest_of(child)[:8], 16) % MODULUS == 0 or len(group) == WIDEST):
            yield group
            group = []
    if group:
        yield group


def _node(children: Sequence[Node | Leaf]) -> Node:
    joined = " ".join(_digest_of(child) for child in children)
    return Node(hashlib.sha256(b"merge 1 " + joined.encode()).hexdigest(), tuple(children))


def _digest_of(child: Node | Leaf) -> str:
    return child.digest if isinstance(child, Node) else hashlib.sha256(child.identity.encode()).hexdigest()


def fold(node: Node, load: Callable[[int], Any]) -> Any:
    """Return the merged results of the leaves below `node`; a leaf that loads as None is absent.

    Parameters
    ----------
    node : Node
        What `tree` returned.
    load : callable
        Position -> a result that may be changed; called once for each leaf, from left to right, so that one leaf and
        one
        partial sum for each level are in memory at a time.

    Raises
    ------
    ValueError
        Two results cannot be added (from coffea, naming their types).
    """
    from coffea.processor import accumulate

    merged: Any = None
    for child in node.children:
        value = load(child.position) if isinstance(child, Leaf) else fold(child, load)
        if merged is None:
            merged = value
        elif value is not None:
            merged = accumulate([value], merged)
    return merged
