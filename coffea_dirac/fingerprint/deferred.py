"""Globals that code fills while it runs: they count as they start, if nothing else may have filled them."""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint.code import SOURCES, Source
from coffea_dirac.fingerprint.dump import Dump
from coffea_dirac.fingerprint.names import uses_of
from coffea_dirac.fingerprint.packages import origin_of
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

ABSENT = object()
_EMPTY_CALLS = frozenset(
    "dict list set OrderedDict defaultdict Counter deque WeakValueDictionary WeakKeyDictionary".split()
)


@dataclass(frozen=True)
class Deferred:
    """A global whose encoding waits until all code is known that may fill it."""

    namespace: dict[str, Any]
    name: str
    value: Any
    into: dict[str, Json]
    path: tuple[str, ...]


def settle(walker: Walker) -> None:
    """Encode the globals that were put off; one that the reached code alone fills enters as it starts."""
    while walker.deferred:
        one = walker.deferred.pop(0)
        walker.path = one.path
        with walker.inside(one.namespace):
            start = _start(walker, one)
            if start is not None:
                one.into[one.name] = ["filled by its code", start]
            elif one.value is ABSENT:
                one.into[one.name] = "absent"
            else:
                one.into[one.name] = walker.encode(one.value)
                walker.member(str(one.namespace.get("__name__", "")), one.name, one.into[one.name])
        walker.drain()


def _start(walker: Walker, one: Deferred) -> Json:
    """Return how a global starts if nothing but the reached code writes it, else None."""
    written = (id(one.namespace), one.name) in walker.written_names or id(one.value) in walker.written_values
    source = _source(walker, one) if written else None
    if source is None:
        return None
    bindings = [node for node in source.tree.body if _binds(node, one.name)]
    if len(bindings) > 1 or not all(is_empty(getattr(node, "value", None)) for node in bindings):
        return None
    fillers = writers(walker, source, one.name)
    if fillers is None or (
        one.value is not ABSENT and one.value and _mentioned_elsewhere({one.name, *fillers}, source)
    ):
        return None
    return Dump().expression(getattr(bindings[0], "value")) if bindings else "absent"  # noqa: B009


def _source(walker: Walker, one: Deferred) -> Source | None:
    file = one.namespace.get("__file__")
    files = [file] if isinstance(file, str) else []
    for value in one.namespace.values():
        if isinstance(value, types.FunctionType) and value.__globals__ is one.namespace:
            files.append(value.__code__.co_filename)
    for name in dict.fromkeys(files):
        source = SOURCES.read(name, walker.given)
        if source is not None and one.name in source.text:
            return source
    return None


def _binds(node: ast.stmt, name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        for n in ([] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ast.walk(node))
    )


def is_empty(node: ast.AST | None) -> bool:
    """Return whether an expression makes an empty container, or None."""
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Dict | ast.List):
        return not (node.keys if isinstance(node, ast.Dict) else node.elts)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in _EMPTY_CALLS and not node.keywords and len(node.args) == (name == "defaultdict")
    return False


def writers(walker: Walker, source: Source, name: str) -> frozenset[str] | None:
    """Return the functions of a module that fill a global, directly or through others, the root itself left out.

    None if something else in the module may fill it: its own statements, or a function that is not reached.
    """
    reached, others, statements = _parts(walker, source)
    names = {name}
    grown = True
    while grown:
        more = {n for n, uses in reached.items() if names & uses} - walker.root_names
        grown = not more <= names
        names |= more
    fillers = names - {name}
    if any(({name} | fillers) & uses for uses in (*others, *statements)):
        return None
    return frozenset(fillers)


def _parts(walker: Walker, source: Source) -> tuple[dict[str, set[str]], list[set[str]], list[set[str]]]:
    """Return what the reached functions of a module name, what its other functions do, and what its statements do."""
    reached: dict[str, set[str]] = {}
    others: list[set[str]] = []
    statements: list[set[str]] = []

    def look(body: Iterable[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                look(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if id(node) in walker.reached:
                    reached.setdefault(node.name, set()).update(_words(node))
                else:
                    others.append(_words(node))
            else:
                statements.append(_words(node))

    look(source.tree.body)
    return reached, others, statements


def _words(node: ast.AST) -> set[str]:
    uses = uses_of(node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ast.Module([node], []))  # type: ignore[list-item]
    return {*uses.chains, *uses.writes, *uses.rebinds, *uses.attributes}


def _mentioned_elsewhere(names: set[str], source: Source) -> bool:
    """Return whether other code of the user's names a global or what fills it, and so may have filled it."""
    word = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for name, other in list(sys.modules.items()):
        file = getattr(other, "__file__", None)
        if not isinstance(file, str) or file == source.filename or origin_of(name).kind != "user":
            continue
        text = SOURCES.read(file, {}) if file.endswith(".py") else None
        if text is not None and word.search(text.text):
            return True
    return False
