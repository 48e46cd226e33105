"""Named mutants of the fingerprint: each leaves out one thing it must see."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

from coffea_dirac.fingerprint import classes, functions, modules, walk


def _no_globals() -> None:
    functions._names = lambda walker, value, unit: {}


def _no_closures() -> None:
    functions._closure = lambda walker, value, unit: {}


def _no_defaults() -> None:
    functions._defaults = lambda walker, value, unit: {}


def _no_mro() -> None:
    classes._bases = lambda walker, value: []


def _no_decorators() -> None:
    original = functions.function

    def undecorated(walker: Any, value: Any) -> Any:
        value = inspect.unwrap(value)
        while inner := [c.cell_contents for c in value.__closure__ or () if type(c.cell_contents) is type(value)]:
            value = inner[0]
        return original(walker, value)

    functions.function = undecorated
    walk._KINDS = ((types.FunctionType, undecorated), *walk._KINDS[1:])


def _no_module_attributes() -> None:
    modules.resolve = lambda walker, value, chain: "module"


def _no_instance_state() -> None:
    classes._state = lambda walker, value: {}


MUTANTS: dict[str, Callable[[], None]] = {
    "no globals": _no_globals,
    "no closures": _no_closures,
    "no defaults": _no_defaults,
    "no MRO": _no_mro,
    "no decorators": _no_decorators,
    "no module attributes": _no_module_attributes,
    "no instance state": _no_instance_state,
}


def apply(name: str) -> None:
    """Turn the fingerprint of this process into the named mutant."""
    MUTANTS[name]()
