"""An abstract syntax tree as lines of text that Python 3.11, 3.12 and 3.13 agree upon.

Left out is what cannot change a result: positions, comments, docstrings, type comments, and annotations of plain
function signatures and locals.  One line is one statement, so that two versions can be compared line by line.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_DROPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_ABSENT = object()
_BLOCKS = frozenset({"body", "orelse", "finalbody", "handlers", "cases"})
# Decorators that do not look at annotations.
_PLAIN_DECORATORS = frozenset(
    {"property", "staticmethod", "classmethod", "abstractmethod", "setter", "cached_property"}
)


@dataclass
class Dump:
    """The lines of a function, where each starts in its file, and the options of the dump."""

    docs: bool = False
    annotations: bool = False
    lines: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def statement(self, node: ast.AST, depth: int, in_class: bool = False, keep: bool = False) -> None:
        """Add the lines of a statement, an exception handler or a match case."""
        if _is_text(node) and not self.docs:
            return
        node = self._plain(node, in_class)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            keep = self.annotations or not _is_plain(node)
        parts: list[str] = []
        blocks: list[tuple[str, list[ast.AST]]] = []
        for name, value in _fields(node, keep):
            if name in _BLOCKS and isinstance(value, list):
                blocks.append((name, value))
            else:
                parts.append(f"{name}={self.expression(value, keep)}")
        self._line(depth, f"{type(node).__name__} {' '.join(parts)}".rstrip(), getattr(node, "lineno", 0))
        for name, block in blocks:
            if name != "body" and block:
                self._line(depth, f"{name}:", getattr(block[0], "lineno", 0))
            for child in block:
                self.statement(child, depth + 1, isinstance(node, ast.ClassDef))

    def expression(self, value: Any, keep: bool = False) -> str:
        """Return the text of an expression, a list of them, or a plain field."""
        kind = type(value)  # compared, the commonest first: this is asked of every node
        if kind is ast.Name:
            return f"(Name {value.id})"
        if kind is ast.Constant:
            return constant(value.value)
        if kind is list:
            return "[" + " ".join([self.expression(v, keep) for v in value]) + "]"
        if value is None:
            return "-"
        if kind is ast.Lambda:
            return f"(Lambda {self.expression(value.args)} {self.expression(value.body)})"
        if kind is ast.JoinedStr:
            value = ast.JoinedStr(values=list(_joined(value.values)))
        if isinstance(value, ast.AST):
            fields = " ".join([f"{n}={self.expression(v, keep)}" for n, v in _fields(value, keep)])
            return f"({kind.__name__} {fields})" if fields else kind.__name__
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else constant(value)

    def _line(self, depth: int, text: str, number: int) -> None:
        self.lines.append("  " * depth + text)
        self.numbers.append(number)

    def _plain(self, node: ast.AST, in_class: bool) -> ast.AST:
        """Return an annotated local as the assignment or declaration it is."""
        if not isinstance(node, ast.AnnAssign) or in_class or self.annotations:
            return node
        if node.value is None:
            # A bare annotation of a name makes it local; one of an attribute does nothing.
            names = [node.target.id] if isinstance(node.target, ast.Name) else []
            return ast.copy_location(ast.Nonlocal(names=["local", *names]), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def dump_function(node: ast.AST, *, docs: bool = False, annotations: bool = False) -> Dump:
    r"""Return the normalised lines of a function, a lambda or a whole module.

    Examples
    --------
    >>> tree = ast.parse("def f(x: int):\n    'Doc.'\n    return x + 1  # comment")
    >>> dump_function(tree.body[0]).lines[1]
    '  Return value=(BinOp left=(Name x) op=Add right=1)'
    """
    dump = Dump(docs=docs, annotations=annotations)
    if isinstance(node, ast.Module):
        for statement in node.body:
            dump.statement(statement, 0)
    elif isinstance(node, ast.expr):
        dump._line(0, dump.expression(node), node.lineno)
    else:
        dump.statement(node, 0)
    return dump


def constant(value: Any) -> str:
    """Return a constant so that values of different type or bits differ.

    Examples
    --------
    >>> constant(3), constant(3.0), constant("3"), constant(-0.0)
    ('3', '3.0', '"3"', '-0.0')
    """
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bytes):
        return "b" + json.dumps(value.decode("latin-1"))
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4096:
        return hex(value)
    if isinstance(value, tuple):
        return "(tuple " + " ".join(constant(v) for v in value) + ")"
    return repr(value)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_plain(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for decorator in node.decorator_list:
        name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
        if name not in _PLAIN_DECORATORS:
            return False
    return True


def _fields(node: ast.AST, keep_annotations: bool) -> Iterator[tuple[str, Any]]:
    for name in _names_of_fields(type(node), keep_annotations):  # type: ignore[arg-type] # types have a hash
        value = getattr(node, name, _ABSENT)
        if value is not _ABSENT and (value or name != "type_params"):
            yield name, value


@functools.cache
def _names_of_fields(kind: type[Any], keep_annotations: bool) -> tuple[str, ...]:
    """Return the fields that count of a kind of node; asked for each of thousands of nodes."""
    dropped = _DROPPED if keep_annotations or kind is ast.AnnAssign else _DROPPED | {"annotation", "returns"}
    return tuple(name for name in kind._fields if name not in dropped)


def _joined(values: list[ast.expr]) -> Iterator[ast.expr]:
    """Yield the parts of an f-string, neighbouring texts as one and empty ones left out."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text += value.value
            continue
        if text:
            yield ast.Constant(value=text)
            text = ""
        yield value
    if text:
        yield ast.Constant(value=text)
