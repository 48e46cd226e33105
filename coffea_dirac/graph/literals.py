"""Numbers, texts and axes that stand in a graph, by the operations that they are given to.

An operation is told from others by its *form*: what it calls, and on what, with all such values left out.  So the
``30`` of ``events.pt > 30`` in one graph can be laid beside the ``25`` in another.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from coffea_dirac import codecs
from coffea_dirac.graph import nodes
from coffea_dirac.graph.layers import Mapped, View, bottom_up
from coffea_dirac.graph.nodes import Key
from coffea_dirac.interfaces import Record
from coffea_dirac.redact import is_secret_name, without_secrets
from coffea_dirac.stages.explaining import template_key

Refer = Callable[[Key], str]
Values = Mapping[str, Sequence[tuple[tuple[str, str], ...]]]
"""Form -> what operations of this form are given."""
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), slice})
_NUMBERS = frozenset({int, float, bool})
_DESCRIBED = ("boost_histogram", "hist")
# Names of calls by which dask spells lists and keywords.
_NAMELESS = frozenset({"dict", "list", "tuple", "set", "repeat", "_identity_cast"})
_MOST_TASKS, _MOST_VALUES, _LONGEST = 1_000, 50, 60


class Operation(NamedTuple):
    """What is told of a layer or of a single task: its form, and its values, each with what is called with it."""

    form: str
    values: tuple[tuple[str, str], ...]


def unit(view: View, key: Key) -> Key:
    """Return what stands for a key: its layer for a partition, else the key itself."""
    layer = view.layer(key)
    return key if layer is None else layer.name


def operations(view: View, units: Iterable[Key]) -> Mapping[Key, Operation]:
    """Return the operations of layers and single tasks and of all below them; none of a graph of very many tasks.

    Where there are so many single tasks, what they are given are data.
    """
    found: dict[Key, Operation] = {}
    if len(view.tasks) <= _MOST_TASKS:
        for one in bottom_up(units, lambda u: _below(view, u), found):
            found[one] = _operation(view, one, found)
    return found


def _layer(view: View, one: Key) -> Mapped | None:
    return view.mapped.get(one) if isinstance(one, str) else None


def _below(view: View, one: Key) -> list[Key]:
    layer = _layer(view, one)
    if layer is not None:
        return view.layers_below(layer.name)
    return [unit(view, k) for k in nodes.dependencies(view.node(one)) if k in view]


def _operation(view: View, one: Key, below: Mapping[Key, Operation]) -> Operation:
    layer = _layer(view, one)
    node = view.node(one) if layer is None else layer.task
    arguments = {} if layer is None else {a.token: a for a in layer.arguments}
    seen = _Seen()

    def refer(key: Key) -> str:
        argument = arguments.get(key)
        if argument is not None and argument.kind != "layer":
            return seen.part(argument.value, refer) if argument.kind == "value" else "input"
        name = argument.value if argument is not None else unit(view, key)
        return below[name].form if name in below else "outside"

    text = seen.part(node, refer)
    # A node without a call, or with very many values, holds data.
    values = seen.values if nodes.is_task(node) and len(seen.values) <= _MOST_VALUES else []
    return Operation(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), tuple(values))


class _Seen:
    """Walks over what a task holds: the text without values, and the values."""

    def __init__(self) -> None:
        self.values: list[tuple[str, str]] = []
        self._calls: list[str] = []

    def part(self, value: Any, refer: Refer, name: str = "") -> str:
        if type(value) in _PLAIN or type(value).__module__.partition(".")[0] in _DESCRIBED:
            self._note(name, repr(value))
            return "value"
        if nodes.is_node(value):
            return self._node(nodes.structure(value), refer)
        if isinstance(value, functools.partial):
            return self._node(nodes.Call(value.func, value.args, value.keywords), refer)
        if type(value) in (list, tuple):
            return f"{type(value).__name__}({','.join([self.part(one, refer, name) for one in value])})"
        if type(value) is dict:
            return f"dict({','.join([f'{k!r}:{self.part(v, refer, str(k))}' for k, v in value.items()])})"
        return self._other(value, refer)

    def _other(self, value: Any, refer: Refer) -> str:
        if isinstance(value, types.FunctionType | type) or not callable(value):
            inner = nodes.private_graph(value) if isinstance(value, types.FunctionType) else None
            return self._node(inner, refer) if inner is not None else nodes.name_of(value)
        for name, one in getattr(value, "__dict__", {}).items():
            if type(one) in _NUMBERS:
                self._note(name, repr(one))
        return nodes.name_of(value)

    def _note(self, name: str, text: str) -> None:
        text = without_secrets(text) if not is_secret_name(name) else "..."
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        self.values.append((self._calls[-1] if self._calls else "", f"{name}={text}" if name else text))

    def _node(self, found: Any, refer: Refer) -> str:
        if isinstance(found, nodes.Ref):
            return refer(found.key)
        if isinstance(found, nodes.Data):
            return self.part(found.value, refer)
        if isinstance(found, nodes.Container):
            return self._container(found, refer)
        if isinstance(found, nodes.Inner):
            return self._inner(found, refer)
        own = nodes.name_of(found)
        self._calls.append(self._calls[-1] if own in _NAMELESS and self._calls else own)
        if found.func is dict and len(found.args) == 1 and type(found.args[0]) is list:
            # How legacy tasks spell keywords.
            found = found._replace(args=(), kwargs=dict(found.args[0]))
        parts = [self.part(one, refer) for one in (found.func, *found.args)]
        named = [f"{name}={self.part(one, refer, name)}" for name, one in found.kwargs.items()]
        self._calls.pop()
        return f"call({','.join(parts)};{','.join(named)})"

    def _container(self, found: nodes.Container, refer: Refer) -> str:
        if found.kind == "Dict":
            pairs = zip(found.args[::2], found.args[1::2], strict=True)
            return f"Dict({','.join([f'{name!r}:{self.part(one, refer, str(name))}' for name, one in pairs])})"
        return f"{found.kind}({','.join([self.part(one, refer) for one in found.args])})"

    def _inner(self, inner: nodes.Inner, refer: Refer) -> str:
        def inside(key: Key) -> str:
            if key in inner.bound:
                return self.part(inner.bound[key], refer) if nodes.is_node(inner.bound[key]) else "bound"
            if key not in inner.graph:
                return refer(key)
            return self.part(nodes.as_node(key, inner.graph[key], inner.graph), inside)

        return inside(inner.out)


# ---------------------------------------------------------------------------------------------------------- comparison


def by_form(found: Iterable[Operation]) -> Values:
    """Return the values of operations of each form that is given any, each list of them once."""
    forms: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for one in found:
        if one.values:
            forms.setdefault(one.form, set()).add(one.values)
    return {form: sorted(values) for form, values in sorted(forms.items())}


def digest_of(values: Values) -> str:
    """Return the digest of what `by_form` returned."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def values_record(name: str, values: Values) -> Record:
    """Return what `by_form` returned as it is kept."""
    payload = codecs.encode(values)
    info = {"template": digest_of(values), "created_s": round(time.time(), 3)}
    return Record(template_key(name), payload.data, payload.codec, info=info)


def changed(one: Operation, now: Values, before: Values) -> str:
    """Return how the values of an operation differ from those that one of its form had, empty if that cannot be told.

    Examples
    --------
    >>> cut = Operation("ab12", (("greater", "30"),))
    >>> changed(cut, by_form([cut]), {"ab12": [(("greater", "25"),)]})
    'greater: `25` became `30`'
    >>> changed(cut, by_form([cut]), {"ab12": [(("greater", "20"),), (("greater", "25"),)]})
    ''
    """
    known, current = before.get(one.form, ()), now.get(one.form, ())
    if not known or one.values in known:
        return ""
    gone = [old for old in known if old not in current and len(old) == len(one.values)]
    other = sorted(([n for n, (a, b) in enumerate(zip(old, one.values, strict=True)) if a != b], old) for old in gone)
    other.sort(key=lambda pair: len(pair[0]))
    if not other or (len(other) > 1 and len(other[0][0]) == len(other[1][0])):
        return ""
    places, old = other[0]
    return ", ".join(f"{one.values[n][0]}: `{old[n][1]}` became `{one.values[n][1]}`" for n in places)
