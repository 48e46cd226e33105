"""Which names a piece of code binds, and in which scope a name is found, by Python's rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_BINDING = (ast.Global, ast.Import, ast.ImportFrom, ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping)
_NAME_NOTHING = frozenset({"ctx", "op", "ops", "kind", "type_comment"})


class Import(NamedTuple):
    """An import inside a body: of `module` (relative by `level`), or of `name` from it; ``*`` stands for all."""

    module: str
    level: int = 0
    name: str = ""
    bound: str = ""


class Scope:
    """A function, class, comprehension or module, and what it binds."""

    def __init__(self, kind: str, parent: Scope | None) -> None:
        self.kind, self.parent = kind, parent
        self.bound: set[str] = set()
        self.parameters: set[str] = set()
        self.declared_global: set[str] = set()
        self.imports: dict[str, list[Import]] = {}


def _around(scope: Scope | None) -> Iterator[Scope]:
    innermost = scope
    while scope is not None:
        if scope.kind != "class" or scope is innermost:
            yield scope
        scope = scope.parent


def owner_of(name: str, scope: Scope | None) -> Scope | None:
    """Return the scope in which a name is found from another one, None if that is outside of all."""
    for candidate in _around(scope):
        if name in candidate.declared_global:
            return None
        if name in candidate.bound:
            return candidate
    return None


def collect(node: Any, scope: Scope) -> None:
    """Enter into `scope` the names that a statement or expression binds there."""
    kind = type(node)
    if kind is ast.Name:
        if not isinstance(node.ctx, ast.Load):
            scope.bound.add(node.id)
    elif kind in FUNCTIONS or kind is ast.ClassDef:
        if kind is not ast.Lambda:
            scope.bound.add(node.name)
    elif kind in COMPREHENSIONS:
        # A walrus inside a comprehension binds in the function around it.
        scope.bound.update(n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
    else:
        if kind in _BINDING:
            _collect_text(node, scope)
        for child in below(node):
            collect(child, scope)


def _collect_text(node: Any, scope: Scope) -> None:
    """Enter the names that a node holds as text."""
    if isinstance(node, ast.Global):
        scope.declared_global.update(node.names)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        _collect_imports(node, scope)
    elif name := node.rest if isinstance(node, ast.MatchMapping) else node.name:
        scope.bound.add(name)


def below(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes right below one, but for operators and contexts, which name nothing."""
    for name in node._fields:
        if name in _NAME_NOTHING:
            continue
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            for child in value:
                if isinstance(child, ast.AST):
                    yield child


def _collect_imports(node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            record = Import(node.module or "", node.level, alias.name)
            name = alias.asname or alias.name
        else:
            # ``import a.b`` binds a and makes a.b an attribute of it; ``import a.b as c`` binds a.b.
            name = alias.asname or alias.name.partition(".")[0]
            record = Import(alias.name, 0, "", "" if alias.asname else name)
        scope.bound.add(name)
        scope.imports.setdefault(name, []).append(record)
