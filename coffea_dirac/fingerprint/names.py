"""What a piece of code names: globals, attribute chains, imports, strings, and what it writes into.

Works on the syntax tree, so that ``-O`` and the Python version do not matter, with Python's rules of scopes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coffea_dirac.fingerprint.scopes import COMPREHENSIONS, FUNCTIONS, Import, Scope, below, collect, owner_of

Chain = tuple[str, ...]
_MUTATORS = frozenset(
    "setdefault update append add pop popitem clear extend insert discard remove appendleft extendleft __setitem__ "
    "move_to_end sort reverse".split()
)
_FRAME_READERS = frozenset({"query", "eval", "evaluate"})
_EVALUATORS = frozenset({"eval", "exec", "compile"})
_IMPORTERS = frozenset({"import_module", "__import__"})


class ConstantCall(NamedTuple):
    """A call of ``eval``, ``import_module`` and the like whose argument is known: a string, or the name of one."""

    function: Chain
    text: str | None
    variable: str | None


@dataclass
class Uses:
    """All that a function names outside itself, nested functions included."""

    chains: dict[str, set[Chain]] = field(default_factory=dict)
    imports: dict[Import, set[Chain]] = field(default_factory=dict)
    calls: list[ConstantCall] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    rebinds: set[str] = field(default_factory=set)
    parameter_writes: set[str] = field(default_factory=set)
    attribute_writes: set[str] = field(default_factory=set)
    named_in_text: set[str] = field(default_factory=set)


def uses_of(node: ast.AST) -> Uses:
    r"""Return what a function, a lambda or a module names.

    Examples
    --------
    >>> uses = uses_of(ast.parse("def f(x):\n    return helpers.cuts.PT * x + SCALE").body[0])
    >>> sorted(uses.chains.items())
    [('SCALE', {()}), ('helpers', {('cuts', 'PT')})]
    """
    visitor = _Visitor()
    if isinstance(node, FUNCTIONS):
        visitor.function(node, None, outermost=True)
    else:
        visitor.block("module", getattr(node, "body", [node]), None)
    return visitor.uses


class _Visitor:
    def __init__(self) -> None:
        self.uses = Uses()

    # ------------------------------------------------------------------------------------------------------- scopes

    def function(self, node: Any, parent: Scope | None, *, outermost: bool = False) -> None:
        arguments = node.args
        if not outermost:
            for outer in (*getattr(node, "decorator_list", ()), *arguments.defaults, *arguments.kw_defaults):
                self.visit(outer, parent)
            if getattr(node, "decorator_list", ()):
                self._visit_annotations(node, parent)
        scope = Scope("function", parent)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        scope.parameters = {a.arg for a in every if a is not None}
        scope.bound |= scope.parameters
        body = node.body if isinstance(node.body, list) else [node.body]
        self._run(scope, body)

    def _visit_annotations(self, node: Any, parent: Scope | None) -> None:
        for child in ast.walk(node.args):
            if isinstance(child, ast.arg):
                self.visit(child.annotation, parent)
        self.visit(node.returns, parent)

    def block(self, kind: str, body: Iterable[ast.AST], parent: Scope | None) -> None:
        self._run(Scope(kind, parent), list(body))

    def _run(self, scope: Scope, body: list[ast.AST]) -> None:
        for statement in body:
            collect(statement, scope)
        scope.bound -= scope.declared_global
        for found in scope.imports.values():
            for record in found:
                self.uses.imports.setdefault(record, set()).update({()} if record.name == "*" else ())
        for statement in body:
            self.visit(statement, scope)

    def _comprehension(self, node: Any, scope: Scope | None) -> None:
        inner = Scope("comprehension", scope)
        for generator in node.generators:
            collect(generator.target, inner)
        for position, generator in enumerate(node.generators):
            self.visit(generator.iter, inner if position else scope)
            self.visit(generator.target, inner)
            for condition in generator.ifs:
                self.visit(condition, inner)
        for name in ("elt", "key", "value"):
            self.visit(getattr(node, name, None), inner)

    # ------------------------------------------------------------------------------------------------------- visits

    def visit(self, node: Any, scope: Scope | None) -> None:
        """Note what a node and all below it name."""
        if node is None:
            return
        method = _VISITS.get(type(node))
        if method is None:
            self._children(below(node), scope)
        else:
            method(self, node, scope)

    def _class(self, node: ast.ClassDef, scope: Scope | None) -> None:
        for outer in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outer, scope)
        self.block("class", node.body, scope)

    def _constant(self, node: ast.Constant, scope: Scope | None) -> None:
        if isinstance(node.value, str):
            self.uses.strings.add(node.value)

    def _annotated(self, node: ast.AnnAssign, scope: Scope | None) -> None:
        evaluated = scope is not None and scope.kind in ("class", "module")
        self._children((node.target, node.value, node.annotation if evaluated else None), scope)

    def _augmented(self, node: ast.AugAssign, scope: Scope | None) -> None:
        if isinstance(node.target, ast.Name):
            self._used(node.target.id, (), scope)
        self._children((node.target, node.value), scope)

    def _expression(self, node: ast.Expr, scope: Scope | None) -> None:
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value, scope)

    def _children(self, nodes: Iterable[Any], scope: Scope | None) -> None:
        for child in nodes:
            self.visit(child, scope)

    def _name(self, node: ast.Name, scope: Scope | None) -> None:
        if isinstance(node.ctx, ast.Load):
            self._used(node.id, (), scope)
        elif self._is_outer(node.id, scope):
            self.uses.rebinds.add(node.id)

    def _attribute(self, node: ast.Attribute, scope: Scope | None) -> None:
        root, attributes = _chain(node)
        self.uses.attributes.update(attributes)
        if isinstance(root, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                self.uses.attribute_writes.add(node.attr)
                attributes = attributes[:-1]
            self._used(root.id, attributes, scope)
        else:
            self.visit(root, scope)

    def _subscript(self, node: ast.Subscript, scope: Scope | None) -> None:
        if _is_call_of(node.value, "globals") and isinstance(node.slice, ast.Constant):
            name = str(node.slice.value)
            self._outer(name, ())
            self.uses.named_in_text.add(name)
            if not isinstance(node.ctx, ast.Load):
                self.uses.rebinds.add(name)
            return
        if _dotted(node.value) == ("sys", "modules"):
            if isinstance(node.slice, ast.Constant):
                self.uses.imports.setdefault(Import(str(node.slice.value)), set()).add(())
                return
            if _dotted(node.slice) == ("__name__",):
                self.uses.imports.setdefault(Import("", 0, "*"), set()).add(())
                return
        if not isinstance(node.ctx, ast.Load):
            self._written(node, scope)
        self._children((node.value, node.slice), scope)

    def _call(self, node: ast.Call, scope: Scope | None) -> None:
        function = _dotted(node.func)
        first = node.args[0] if node.args else None
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "get" and _is_call_of(node.func.value, "globals") and isinstance(first, ast.Constant):
                self._outer(str(first.value), ())
                self.uses.named_in_text.add(str(first.value))
                self._children(node.args[1:], scope)
                return
            if node.func.attr in _MUTATORS:
                self._written(node.func.value, scope)
            if node.func.attr in _FRAME_READERS and isinstance(first, ast.Constant):
                self._frame_names(first.value)
        if function and function[-1] in _EVALUATORS | _IMPORTERS and self._constant_call(function, first, scope):
            self._children((*node.args, *node.keywords), scope)
            return
        if function == ("getattr",) and len(node.args) >= 2 and isinstance(node.args[1], ast.Constant):
            name = str(node.args[1].value)
            self.visit(ast.Attribute(value=node.args[0], attr=name, ctx=ast.Load()), scope)
            self._used("getattr", (), scope)
            self._children(node.args[2:], scope)
            return
        if function in (("locals",), ("vars",)) and not node.args and scope is not None:
            return  # only names of this function, which are in its code
        self._children(below(node), scope)

    def _constant_call(self, function: Chain, first: ast.AST | None, scope: Scope | None) -> bool:
        if not self._is_outer(function[0], scope) and not self._imported(function[0], scope):
            return False
        text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        variable = first.id if isinstance(first, ast.Name) and self._is_outer(first.id, scope) else None
        if text is None and variable is None:
            return False
        self.uses.calls.append(ConstantCall(function, text, variable))
        return True

    def _frame_names(self, text: Any) -> None:
        """Note the names in an expression that pandas or numexpr look up in the caller's variables."""
        try:
            tree = ast.parse(str(text).replace("@", " ").strip(), mode="eval")
        except (SyntaxError, ValueError):
            return
        for child in ast.walk(tree):
            if isinstance(child, ast.Name):
                self._outer(child.id, ())
                self.uses.named_in_text.add(child.id)

    # ------------------------------------------------------------------------------------------------------ resolving

    def _is_outer(self, name: str, scope: Scope | None) -> bool:
        return owner_of(name, scope) is None

    def _imported(self, name: str, scope: Scope | None) -> bool:
        owner = owner_of(name, scope)
        return owner is not None and name in owner.imports

    def _used(self, name: str, attributes: Chain, scope: Scope | None) -> None:
        owner = owner_of(name, scope)
        if owner is None:
            self._outer(name, attributes)
            return
        for record in owner.imports.get(name, ()):
            self.uses.imports[record].add(attributes)
        if owner.kind == "class":
            # Before the class body binds it, the name is looked up outside: in doubt it counts.
            self._used(name, attributes, owner.parent) if owner.parent else self._outer(name, attributes)

    def _outer(self, name: str, attributes: Chain) -> None:
        self.uses.chains.setdefault(name, set()).add(attributes)

    def _written(self, node: ast.AST, scope: Scope | None) -> None:
        """Note that a container is changed through the name at the root of an expression."""
        attribute = ""
        while isinstance(node, ast.Subscript | ast.Attribute):
            if isinstance(node, ast.Attribute):
                attribute = node.attr
            node = node.value
        if not isinstance(node, ast.Name):
            return
        if attribute:
            self.uses.attribute_writes.add(attribute)
        elif (owner := owner_of(node.id, scope)) is None:
            self.uses.writes.add(node.id)
        elif node.id in owner.parameters:
            self.uses.parameter_writes.add(node.id)


_VISITS: dict[type[ast.AST], Any] = {
    **dict.fromkeys(FUNCTIONS, _Visitor.function),
    ast.ClassDef: _Visitor._class,
    **dict.fromkeys(COMPREHENSIONS, _Visitor._comprehension),
    ast.Name: _Visitor._name,
    ast.Constant: _Visitor._constant,
    ast.Attribute: _Visitor._attribute,
    ast.Call: _Visitor._call,
    ast.Subscript: _Visitor._subscript,
    ast.AnnAssign: _Visitor._annotated,
    ast.Expr: _Visitor._expression,
    ast.AugAssign: _Visitor._augmented,
}


def _chain(node: ast.AST) -> tuple[ast.AST, Chain]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return node, tuple(reversed(names))


def _dotted(node: ast.AST | None) -> Chain:
    if node is None:
        return ()
    root, attributes = _chain(node)
    return (root.id, *attributes) if isinstance(root, ast.Name) else ()


def _is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and _dotted(node.func) == (name,) and not node.args
