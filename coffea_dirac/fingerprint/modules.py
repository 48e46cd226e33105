"""Modules and names: what a global, an attribute chain or an import in a body means here and now."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint import classes, dynamic, functions
from coffea_dirac.fingerprint.deferred import ABSENT, Deferred
from coffea_dirac.fingerprint.names import Chain
from coffea_dirac.fingerprint.packages import origin_of
from coffea_dirac.fingerprint.scopes import Import
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

INSTALLED = object()
# Globals that say where code is, not what it does.
_PLACES = frozenset(
    {"__name__", "__package__", "__spec__", "__loader__", "__builtins__", "__debug__", "__cached__", "__path__"}
)
_SCHEDULE_NOW = (types.FunctionType, type, types.ModuleType, types.BuiltinFunctionType)


def whole(name: str) -> Import:
    """Return the import of a module as a whole."""
    return Import(name.lstrip("."), len(name) - len(name.lstrip(".")))


def root_of(namespace: Mapping[str, Any]) -> str:
    """Return the folder that a module is imported from, empty if there is none."""
    file = namespace.get("__file__")
    if not isinstance(file, str):
        return ""
    folder = os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120 - no resolving: strings made from __file__ do not
    package = namespace.get("__package__") or ""
    for _ in package.split(".") if package else ():
        folder = os.path.dirname(folder)  # noqa: PTH120
    return folder


# ----------------------------------------------------------------------------------------------------------- a name


def global_(walker: Walker, namespace: dict[str, Any], name: str, chains: set[Chain], into: dict[str, Json]) -> None:
    """Enter into `into` what a global or builtin name means."""
    if name in _PLACES:
        into[name] = "place"
        return
    value = namespace.get(name, ABSENT)
    walker.guard.saw(namespace, name, *(() if value is ABSENT else (value,)))
    if value is ABSENT and name not in vars(builtins):
        walker.deferred.append(Deferred(namespace, name, ABSENT, into, walker.path))
        return
    if value is ABSENT:
        into[name] = _builtin(walker, namespace, name)
    elif isinstance(value, types.ModuleType):
        for chain in sorted(chains):
            with walker.at(".".join(chain) or "as a whole"):
                into[".".join((name, *chain))] = resolve(walker, value, chain)
    elif isinstance(value, _SCHEDULE_NOW) and (id(namespace), name) not in walker.written_names:
        dynamic.refuse(walker, value)
        into[name] = walker.encode(value)
    else:
        walker.deferred.append(Deferred(namespace, name, value, into, walker.path))


def _builtin(walker: Walker, namespace: dict[str, Any], name: str) -> Json:
    held = namespace.get("__builtins__", builtins)
    value = held.get(name) if isinstance(held, dict) else getattr(held, name, None)
    dynamic.refuse(walker, value)
    if isinstance(value, types.FunctionType) and origin_of(functions.module_of(value)).kind == "user":
        return walker.encode(value)
    return "builtin"


def live(namespace: Mapping[str, Any], chain: Chain) -> Any:
    """Return what a chain of names means now, None if nothing."""
    value = namespace.get(chain[0], getattr(builtins, chain[0], None))
    for name in chain[1:]:
        value = getattr(value, name, None)
    return value


# ----------------------------------------------------------------------------------------------------------- a chain


def resolve(walker: Walker, value: Any, chain: Chain) -> Json:
    """Return the encoding of an attribute chain from a value: followed through modules, then the value found."""
    for position, name in enumerate(chain):
        if not isinstance(value, types.ModuleType):
            break
        if walker.used(value.__name__).kind != "user":
            return _library_attribute(walker, value, chain[position:])
        if name == "__dict__":
            return walker.encode(value)
        found = _attribute(walker, value, name)
        if found is ABSENT:
            maker = vars(value).get("__getattr__")
            return ["made by", walker.encode(maker)] if maker is not None else "absent"
        walker_value = encode_member(walker, value, name, found, chain[position + 1 :])
        if walker_value is not ABSENT:
            return walker_value
        value = found
    return walker.encode(value)


def encode_member(walker: Walker, owner: types.ModuleType, name: str, found: Any, rest: Chain) -> Json:
    """Return the encoding of a module's member, ABSENT if it is a module that the chain goes through."""
    if isinstance(found, types.ModuleType) and rest:
        return ABSENT
    with walker.inside(vars(owner)):
        if isinstance(found, _SCHEDULE_NOW):
            encoded = walker.encode(found)
        else:
            holder: dict[str, Json] = {}
            walker.deferred.append(Deferred(vars(owner), name, found, holder, walker.path))
            return holder
    walker.member(owner.__name__, name, encoded)
    return encoded


