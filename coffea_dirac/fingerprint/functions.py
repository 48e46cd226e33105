"""Functions: the user's by code, defaults, closure and all they name; a library's by name and what it was made with."""

from __future__ import annotations

import ast
import copy
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint import dynamic, modules
from coffea_dirac.fingerprint.code import SOURCES, Unit
from coffea_dirac.fingerprint.deferred import ABSENT, is_empty
from coffea_dirac.fingerprint.dump import dump_function
from coffea_dirac.fingerprint.names import Chain, uses_of
from coffea_dirac.fingerprint.packages import OWN, origin_of
from coffea_dirac.fingerprint.values import digest_file
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

BUILTIN_KINDS: frozenset[type] = frozenset(
    {
        types.BuiltinFunctionType,
        types.MethodWrapperType,
        types.WrapperDescriptorType,
        types.MethodDescriptorType,
        types.ClassMethodDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
    }
)
_HERE = str(Path(__file__).parent.parent)
_DOC_READERS = frozenset({"__doc__", "getdoc"})
_ANNOTATION_READERS = frozenset({"__annotations__", "get_type_hints", "signature", "getfullargspec", "get_annotations"})


def module_of(value: Any) -> str:
    """Return the name of the module that a function or class was made in, empty for other values."""
    if isinstance(value, types.FunctionType):
        return str(value.__globals__.get("__name__", ""))
    if isinstance(value, type):
        return str(value.__module__)
    return ""


def function(walker: Walker, value: types.FunctionType) -> Json:
    """Return the encoding of a function."""
    kind = walker.used(module_of(value)).kind
    # What a doctest or a debugger defines in the name of this package is not in its files.
    if kind == "user" or (kind == "own" and not value.__code__.co_filename.startswith(_HERE)):
        return walker.node(value, value.__code__.co_qualname, _user_function)
    name = value.__code__.co_qualname
    for module, path in ((module_of(value), name), (value.__module__ or "", value.__qualname__)):
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        held = found is value or getattr(found, "__func__", None) is value
        if held and origin_of(module).kind != "user":
            return walker.library(module, path)
    return walker.node(value, f"{name} of {value.__name__}", _library_function)


def _library_function(walker: Walker, value: types.FunctionType, label: str) -> Json:
    """Encode a function that a library made for the user: a wrapper around something, as a rule."""
    content: dict[str, Json] = {"library": f"{module_of(value)}.{value.__code__.co_qualname}"}
    registry = getattr(value, "registry", None)
    if module_of(value) == "functools" and isinstance(registry, types.MappingProxyType):
        with walker.at("registry"):
            pairs = [[walker.encode(kind), walker.encode(target)] for kind, target in registry.items()]
        return {**content, "registry": sorted(pairs, key=str)}
    content["closure"] = _closure(walker, value, None)
    content["defaults"] = walker.encode(value.__defaults__)
    wrapped = vars(value).get("__wrapped__")
    if wrapped is not None:
        content["wraps"] = walker.encode(wrapped)
    return content


def _user_function(walker: Walker, value: types.FunctionType, label: str) -> Json:
    with walker.inside(value.__globals__):
        unit = unit_of(walker, value.__code__, label)
        content: dict[str, Json] = {"code": _lines(walker, value, unit)}
        _ship(walker, value, unit)
        walker.functions[label] = value
        walker.guard.saw_function(value)
        content["defaults"] = _defaults(walker, value, unit)
        content["closure"] = _closure(walker, value, unit)
        content["names"] = _names(walker, value, unit)
        attributes = {k: v for k, v in sorted(vars(value).items()) if not k.startswith("__") or k == "__wrapped__"}
        with walker.at("attributes"):
            content["attributes"] = {
                k: walker.encode(v) for k, v in attributes.items() if k not in unit.uses.attribute_writes
            }
        if walker.annotations:
            content["annotations"] = walker.encode(value.__annotations__)
    # Names may be entered later on, when all code is known.
    content = {key: part for key, part in content.items() if part or key == "names"}
    walker.member(module_of(value), label, content)
    return content


def _lines(walker: Walker, value: types.FunctionType, unit: Unit) -> list[str]:
    """Return the lines of a function; what ``@stage`` above it says is known from the stage that it made."""
    decorators = getattr(unit.node, "decorator_list", [])
    others = [d for d in decorators if not _is_stage(d, value.__globals__)]
    if len(others) == len(decorators):
        return list(unit.lines)
    head = copy.copy(unit.node)
    head.decorator_list, head.body = others, []
    return [*dump_function(head, docs=walker.docs, annotations=walker.annotations).lines, *unit.lines[1:]]


