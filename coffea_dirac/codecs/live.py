"""Classes and functions that this process already has, by name: what payloads may refer to.

A payload can name a class of the user's or the function of a ``defaultdict``, and never brings the code: it is looked
up among the modules that are imported and among what was met when results were written or a processor was unpacked
(`offer`).  The functions of notebooks and the lambdas inside functions are found only so.
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from coffea_dirac.fingerprint.code import signature
from coffea_dirac.fingerprint.packages import origin_of

_classes: dict[tuple[str, str], type] = {}
_functions: dict[str, types.FunctionType] = {}
# Code of functions that need variables around them or defaults: those are values, and travel with the payload.
_codes: dict[str, tuple[types.CodeType, dict[str, Any]]] = {}
_MOST_WALKED = 5000
_CONTAINERS = (list, tuple, set, frozenset)
_LONGEST = 1000
_LEAVES = (type(None), bool, int, float, str, bytes)


def remember_class(kind: type) -> None:
    """Take notice of a class that was met."""
    _classes[kind.__module__, kind.__qualname__] = kind


def known_class(module: str, qualname: str) -> type | None:
    """Return the class of that name, from a module that is imported or as it was met; None if there is none."""
    found = _member(module, qualname)
    return found if isinstance(found, type) else _classes.get((module, qualname))


def _member(module: str, qualname: str) -> Any:
    """Return what has that name in an imported module; modules and classes that make up attributes are not asked."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if not isinstance(found, types.ModuleType | type):
            return None
        found = vars(found).get(part)
    return getattr(found, "__func__", found) if isinstance(found, staticmethod) else found


def function_name(function: Any) -> str:
    """Return the name of a function written in Python: module, qualified name, digest of its code; empty for others.

    Examples
    --------
    >>> function_name(lambda: 0.0) != function_name(lambda: 1.0)
    True
    >>> function_name(int)
    ''
    """
    if not isinstance(function, types.FunctionType) or vars(function):
        return ""
    return _name_of_code(function.__module__, function.__code__)


def is_closed(function: types.FunctionType) -> bool:
    """Whether a function is its code and its module, without variables around it and without defaults."""
    return not (function.__closure__ or function.__defaults__ or function.__kwdefaults__)


def rebinds(code: types.CodeType) -> bool:
    """Whether code, or a function inside it, assigns to a variable around it.

    Examples
    --------
    >>> def count(n=[0]):
    ...     total = 0
    ...     def more():
    ...         nonlocal total
    ...         total += 1
    ...     return more
    >>> rebinds(count().__code__)
    True
    """
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_DEREF", "DELETE_DEREF") and instruction.argval in code.co_freevars:
            return True
    return any(rebinds(inner) for inner in code.co_consts if isinstance(inner, types.CodeType))


def _name_of_code(module: str, code: types.CodeType) -> str:
    return f"{module}:{code.co_qualname}:{signature(code)}"


def known_function(name: str) -> types.FunctionType | None:
    """Return the function of that name if it was met, or is one of an imported module of the user's; else None."""
    if name in _functions:
        return _functions[name]
    module, qualname, _ = name.split(":")
    # What installed packages can do is no business of payloads.
    if origin_of(module).kind != "user":
        return None
    found = _member(module, qualname)
    return found if function_name(found) == name else None


def known_code(name: str) -> tuple[types.CodeType, dict[str, Any]] | None:
    """Return the code of a function that was met, and the names of its module."""
    return _codes.get(name)


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
    # A processor may come from an installed package: that one's code counts then, as the user's does.
    kind = root if isinstance(root, type | types.FunctionType) else type(root)
    home = (kind.__module__ or "").partition(".")[0]
    seen: dict[int, Any] = {}
    waiting: list[Any] = [root]
    while waiting and len(seen) < _MOST_WALKED:
        thing = waiting.pop()
        if type(thing) in _LEAVES or id(thing) in seen:
            continue
        # Kept until the end: an address is an identity only as long as the thing lives.
        seen[id(thing)] = thing
        waiting += _parts(thing, home)


def _parts(thing: Any, home: str) -> Iterable[Any]:
    """Take notice of a thing and return what it leads to."""
    if isinstance(thing, types.MethodType | staticmethod | classmethod):
        return [thing.__func__, getattr(thing, "__self__", None)]
    if isinstance(thing, property):
        return [thing.fget]
    if isinstance(thing, functools.cached_property | functools.partial):
        return [thing.func, *getattr(thing, "args", ()), *getattr(thing, "keywords", {}).values()]
    if type(thing) in _CONTAINERS:
        return itertools.islice(thing, _LONGEST)
    if isinstance(thing, dict):
        return [getattr(thing, "default_factory", None), *itertools.islice(dict.values(thing), _LONGEST)]
    if isinstance(thing, types.FunctionType):
        return _parts_of_function(thing) if _is_near(thing.__module__, home) else []
    return _parts_of_object(thing, home)


def _parts_of_object(thing: Any, home: str) -> list[Any]:
    kind = thing if isinstance(thing, type) else type(thing)
    if not _is_near(kind.__module__, home):
        return []
    if kind is not thing:
        return [kind, *_state(thing)]
    remember_class(kind)
    return [*kind.__mro__[1:], *vars(kind).values()]


def _state(thing: Any) -> list[Any]:
    try:
        return list(object.__getattribute__(thing, "__dict__").values())
    except AttributeError:
        return []


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    """Return what a function names, after taking notice of it and of the functions defined inside it."""
    if name := function_name(function):
        _remember(name, function.__code__, function.__globals__, function)
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                codes.append(inner)
                _remember(_name_of_code(function.__module__, inner), inner, function.__globals__)
    parts: list[Any] = [getattr(function, "__wrapped__", None), function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        try:
            parts.append(cell.cell_contents)
        except ValueError:
            continue
    parts += [p for name in sorted(names) for p in _named(function.__globals__.get(name), names)]
    return parts


def _remember(
    name: str, code: types.CodeType, names: dict[str, Any], function: types.FunctionType | None = None
) -> None:
    _codes[name] = code, names
    if function is not None and is_closed(function):
        _functions[name] = function
    elif name not in _functions and not code.co_freevars and not _has_defaults(code):
        made = types.FunctionType(code, names)
        made.__qualname__ = code.co_qualname
        made.__module__ = name.partition(":")[0]
        _functions[name] = made


def _has_defaults(code: types.CodeType) -> bool:
    # Code does not say which of its arguments have defaults; a factory is called without any.
    return bool(code.co_argcount or code.co_kwonlyargcount)


def _named(value: Any, names: set[str]) -> Iterator[Any]:
    """Yield what a global name stands for, or the members that are named of a module."""
    if not isinstance(value, types.ModuleType):
        yield value
    elif origin_of(value.__name__).kind == "user":
        yield from (vars(value)[name] for name in sorted(names) if name in vars(value))


def _is_near(module: str | None, home: str) -> bool:
    module = module or "builtins"
    is_home = module.partition(".")[0] == home and home not in ("builtins", "coffea")
    return is_home or origin_of(module).kind == "user"
