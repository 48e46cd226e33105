"""Files that code opens once and remembers: what comes later depends on them too, and opens nothing.

``@functools.lru_cache`` on a function that reads corrections, a global that is filled at first use, an attribute set
``if not hasattr``: only the work item, or the stage, that comes first in a process is seen opening the file.  So each
open is asked who could keep what was read, by the functions that were being called; if any could, the file counts for
all that runs in this process from then on.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from coffea_dirac.inputs.paths import package_roots

_RUNNERS = frozenset({"coffea_dirac.stages.execution", "coffea_dirac.stages.staged", "coffea_dirac.graph.tasks"})
_FILL = frozenset("add append extend insert setattr setdefault update __setattr__ __setitem__".split())
_PLAIN = frozenset("abstractmethod classmethod override property setter stage staticmethod".split())
_FRESH = frozenset("dict list set defaultdict Counter OrderedDict dict_accumulator defaultdict_accumulator".split())


class Opened(NamedTuple):
    """A file that may be remembered: its name as it was opened, its real path, the digest it had, and by whom."""

    name: str
    path: str
    digest: str
    by: str
    """The name of the function that may keep something of it."""


class Remembered:
    """The files that code of this process may have kept something of."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int], tuple[Opened, types.CodeType]] = {}

    def __iter__(self) -> Iterator[Opened]:
        return iter([opened for opened, _ in list(self._files.values())])

    def note(self, name: str, path: str, digest: str, frame: types.FrameType | None) -> None:
        """Take notice of an open, if a function that is being called could keep what is read."""
        code = _keeper(frame)
        if code is not None:
            # Who opens it again has forgotten what it kept.  An id stands for its object as long as that lives.
            self._files[name, id(code)] = Opened(name, path, digest, code.co_name), code


def _keeper(frame: types.FrameType | None) -> types.CodeType | None:
    """Return the innermost code on the stack that may keep something for the next call, up to who runs user code."""
    while frame is not None and (name := str(frame.f_globals.get("__name__", ""))) not in _RUNNERS:
        code = frame.f_code
        if _is_users(code.co_filename, name) and _may_keep(code, frame.f_globals):
            return code
        frame = frame.f_back
    return None


def _is_users(filename: str, module: str) -> bool:
    if module.partition(".")[0] == "coffea_dirac" or filename.startswith("<frozen"):
        return False
    return not os.path.realpath(filename).startswith(tuple(root + "/" for root in package_roots()))


def _may_keep(code: types.CodeType, namespace: Mapping[str, Any]) -> bool:
    if code.co_name == "<module>":
        # What it binds is live when fingerprints are made, and enters by content.
        return False
    found = _named(code.co_qualname, namespace)
    if type(found).__module__.startswith("coffea_dirac."):
        found = getattr(found, "__wrapped__", None)
    found = getattr(found, "__func__", found)
    if isinstance(found, property):
        found = found.fget
    is_plain = found is None or (isinstance(found, types.FunctionType) and found.__code__ is code)
    # Whatever has taken its place may keep what it returns.
    return not is_plain or _fills_something(code)


def _named(qualname: str, namespace: Mapping[str, Any]) -> Any:
    first, *others = qualname.split(".")
    found = namespace.get(first)
    for part in others:
        found = vars(found).get(part) if isinstance(found, type) else None
    return found


@functools.lru_cache(maxsize=1024)
def _fills_something(code: types.CodeType) -> bool:
    """Whether a function writes to something that lives longer than its call, as far as its source shows."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, ValueError):
        return code.co_name[:1] != "<"
    decorators = getattr(tree.body[0], "decorator_list", ()) if tree.body else ()
    return not all(map(_keeps_nothing, decorators)) or any(_lives_on(node, tree) for node in ast.walk(tree))


def _keeps_nothing(decorator: ast.expr) -> bool:
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")) in _PLAIN


def _lives_on(node: ast.AST, tree: ast.AST) -> bool:
    if isinstance(node, ast.Global | ast.Nonlocal):
        return True
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
        return not _is_fresh(node, tree)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            return node.func.attr in _FILL and not _is_fresh(node.func, tree)
        return isinstance(node.func, ast.Name) and node.func.id in _FILL
    return False


def _is_fresh(place: ast.expr, tree: ast.AST) -> bool:
    """Whether what is written to was made in the function itself."""
    root: ast.AST = place
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if not isinstance(root, ast.Name):
        return False
    bound = [node for node in ast.walk(tree) if _binds(node, root.id)]
    return bool(bound) and all(_makes(getattr(node, "value", None)) for node in bound)


def _binds(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    named = [part for target in targets if target is not None for part in ast.walk(target)]
    return (isinstance(node, ast.arg) and node.arg == name) or any(
        isinstance(part, ast.Name) and part.id == name and isinstance(part.ctx, ast.Store) for part in named
    )


def _makes(value: ast.AST | None) -> bool:
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return called in _FRESH
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)
