"""Classes and functions that this process already has, by name: what payloads may refer to.

A payload can name a class of the user's or the function of a ``defaultdict``, and never brings the code: it is looked
up among the modules that are imported and among what was met when results were written or a processor was unpacked
(`offer`).  The functions of notebooks and the lambdas inside functions are found only so.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from coffea_dirac.fingerprint.code import signature
from coffea_dirac.fingerprint.packages import origin_of

_classes: dict[tuple[str, str], type] = {}
_functions: dict[str, Any] = {}
_MOST_WALKED = 2000


def remember_class(kind: type) -> None:
    """Take notice of a class that was met."""
    _classes[kind.__module__, kind.__qualname__] = kind


def known_class(module: str, qualname: str) -> type | None:
    """Return the class of that name, from a module that is imported or as it was met; None if there is none."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else _classes.get((module, qualname))


def function_name(function: Any) -> str:
    """Return the name of a function without closure and defaults: module, qualified name, digest of its code.

    Empty for anything else.

    Examples
    --------
    >>> function_name(lambda: 0.0) != function_name(lambda: 1.0)
    True
    >>> function_name(int)
    ''
    """
    plain = isinstance(function, types.FunctionType) and not function.__defaults__ and not function.__kwdefaults__
    if not plain or function.__closure__:
        return ""
    return _name_of_code(function.__module__, function.__code__)


def _name_of_code(module: str, code: types.CodeType) -> str:
    return f"{module}:{code.co_qualname}:{signature(code)}"


def known_function(name: str) -> Any:
    """Return the function of that name if it was met or can be found in an imported module, else None."""
    if name in _functions:
        return _functions[name]
    module, qualname, _ = name.split(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if function_name(found) == name else None


def offer(root: Any) -> None:
    """Take notice of the classes and functions that a processor can reach: what its results may be made of.

    Examples
    --------
    >>> def zeros():
    ...     return dict(a=(lambda: 0))
    >>> zeros.__module__ = "__main__"
    >>> offer(zeros)
    >>> any(":zeros.<locals>.<lambda>:" in name for name in _functions)
    True
    """
    seen: set[int] = set()
    waiting: list[Any] = [root if isinstance(root, type | types.FunctionType) else type(root)]
    while waiting and len(seen) < _MOST_WALKED:
        thing = waiting.pop()
        thing = getattr(thing, "__func__", thing)
        if id(thing) in seen or _is_of_a_package(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, type):
            remember_class(thing)
            waiting += [base for base in thing.__mro__[1:] if base is not object]
            waiting += [v for v in vars(thing).values() if isinstance(v, type | types.FunctionType | classmethod)]
        elif isinstance(thing, types.FunctionType):
            if name := function_name(thing):
                _functions[name] = thing
            waiting += list(_reached(thing))


def _reached(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function names, after taking notice of the functions defined inside it."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                codes.append(inner)
                if not inner.co_freevars:
                    made = types.FunctionType(inner, function.__globals__)
                    made.__qualname__ = inner.co_qualname
                    _functions.setdefault(_name_of_code(function.__module__, inner), made)
    for cell in function.__closure__ or ():
        try:
            yield from _named(cell.cell_contents, names)
        except ValueError:
            continue
    for name in names:
        yield from _named(function.__globals__.get(name), names)


def _named(value: Any, names: Iterable[str]) -> Iterator[Any]:
    """Yield a class or function, or those that are named of a module."""
    if isinstance(value, type | types.FunctionType):
        yield value
    elif isinstance(value, types.ModuleType) and not _is_of_a_package(value):
        yield from (v for v in map(vars(value).get, names) if isinstance(v, type | types.FunctionType))


def _is_of_a_package(thing: Any) -> bool:
    module = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return origin_of(module or "builtins").kind != "user"