def _is_stage(decorator: ast.expr, namespace: dict[str, Any]) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    chain: list[str] = []
    while isinstance(target, ast.Attribute):
        chain.append(target.attr)
        target = target.value
    if not isinstance(target, ast.Name):
        return False
    found = modules.live(namespace, (target.id, *reversed(chain)))
    return isinstance(found, types.FunctionType) and (found.__module__, found.__name__) == (
        f"{OWN}.stages.stage",
        "stage",
    )


def unit_of(walker: Walker, code: types.CodeType, label: str) -> Unit:
    """Return the unit of a code object and note its strings, attributes and place."""
    unit = SOURCES.unit(code, walker.given, docs=walker.docs, annotations=walker.annotations)
    walker.places[label] = {"file": code.co_filename, "numbers": list(unit.numbers), "text": _source_lines(unit)}
    dynamic.refuse_attributes(walker, unit.uses.attributes)
    walker.attributes |= unit.uses.attributes | unit.uses.strings
    walker.written_attributes |= unit.uses.attribute_writes
    walker.reached.add(id(unit.node))
    for text in unit.uses.strings:
        walker.seen_string(text)
    return unit


def _source_lines(unit: Unit) -> list[str]:
    if unit.source is None:
        return []
    lines = unit.source.lines
    return [lines[n - 1].strip() if 0 < n <= len(lines) else "" for n in unit.numbers]


def code(walker: Walker, value: types.CodeType) -> Json:
    """Return the encoding of a bare code object."""
    unit = unit_of(walker, value, value.co_qualname)
    return ["code", *unit.lines]


def _ship(walker: Walker, value: types.FunctionType, unit: Unit) -> None:
    """Keep the source text of code that travels by value: the worker has no file of it."""
    module = sys.modules.get(module_of(value))
    by_reference = module is not None and vars(module) is value.__globals__ and module.__name__ != "__main__"
    if unit.source is not None and not by_reference:
        walker.sources[value.__code__.co_filename] = unit.source.text


# ---------------------------------------------------------------------------------------------- defaults and closures


def _defaults(walker: Walker, value: types.FunctionType, unit: Unit) -> dict[str, Json]:
    names = value.__code__.co_varnames[: value.__code__.co_argcount]
    pairs = dict(zip(reversed(names), reversed(value.__defaults__ or ()), strict=False))
    pairs.update(value.__kwdefaults__ or {})
    found = {}
    for name in sorted(pairs):
        with walker.at(f"default {name!r}"):
            if name in unit.uses.parameter_writes and is_empty(_default_node(unit, name)):
                found[name] = "filled by its own function"  # a memo: what it holds is call history
            else:
                found[name] = walker.encode(pairs[name])
    return found


def _default_node(unit: Unit, name: str) -> ast.AST | None:
    if unit.node is None:
        return None
    arguments = unit.node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    nodes = dict(zip((a.arg for a in reversed(positional)), reversed(arguments.defaults), strict=False))
    nodes.update(zip((a.arg for a in arguments.kwonlyargs), arguments.kw_defaults, strict=True))
    return nodes.get(name)


def _closure(walker: Walker, value: types.FunctionType, unit: Unit | None) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        with walker.at(f"closure {name!r}"):
            try:
                content = cell.cell_contents
            except ValueError:
                found[name] = "unset"
                continue
            walker.guard.saw_cell(cell, content)
            if isinstance(content, types.ModuleType) and unit is not None and name in unit.uses.chains:
                found[name] = _chains(walker, content, unit.uses.chains[name])
            else:
                found[name] = walker.encode(content)
    return found


# --------------------------------------------------------------------------------------------------------------- names


def _names(walker: Walker, value: types.FunctionType, unit: Unit) -> dict[str, Json]:
    """Return what a function finds under the names it uses: globals, builtins, imports in its body."""
    namespace = value.__globals__
    walker.written_names.update((id(namespace), name) for name in unit.uses.writes | unit.uses.rebinds)
    values = (namespace.get(name) for name in unit.uses.writes)
    walker.written_values.update(id(v) for v in values if isinstance(v, dict | list | set | deque))
    found: dict[str, Json] = {}
    chains = {name: set(used) for name, used in unit.uses.chains.items()}
    looked_up = unit.names | unit.uses.named_in_text
    _constant_calls(walker, value, unit, chains, found)
    for name in sorted(chains):
        named_in_text = chains[name] != unit.uses.chains.get(name)
        if name in value.__code__.co_freevars or not (name in looked_up or named_in_text):
            continue
        with walker.at(f"global {name!r}"):
            modules.global_(walker, namespace, name, chains[name], found)
    for record in sorted(unit.uses.imports):
        with walker.at(f"import {'.' * record.level}{record.module}"):
            _import(walker, namespace, record, unit.uses.imports[record], found)
    return found