def _attribute(walker: Walker, module: types.ModuleType, name: str) -> Any:
    if name in vars(module):
        walker.guard.saw(vars(module), name, vars(module)[name])
        return vars(module)[name]
    walker.guard.saw(vars(module), name)
    full = f"{module.__name__}.{name}"
    if full in sys.modules:
        return sys.modules[full]
    return ABSENT


def _library_attribute(walker: Walker, module: types.ModuleType, chain: Chain, kind: str = "") -> Json:
    """Encode what a library holds by name, unless the user has put something of their own there."""
    value: Any = module
    patches: dict[str, Json] = {}
    for name in chain:
        try:
            value = getattr(value, name) if isinstance(value, types.ModuleType) else inspect.getattr_static(value, name)
        except Exception:  # noqa: BLE001 - libraries may import lazily and fail: then the name says all
            value = None
            break
        dynamic.refuse(walker, value)
        if isinstance(value, type) and origin_of(value.__module__).kind != "user":
            patches.update(classes.patches(walker, value))
    kind = kind or walker.used(module.__name__).kind
    text = f"library {'.'.join((module.__name__, *chain))}"
    extra = None if value is None else _unusual(walker, value, chain[-1], kind)
    return [text, patches, extra] if patches or extra is not None else text


def _unusual(walker: Walker, value: Any, name: str, kind: str) -> Json:
    """Return what a library's name alone does not tell of the value found under it: None as a rule."""
    if isinstance(value, types.ModuleType):
        return None
    if origin_of(functions.module_of(value) or type(value).__module__).kind == "user":
        return walker.encode(value)
    if isinstance(value, type) and (extra := classes.schema(walker, value)):
        return extra
    if kind != "installed":
        return None
    if isinstance(value, bool | int | float | complex):
        return walker.encode(value)
    # Another function of a library under this name: a patch that only its own name tells.
    own = getattr(value, "__qualname__", name)
    return own if isinstance(own, str) and own.rpartition(".")[2] != name else None


# ----------------------------------------------------------------------------------------------------------- imports


def imported(walker: Walker, namespace: Mapping[str, Any], record: Import) -> Any:
    """Return what an import in a body brings: a module, something from it, ABSENT, or INSTALLED for a library's."""
    if record == Import("", 0, "*"):
        return sys.modules.get(str(namespace.get("__name__", "")), ABSENT)
    name = record.module
    if record.level:
        try:
            name = importlib.util.resolve_name("." * record.level + record.module, _package(namespace))
        except ImportError:
            return ABSENT
    module = _load(walker, name)
    if not isinstance(module, types.ModuleType):
        return module
    if record.bound:
        return sys.modules.get(record.bound, module)
    if not record.name or record.name == "*":
        return module
    if record.name in vars(module):
        return vars(module)[record.name]
    submodule = _load(walker, f"{name}.{record.name}")
    if submodule is ABSENT and "__getattr__" in vars(module):
        return vars(module)["__getattr__"]
    return submodule


def patched(walker: Walker, namespace: Mapping[str, Any], record: Import, chains: Iterable[Chain]) -> list[Json]:
    """Return what the user put into those parts of a library that an import in a body brings."""
    module = sys.modules.get(record.bound or record.module)
    if module is None or record.level:
        return []
    prefix = (record.name,) if record.name and record.name != "*" else ()
    every = [(*prefix, *chain) for chain in sorted({*chains, ()})]
    # Only what is the user's: whether the library is loaded already must not be seen.
    found = [_library_attribute(walker, module, chain, "stdlib") for chain in every if chain]
    return [part for part in found if not isinstance(part, str)]


def _package(namespace: Mapping[str, Any]) -> str:
    package = namespace.get("__package__")
    if isinstance(package, str):
        return package
    name = str(namespace.get("__name__", ""))
    return name if "__path__" in namespace else name.rpartition(".")[0]


def _load(walker: Walker, name: str) -> Any:
    if walker.used(name).kind != "user":
        return INSTALLED
    if name in sys.modules:
        return sys.modules[name] or ABSENT
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001 - what cannot be imported here is absent here, whatever its reason
        return ABSENT


def module(walker: Walker, value: types.ModuleType) -> Json:
    """Return the encoding of a module used as a whole: all it holds, or the library's name."""
    if walker.used(value.__name__).kind != "user":
        return walker.library(value.__name__, "*")
    return walker.node(value, f"module {value.__name__.rpartition('.')[2]}", _whole_module)


def _whole_module(walker: Walker, value: types.ModuleType, label: str) -> Json:
    content: dict[str, Json] = {}
    with walker.inside(vars(value)):
        for name in sorted(vars(value)):
            if not (name.startswith("__") and name.endswith("__")):
                with walker.at(name):
                    global_(walker, vars(value), name, {()}, content)
    walker.member(value.__name__, "*", content)
    return content
