"""Whether code still means what it meant when it was fingerprinted: a look at names, not another walk."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

_ABSENT = object()


class Guard:
    """What a walk has found under names, and whether any of it could have changed without a name telling.

    Examples
    --------
    >>> namespace = {"CUT": 30}
    >>> guard = Guard()
    >>> guard.saw(namespace, "CUT", 30)
    >>> guard.holds()
    True
    >>> namespace["CUT"] = 25
    >>> guard.holds()
    False
    """

    def __init__(self) -> None:
        self._names: list[tuple[Mapping[str, Any], str, Any]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._functions: list[tuple[types.FunctionType, Any, Any, dict[str, Any], dict[str, Any]]] = []
        self.is_changeable = False
        """Whether a container, an array or an instance was met: only its content tells whether it is the same."""

    def saw(self, namespace: Mapping[str, Any], name: str, value: Any = _ABSENT) -> None:
        """Note what a name means; nothing: that it has no meaning."""
        self._names.append((namespace, name, value))

    def saw_cell(self, cell: types.CellType, value: Any) -> None:
        """Note what a closure holds."""
        self._cells.append((cell, value))

    def saw_function(self, function: types.FunctionType) -> None:
        """Note what a function is made of."""
        named, own = dict(function.__kwdefaults__ or {}), dict(vars(function))
        self._functions.append((function, function.__code__, function.__defaults__, named, own))

    def holds(self) -> bool:
        """Return whether all is as it was; False where only another walk can tell."""
        return (
            not self.is_changeable
            and all(namespace.get(name, _ABSENT) is value for namespace, name, value in self._names)
            and all(cell.cell_contents is value for cell, value in self._cells)
            and all(
                f.__code__ is code
                and f.__defaults__ is defaults
                and _are_same(f.__kwdefaults__ or {}, named)
                and _are_same(vars(f), own)
                for f, code, defaults, named, own in self._functions
            )
        )


def _are_same(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return now.keys() == before.keys() and all(now[name] is value for name, value in before.items())