def _import(walker: Walker, namespace: Any, record: Any, chains: set[Chain], found: dict[str, Json]) -> None:
    name = f"import {'.' * record.level}{record.module} {record.name}".rstrip()
    target = modules.imported(walker, namespace, record)
    if target is ABSENT:
        found[name] = "absent"
    elif target is modules.INSTALLED:
        found[name] = "library"
        patched = modules.patched(walker, namespace, record, chains)
        if patched:
            found[f"{name} patched"] = patched
    else:
        used = chains or {()} if not isinstance(target, types.ModuleType) else chains
        found[name] = _chains(walker, target, used)


def _chains(walker: Walker, value: Any, chains: Iterable[Chain]) -> Json:
    parts = {}
    for chain in sorted(chains):
        with walker.at(".".join(chain)) if chain else walker.at("as a whole"):
            parts[".".join(chain)] = modules.resolve(walker, value, chain)
    return parts


def _constant_calls(
    walker: Walker, value: types.FunctionType, unit: Unit, chains: dict[str, set[Chain]], found: dict[str, Json]
) -> None:
    """Follow ``eval("...")``, ``import_module("...")`` and the like, whose text is known."""
    namespace = value.__globals__
    for position, call in enumerate(unit.uses.calls):
        target = modules.live(namespace, call.function)
        text = call.text if call.variable is None else namespace.get(call.variable)
        if call.variable is not None:
            chains.setdefault(call.variable, set()).add(())
        name = getattr(target, "__name__", "")
        evaluates = name in ("eval", "exec", "compile") and getattr(target, "__module__", "") == "builtins"
        imports = name in ("import_module", "__import__")
        if call.function[0] not in namespace and target is None:
            imports = call.function[-1] in ("import_module", "__import__")  # bound by an import in the body
        if not isinstance(text, str) or not (evaluates or imports):
            chains.setdefault(call.function[0], set()).add(call.function[1:])
            continue
        if imports:
            record = modules.whole(text)
            with walker.at(f"import {text}"):
                _import(walker, namespace, record, {()}, found)
            continue
        _evaluated(walker, text, chains, found, position)


def _evaluated(walker: Walker, text: str, chains: dict[str, set[Chain]], found: dict[str, Json], position: int) -> None:
    try:
        tree = ast.parse(text.strip())
    except SyntaxError:
        found[f"text {position}"] = ["not code", text]
        return
    uses = uses_of(tree)
    found[f"text {position}"] = list(dump_function(tree).lines)
    walker.attributes |= uses.attributes | uses.strings
    for name, used in uses.chains.items():
        chains.setdefault(name, set()).update(used)


# ------------------------------------------------------------------------------------------------------------ builtins


def builtin(walker: Walker, value: Any) -> Json:
    """Return the encoding of a function or descriptor written in C, by its name."""
    dynamic.refuse(walker, value)
    owner = getattr(value, "__objclass__", None)
    if owner is not None:
        return ["descriptor", walker.encode(owner), value.__name__]
    holder = getattr(value, "__self__", None)
    if holder is not None and not isinstance(holder, types.ModuleType):
        return ["bound", walker.encode(holder), value.__name__]
    module = value.__module__ or "builtins"
    origin = walker.used(module)
    file = getattr(sys.modules.get(module), "__file__", None)
    if origin.kind == "user" and file:
        return ["compiled", digest_file(file), value.__name__]
    return walker.library(module, value.__name__)


_Encoder = Callable[[Any, Any, str], Json]


def reads(walker: Walker) -> tuple[bool, bool]:
    """Return whether the code reached reads docstrings, and whether it reads annotations."""
    return bool(walker.attributes & _DOC_READERS), bool(walker.attributes & _ANNOTATION_READERS or _names_used(walker))


def _names_used(walker: Walker) -> bool:
    return any(_ANNOTATION_READERS & set(walker.nodes[label].get("names", ())) for label in walker.functions)


__all__ = [
    "BUILTIN_KINDS",
    "builtin",
    "code",
    "function",
    "module_of",
    "origin_of",
    "reads",
    "unit_of",
]
