"""Partial results -> one, as a tree whose shape depends on the set of leaves only.

Leaves are in fileset order.  The levels are work item -> file -> dataset -> run; inside a level, groups end at
content-defined places: after a child whose digest is 0 modulo `MODULUS`, at most `WIDEST` children.  So adding or
removing a file changes one path of the tree, and neither the order in which results arrive nor an edit of the code
changes how floating-point numbers are added.  What has a single child is that child.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

MODULUS = 16
WIDEST = 64


class Leaf(NamedTuple):
    """One work item's place in the merge: `identity` says which data it is, `position` where its result is found."""

    dataset: str
    filename: str
    identity: str
    position: int


class Node:
    """A group of places that are folded from left to right; compared by identity.

    Attributes
    ----------
    children : list of Node or Leaf
        In fileset order, at least two.
    parent : Node or None
        The group that this one is a child of.
    n_leaves : int
        Leaves below.
    """

    __slots__ = ("children", "digest", "n_leaves", "parent")

    def __init__(self, children: list[Node | Leaf], digest: str) -> None:
        self.children, self.digest = children, digest
        self.parent: Node | None = None
        self.n_leaves: int = sum(child.n_leaves if isinstance(child, Node) else 1 for child in children)
        for child in children:
            if isinstance(child, Node):
                child.parent = self


Place = Node | Leaf


def tree(leaves: Sequence[Leaf]) -> Place:
    """Return the merge tree of `leaves`, given in fileset order; at least one.

    Examples
    --------
    >>> leaves = [Leaf("ttbar", "a.root", f"{i:02x}", i) for i in range(3)]
    >>> tree(leaves).n_leaves
    3
    >>> tree(leaves[:1]) == leaves[0]
    True
    """
    datasets: list[Place] = []
    for _, of_dataset in groupby(leaves, key=lambda leaf: leaf.dataset):
        files: list[Place] = [
            _grouped(list(of_file)) for _, of_file in groupby(of_dataset, key=lambda leaf: leaf.filename)
        ]
        datasets.append(_grouped(files))
    return _grouped(datasets)


def _grouped(children: Sequence[Place]) -> Place:
    """Return one place over `children`, with as many levels of groups between as their number asks for."""
    level = list(children)
    while len(level) > WIDEST:
        level = [_joined(group) for group in _groups(level)]
    return _joined(level)


def _groups(children: Sequence[Place]) -> Iterator[list[Place]]:
    group: list[Place] = []
    for child in children:
        group.append(child)
        # A group of one would not make the level shorter: such a cut waits for the next child.
        if len(group) > 1 and (int(_digest_of(child)[:8], 16) % MODULUS == 0 or len(group) == WIDEST):
            yield group
            group = []
    if group:
        yield group


def _joined(children: list[Place]) -> Place:
    if len(children) == 1:
        return children[0]
    joined = " ".join(map(_digest_of, children))
    return Node(children, hashlib.sha256(b"shape 1 " + joined.encode()).hexdigest())


def _digest_of(place: Place) -> str:
    return place.digest if isinstance(place, Node) else hashlib.sha256(place.identity.encode()).hexdigest()


def leaves_of(place: Place) -> Iterator[Leaf]:
    """Yield the leaves below a place, in fileset order.

    Examples
    --------
    >>> [leaf.position for leaf in leaves_of(tree([Leaf("d", "f", f"{i}", i) for i in range(3)]))]
    [0, 1, 2]
    """
    if isinstance(place, Leaf):
        yield place
        return
    for child in place.children:
        yield from leaves_of(child)


def mark_of(marks: Iterable[str]) -> str:
    """Return what identifies the merged result of parts that are identified by `marks`, in this order.

    The mark of a leaf is its full key; the mark of a node is the key of its record.

    Examples
    --------
    >>> mark_of(["aa", "bb"]) != mark_of(["bb", "aa"])
    True
    """
    return hashlib.sha256(b"merge 2 " + " ".join(marks).encode()).hexdigest()
