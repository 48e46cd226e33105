"""Fingerprints of the keys of a graph: digests of what is computed, independent of what dask calls it.

A layer of partitions is fingerprinted once: its *program* is the digest of its task over the programs of the layers
below, down to inputs and single tasks.  A partition's fingerprint is H(program, the inputs it reaches), so that only
the partitions that are asked for cost anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coffea_dirac.errors import FingerprintError
from coffea_dirac.graph import layers, nodes
from coffea_dirac.graph.layers import Block, Mapped, View, coordinates
from coffea_dirac.graph.nodes import Key
from coffea_dirac.graph.values import Values

SCHEME = "dask graph 1"


class Leaf(NamedTuple):
    """Where a program takes data from: a piece of input, or the result of a single task."""

    kind: str
    value: Any
    places: tuple[int, ...]


class Program(NamedTuple):
    """What all partitions of a layer have in common, and where they take their data from."""

    digest: str
    leaves: tuple[Leaf, ...]


class Unknown(Exception):  # noqa: N818 - no error: the key is computed and not kept
    """A key has no fingerprint."""


@dataclass
class Prints:
    """Fingerprints of the keys of one graph.

    Parameters
    ----------
    view : View
        The graph.
    values : Values
        Texts of functions and values.
    known : mapping
        Fingerprints of keys that are not in the graph: results that a cluster holds.

    Attributes
    ----------
    problems : dict
        Key -> why it has no fingerprint; only where the cause lies.
    outside : set of Key
        The known keys that others need.
    functions : dict
        Single key, or name of a layer -> digests of the user's code that its task holds.
    """

    view: View
    values: Values
    known: Mapping[Key, str] = field(default_factory=dict)
    problems: dict[Key, str] = field(default_factory=dict)
    outside: set[Key] = field(default_factory=set)
    functions: dict[Key, set[str]] = field(default_factory=dict)
    _digests: dict[Key, str | None] = field(default_factory=dict)
    _programs: dict[str, Program | None] = field(default_factory=dict)
    _pieces: dict[tuple[int, Block], str] = field(default_factory=dict)

    def of(self, key: Key) -> str | None:
        """Return the fingerprint of a key, None if it has none."""
        if key not in self._digests:
            for current in layers.bottom_up([key], self._needed, self._digests):
                self._digests[current] = self._digest(current)
        return self._digests[key]

    def _needed(self, key: Key) -> Iterable[Key]:
        """Return the keys whose fingerprints enter that of a key."""
        layer = self.view.layer(key)
        if layer is None:
            return nodes.dependencies(self.view.node(key)) if key in self.view.tasks else ()
        program = self._program(layer)
        return [_key(leaf, key[1:]) for leaf in (program.leaves if program else ()) if leaf.kind == "key"]

    def _digest(self, key: Key) -> str | None:
        layer = self.view.layer(key)
        if layer is not None:
            return self._partition(layer, key)
        return self._single(key, self.view.node(key)) if key in self.view.tasks else self._outside(key)

    def _outside(self, key: Key) -> str | None:
        if key not in self.known:
            self.problems[key] = f"{key!r} is a result that this cache knows nothing of"
            return None
        self.outside.add(key)
        return self.known[key]

    def _single(self, key: Key, node: Any) -> str | None:
        found = nodes.structure(node)
        if isinstance(found, nodes.Ref):
            return self._outside(key) if found.key == key else self._found(found.key)
        self.values.met.clear()
        digest = self._digested(key, lambda: self.values.node(node, self._refer))
        if self.values.met:
            self.functions[key] = set(self.values.met)
        return digest

    def _digested(self, key: Key, text: Callable[[], str]) -> str | None:
        try:
            return hashlib.sha256(
                f"{SCHEME} {self.values.common} {text()}".encode("utf-8", "surrogatepass")
            ).hexdigest()
        except FingerprintError as error:
            self.problems[key] = str(error)
        except Unknown:
            pass
        return None

    def _refer(self, key: Key) -> str:
        if (digest := self._found(key)) is None:
            raise Unknown
        return digest

    def _found(self, key: Key) -> str | None:
        if key not in self._digests:
            # What dask says of it names keys: it shall have the graph as it is.
            raise ValueError(f"{key!r} needs itself")
        return self._digests[key]

    # ---------------------------------------------------------------- layers of partitions

    def _partition(self, layer: Mapped, key: Key) -> str | None:
        program, block = self._program(layer), key[1:]
        if program is None:
            return None
        return self._digested(
            key, lambda: f"{program.digest} {' '.join([self._reached(leaf, block) for leaf in program.leaves])}"
        )

    def _reached(self, leaf: Leaf, block: Block) -> str:
        if leaf.kind == "key":
            return self._refer(_key(leaf, block))
        at = coordinates(block, leaf.places)
        known = self._pieces.get((id(leaf.value), at))
        if known is None:
            known = self._pieces[id(leaf.value), at] = self.values.value(leaf.value.get(at, at), self._refer)
        return known

    def _program(self, layer: Mapped) -> Program | None:
        """Return what a layer computes, the layers below first."""
        for name in layers.bottom_up([layer.name], self.view.layers_below, self._programs):
            self._programs[name] = self._composed(self.view.mapped[name])
        return self._programs[layer.name]

    def _composed(self, layer: Mapped) -> Program | None:
        leaves: dict[Leaf, int] = {}
        texts = {}
        for argument in layer.arguments:
            if argument.kind == "value" and not nodes.is_node(argument.value):
                continue
            text = self._slot(argument, leaves)
            if text is None:
                return None
            texts[argument.token] = text
        values = {a.token: a.value for a in layer.arguments if a.token not in texts}

        def refer(token: Key) -> str:
            return texts[token] if token in texts else self.values.value(values[token], _no_key)

        self.values.met.clear()
        try:
            text = self.values.node(layer.task, refer)
        except FingerprintError as error:
            self.problems[layer.name] = str(error)
            return None
        self.functions[layer.name] = set(self.values.met)
        digest = hashlib.sha256(f"{SCHEME} layer {text}".encode("utf-8", "surrogatepass")).hexdigest()
        return Program(digest, tuple(leaves))

    def _slot(self, argument: layers.Argument, leaves: dict[Leaf, int]) -> str | None:
        """Return what stands for an argument in a program, None if it has no fingerprint; new leaves are numbered."""
        if argument.kind == "value":
            found = nodes.structure(argument.value)
            if not isinstance(found, nodes.Ref):
                return self.values.node(argument.value, _no_key)
            return f"leaf {leaves.setdefault(Leaf('key', (found.key,), ()), len(leaves))}"
        if argument.kind == "input":
            return f"leaf {leaves.setdefault(Leaf('input', argument.value, argument.places), len(leaves))}"
        below = self.view.mapped.get(argument.value)
        if below is None:
            return f"leaf {leaves.setdefault(Leaf('key', argument.value, argument.places), len(leaves))}"
        program = self._programs[below.name]
        if program is None:
            return None
        moved = (leaf._replace(places=_through(leaf.places, argument.places)) for leaf in program.leaves)
        return f"program {program.digest} {[leaves.setdefault(leaf, len(leaves)) for leaf in moved]}"


def _through(inner: tuple[int, ...], outer: tuple[int, ...]) -> tuple[int, ...]:
    """Return where coordinates come from that are taken from coordinates that come from `outer`."""
    return tuple(outer[p] if p >= 0 else -1 for p in inner)


def _key(leaf: Leaf, block: Block) -> Key:
    if type(leaf.value) is tuple:
        return leaf.value[0]
    return (leaf.value, *coordinates(block, leaf.places))


def _no_key(key: Key) -> str:
    raise FingerprintError(str(key), "a layer names a key where a value should be")
