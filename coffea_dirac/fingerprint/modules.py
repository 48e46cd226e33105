"""Modules and names: what a global, an attribute chain or an import in a body means here and now."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint import classes, functions
from coffea_dirac.fingerprint.code import SOURCES, Source
from coffea_dirac.fingerprint.dump import Dump
from coffea_dirac.fingerprint.names import Chain, uses_of
from coffea_dirac.fingerprint.packages import origin_of
from coffea_dirac.fingerprint.scopes import Import
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

ABSENT = object()
INSTALLED = object()
# Globals that say where code is, not what it does.
_PLACES = frozenset(
    {"__name__", "__package__", "__spec__", "__loader__", "__builtins__", "__debug__", "__cached__", "__path__"}
)
_EMPTY_CALLS = frozenset(
    "dict list set OrderedDict defaultdict Counter deque WeakValueDictionary WeakKeyDictionary".split()
)
_SCHEDULE_NOW = (types.FunctionType, type, types.ModuleType, types.BuiltinFunctionType)


@dataclass(frozen=True)
class Memo:
    """A global whose encoding waits until all code is known that may fill it."""

    namespace: dict[str, Any]
    name: str
    value: Any
    into: dict[str, Json]
    path: tuple[str, ...]


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
        walker.memos.append(Memo(namespace, name, ABSENT, into, walker.path))
        return
    if value is ABSENT:
        into[name] = _builtin(walker, namespace, name)
    elif isinstance(value, types.ModuleType):
        for chain in sorted(chains):
            with walker.at(".".join(chain) or "as a whole"):
                into[".".join((name, *chain))] = resolve(walker, value, chain)
    elif isinstance(value, _SCHEDULE_NOW) and (id(namespace), name) not in walker.written_names:
        functions.refuse_dynamic(walker, value)
        into[name] = walker.encode(value)
    else:
        walker.memos.append(Memo(namespace, name, value, into, walker.path))


def _builtin(walker: Walker, namespace: dict[str, Any], name: str) -> Json:
    held = namespace.get("__builtins__", builtins)
    value = held.get(name) if isinstance(held, dict) else getattr(held, name, None)
    functions.refuse_dynamic(walker, value)
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
            walker.memos.append(Memo(vars(owner), name, found, holder, walker.path))
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
        functions.refuse_dynamic(walker, value)
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


# ------------------------------------------------------------------------------------------------------------- memos


def settle(walker: Walker) -> None:
    """Encode the globals that were put off; one that the reached code alone fills enters as it starts."""
    while walker.memos:
        memo = walker.memos.pop(0)
        walker.path = memo.path
        with walker.inside(memo.namespace):
            start = _start(walker, memo)
            if start is not None:
                memo.into[memo.name] = ["filled by its code", start]
            elif memo.value is ABSENT:
                memo.into[memo.name] = "absent"
            else:
                memo.into[memo.name] = walker.encode(memo.value)
                walker.member(str(memo.namespace.get("__name__", "")), memo.name, memo.into[memo.name])
        walker.drain()


def _start(walker: Walker, memo: Memo) -> Json:
    """Return how a global starts if nothing but the reached code writes it, else None."""
    written = (id(memo.namespace), memo.name) in walker.written_names or id(memo.value) in walker.written_values
    source = _source(walker, memo) if written else None
    if source is None:
        return None
    bindings = [node for node in source.tree.body if _binds(node, memo.name)]
    if len(bindings) > 1 or not all(is_empty(getattr(node, "value", None)) for node in bindings):
        return None
    fillers = writers(walker, source, memo.name)
    if fillers is None or (
        memo.value is not ABSENT and memo.value and _mentioned_elsewhere({memo.name, *fillers}, source)
    ):
        return None
    return Dump().expression(getattr(bindings[0], "value")) if bindings else "absent"  # noqa: B009


def _source(walker: Walker, memo: Memo) -> Source | None:
    file = memo.namespace.get("__file__")
    files = [file] if isinstance(file, str) else []
    for value in memo.namespace.values():
        if isinstance(value, types.FunctionType) and value.__globals__ is memo.namespace:
            files.append(value.__code__.co_filename)
    for name in dict.fromkeys(files):
        source = SOURCES.read(name, walker.given)
        if source is not None and memo.name in source.text:
            return source
    return None


def _binds(node: ast.stmt, name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        for n in ([] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ast.walk(node))
    )


def is_empty(node: ast.AST | None) -> bool:
    """Return whether an expression makes an empty container, or None."""
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Dict | ast.List):
        return not (node.keys if isinstance(node, ast.Dict) else node.elts)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in _EMPTY_CALLS and not node.keywords and len(node.args) == (name == "defaultdict")
    return False


def writers(walker: Walker, source: Source, name: str) -> frozenset[str] | None:
    """Return the functions of a module that fill a global, directly or through others, the root itself left out.

    None if something else in the module may fill it: its own statements, or a function that is not reached.
    """
    reached, others, statements = _parts(walker, source)
    names = {name}
    grown = True
    while grown:
        more = {n for n, uses in reached.items() if names & uses} - walker.root_names
        grown = not more <= names
        names |= more
    fillers = names - {name}
    if any(({name} | fillers) & uses for uses in (*others, *statements)):
        return None
    return frozenset(fillers)


def _parts(walker: Walker, source: Source) -> tuple[dict[str, set[str]], list[set[str]], list[set[str]]]:
    """Return what the reached functions of a module name, what its other functions do, and what its statements do."""
    reached: dict[str, set[str]] = {}
    others: list[set[str]] = []
    statements: list[set[str]] = []

    def look(body: Iterable[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                look(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if id(node) in walker.reached:
                    reached.setdefault(node.name, set()).update(_words(node))
                else:
                    others.append(_words(node))
            else:
                statements.append(_words(node))

    look(source.tree.body)
    return reached, others, statements


def _words(node: ast.AST) -> set[str]:
    uses = uses_of(node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ast.Module([node], []))  # type: ignore[list-item]
    return {*uses.chains, *uses.writes, *uses.rebinds, *uses.attributes}


def _mentioned_elsewhere(names: set[str], source: Source) -> bool:
    """Return whether other code of the user's names a global or what fills it, and so may have filled it."""
    word = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for name, other in list(sys.modules.items()):
        file = getattr(other, "__file__", None)
        if not isinstance(file, str) or file == source.filename or origin_of(name).kind != "user":
            continue
        text = SOURCES.read(file, {}) if file.endswith(".py") else None
        if text is not None and word.search(text.text):
            return True
    return False
