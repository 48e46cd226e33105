"""Code that makes names out of data: no reading of it can tell what it reaches, so it is refused."""

from __future__ import annotations

import types
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

_FUNCTIONS = {
    "eval": "it evaluates text that is made at run time; write the expression as code, or as a literal",
    "exec": "it executes text that is made at run time; write it as code, or as a literal",
    "compile": "it compiles text that is made at run time; write it as code, or as a literal",
    "globals": "it reads globals by names made at run time; use a dict of your own, or globals()['NAME']",
    "__import__": "it imports a module by a name made at run time; write the import, or a literal name",
    "import_module": "it imports a module by a name made at run time; write the import, or a literal name",
    "_getframe": "it reads the variables of its callers; pass them as arguments",
    "getsource": "it reads source text, comments included; read the file through a pathlib.Path",
    "getsourcelines": "it reads source text, comments included; read the file through a pathlib.Path",
    "stack": "it reads the variables of its callers; pass them as arguments",
    "currentframe": "it reads the variables of its callers; pass them as arguments",
}
_ATTRIBUTES = {
    "__globals__": "it reads globals by names made at run time; use a dict of your own",
    "f_globals": "it reads globals by names made at run time; use a dict of your own",
    "f_locals": "it reads the variables of its callers; pass them as arguments",
    "__subclasses__": "it finds whatever classes happen to be loaded; keep a list of your own",
}
_MODULES = frozenset({"builtins", "importlib", "sys", "inspect"})


def refuse(walker: Walker, value: Any) -> None:
    """Raise if a value is one of the functions that reach what no reading of the code can tell."""
    name = getattr(value, "__name__", "") if isinstance(value, types.BuiltinFunctionType | types.FunctionType) else ""
    if name in _FUNCTIONS and getattr(value, "__module__", "") in _MODULES:
        raise walker.error(f"calls {name}: {_FUNCTIONS[name]}")


def refuse_attributes(walker: Walker, names: Collection[str]) -> None:
    """Raise if one of these attributes reaches what no reading of the code can tell."""
    for name in sorted(_ATTRIBUTES.keys() & names):
        raise walker.error(f"uses {name}: {_ATTRIBUTES[name]}")
