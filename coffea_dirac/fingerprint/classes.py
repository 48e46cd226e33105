"""Classes by their whole bodies over the MRO, instances by class and state."""

from __future__ import annotations

import abc
import dataclasses
import dis
import enum
import functools
import operator
import re
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from coffea_dirac.fingerprint import values
from coffea_dirac.fingerprint.dump import constant
from coffea_dirac.fingerprint.packages import origin_of, public_module
from coffea_dirac.interfaces import Json

if TYPE_CHECKING:
    from coffea_dirac.fingerprint.walk import Walker

# Attributes that Python makes, whose content is elsewhere or says where a class is, not what it does.
_MADE = frozenset(
    "__module__ __qualname__ __doc__ __dict__ __weakref__ __firstlineno__ __static_attributes__ __abstractmethods__ "
    "_abc_impl __dataclass_fields__ __dataclass_params__ __attrs_attrs__ __attrs_own_setattr__ __attrs_props__ "
    "_is_protocol _is_runtime_protocol __protocol_attrs__ __non_callable_proto_members__ __orig_bases__ __annotate__ "
    "__annotations_cache__ __classdictcell__ __readonly_keys__ __mutable_keys__ __slotnames__ __type_params__ "
    "_fields _field_defaults".split()
)
_HEAP_TYPE = 1 << 9  # classes made by Python code: the others cannot be changed
_MAKERS = frozenset({"types", "dataclasses", "builtins", "abc", "enum", "collections"})
_DATA = (bool, int, float, str, list, tuple, dict, set, frozenset)
_PARAMETERS = ("init", "repr", "eq", "order", "unsafe_hash", "frozen")
_FIELD = ("name", "type", "default", "default_factory", "init", "repr", "hash", "compare", "metadata", "kw_only")
_SLOT_KINDS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def class_(walker: Walker, value: type) -> Json:
    """Return the encoding of a class."""
    origin = walker.used(value.__module__)
    if origin.kind == "user" or _is_made_up(value):
        return walker.node(value, f"class {name_of(value)}", _user_class)
    module = public_module(value.__module__) if origin.kind == "stdlib" else value.__module__
    name = f"class {module}.{value.__qualname__}".replace("class builtins.", "class ")
    extra = [*patches(walker, value).items(), *schema(walker, value)]
    return [name, *extra] if extra else name


def name_of(value: type) -> str:
    """Return the name that a class has in every process: one made in a function travels without where it was made."""
    name = value.__qualname__
    return value.__name__ if "<locals>" in name else name


def _is_made_up(value: type) -> bool:
    """Return whether a class was made at run time in the name of the module that makes classes."""
    if value.__module__ not in _MAKERS or not value.__flags__ & _HEAP_TYPE:
        return False
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is not value


def patches(walker: Walker, value: type) -> dict[str, Json]:
    """Return what the user put into a library's class or its bases."""
    found: dict[str, Json] = {}
    for base in value.__mro__:
        if base.__flags__ & _HEAP_TYPE and origin_of(base.__module__).kind in ("installed", "stdlib"):
            for name in _patched(base):
                found[f"{base.__qualname__}.{name}"] = walker.encode(vars(base)[name])
    return found


_MOST_CLASSES = 4096
_looked_at: dict[type, tuple[tuple[str, ...], tuple[Any, ...], tuple[str, ...]]] = {}


def _patched(base: type) -> tuple[str, ...]:
    """Return the names of attributes that are the user's; nothing is looked at while all are the same objects."""
    attributes = vars(base)
    names, found = tuple(attributes), tuple(attributes.values())
    known = _looked_at.get(base)
    if known is None or known[0] != names or not all(map(operator.is_, known[1], found)):
        if len(_looked_at) >= _MOST_CLASSES:
            _looked_at.clear()
        users = sorted(name for name, value in zip(names, found, strict=True) if _is_users(value))
        known = _looked_at[base] = names, found, tuple(users)
    return known[2]


def schema(walker: Walker, value: type) -> list[Json]:
    """Return the data in the attributes of coffea's schema classes: users change what a schema does by setting them."""
    bases = [base for base in value.__mro__ if base.__module__.startswith("coffea.nanoevents.schemas")]
    if not any(base.__name__ == "BaseSchema" for base in bases):
        return []
    strings = set(walker.strings)
    found: list[Json] = []
    for base in bases:
        data = {name: v for name, v in sorted(vars(base).items()) if type(v) in _DATA and not name.startswith("__")}
        found.append([base.__name__, *([name, walker.encode(v)] for name, v in data.items())])
    walker.strings = strings
    return found


def _user_class(walker: Walker, value: type, label: str) -> Json:
    content: dict[str, Json] = {"bases": _bases(walker, value)}
    if type(value) is not type:
        content["metaclass"] = walker.encode(type(value))
    excluded = excluded_names(value)
    body: dict[str, Json] = {}
    with walker.inside(_namespace(value)):
        if issubclass(value, enum.Enum):
            content["members"] = [
                [name, walker.encode(member._value_), *_own_state(walker, member)]
                for name, member in value.__members__.items()
            ]
        content.update(_generated(walker, value))
        if isinstance(value, abc.ABCMeta) and (registered := _registered(value)):
            content["registered"] = walker.sorted_unordered(registered)
        for name in sorted(vars(value)):
            if name in excluded or (value in walker.omitting and name in walker.omit) or _is_made(walker, value, name):
                continue
            walker.guard.saw(vars(value), name, vars(value)[name])
            with walker.at(name):
                body[name] = walker.encode(vars(value)[name])
        if walker.docs and value.__doc__:
            content["doc"] = constant(value.__doc__)
    content["body"] = body
    walker.member(value.__module__, label, content)
    return content


def _registered(value: abc.ABCMeta) -> list[type]:
    """Return the classes that a user's abstract class takes for its own."""
    dump = getattr(abc, "_get_dump", None)
    found = [reference() for reference in dump(value)[0]] if dump is not None else []
    return [kind for kind in found if kind is not None]


def _bases(walker: Walker, value: type) -> list[Json]:
    return [walker.encode(base) for base in value.__bases__]


def _namespace(value: type) -> dict[str, Any]:
    """Return the globals of a class: those of its functions, since a class shipped by value has no module here."""
    for name in sorted(vars(value)):
        found = vars(value)[name]
        if isinstance(found, types.FunctionType) and found.__globals__.get("__name__") == value.__module__:
            return found.__globals__
    module = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    return vars(module) if module is not None else {"__name__": value.__module__}


def _is_made(walker: Walker, owner: type, name: str) -> bool:
    """Return whether an attribute was made by Python or by the decorators and bases of the standard library."""
    value = vars(owner)[name]
    if name in _MADE or isinstance(value, _SLOT_KINDS):
        return True
    if issubclass(owner, enum.Enum):
        return name in owner.__members__ or _is_enums(name, value)
    if isinstance(value, types.FunctionType):
        code = getattr(value, "__wrapped__", value).__code__
        if "create_fn__.<locals>" in code.co_qualname or code.co_filename.startswith("<attrs generated"):
            return True
        if value.__globals__.get("__name__") == "typing":
            return True
    if issubclass(owner, tuple) and hasattr(owner, "_fields"):
        return _is_namedtuples(value)
    return name == "__replace__" and not _is_users(value)


def _is_enums(name: str, value: Any) -> bool:
    """Return whether an attribute of an enum was put there by its metaclass."""
    if re.fullmatch(r"_[a-z0-9_]+_", name) and not _is_users(value):
        return True
    return isinstance(value, types.FunctionType | types.WrapperDescriptorType | types.MethodDescriptorType) and not (
        _is_users(value)
    )


def _is_users(value: Any) -> bool:
    value = getattr(value, "__func__", value)
    value = value.fget if isinstance(value, property) else value
    # Generated functions may have no module: then they are not the user's doing.
    name = value.__globals__.get("__name__") if isinstance(value, types.FunctionType) else None
    return bool(name) and origin_of(str(name)).kind == "user"


def _is_namedtuples(value: Any) -> bool:
    value = getattr(value, "__func__", value)
    if type(value).__name__ == "_tuplegetter":
        return True
    if not isinstance(value, types.FunctionType):
        return False
    name = str(value.__globals__.get("__name__", ""))
    return name == "collections" or name.startswith("namedtuple_")


def _generated(walker: Walker, value: type) -> dict[str, Json]:
    """Return what the methods are generated from: fields and their options."""
    content: dict[str, Json] = {}
    own = vars(value)
    if "__dataclass_fields__" in own:
        content["fields"] = [
            [walker.encode(_field_value(field, name)) for name in _FIELD]
            for field in own["__dataclass_fields__"].values()
        ]
        content["options"] = {name: getattr(own["__dataclass_params__"], name, None) for name in _PARAMETERS}
    if "__attrs_attrs__" in own:
        content["attrs"] = walker.encode(
            [{n: getattr(a, n, None) for n in a.__slots__} for a in own["__attrs_attrs__"]]
        )
    if issubclass(value, tuple) and "_fields" in own:
        content["fields"] = walker.encode([own["_fields"], own.get("_field_defaults")])
    parameters = own.get("__type_params__") or own.get("__parameters__")
    if parameters:
        content["parameters"] = walker.encode(tuple(parameters))
    return content


def _field_value(field: Any, name: str) -> Any:
    value = getattr(field, name)
    # By its class: pickling a class by value makes another instance of it.
    return "missing" if isinstance(value, type(dataclasses.MISSING)) else value


def excluded_names(kind: type) -> frozenset[str]:
    """Return the attributes that a class and its bases leave out by ``__fingerprint_exclude__``."""
    names: set[str] = set()
    for base in kind.__mro__:
        found = vars(base).get("__fingerprint_exclude__", ())
        names.update([found] if isinstance(found, str) else found)
    return frozenset(names)


# ----------------------------------------------------------------------------------------------------------- instances


def instance_node(walker: Walker, value: Any, label: str) -> Json:
    """Encode an instance that has an identity of its own."""
    return instance(walker, value)


def instance(walker: Walker, value: Any) -> Json:
    """Return the encoding of an instance: a member of an enum by name, others by class and state."""
    if isinstance(value, enum.Enum):
        name = value._name_ if value._name_ is not None else repr(value._value_)
        return ["member", walker.class_of(value), name, *_own_state(walker, value)]
    origin = origin_of(type(value).__module__)
    if origin.kind == "own":
        if type(value).__name__ == "Stage":
            walker.stages.append(value)
        walker.holds_cache |= type(value).__name__ == "StageCache"
        return ["own", type(value).__qualname__, _state(walker, value)]
    if origin.kind == "user":
        content = [c(walker, value) for base, c in values.CONTENT if isinstance(value, base)][:1]
        content = content or _reduced_base(walker, value)
        return ["instance", walker.class_of(value), _state(walker, value), *content]
    return _reduced(walker, value)


def _own_state(walker: Walker, member: enum.Enum) -> list[Json]:
    """Return the attributes that the user gives to a member of an enum."""
    own = {k: v for k, v in vars(member).items() if not (k.startswith("_") and k.endswith("_"))}
    return [_encoded(walker, own, type(member))] if own else []


def extra_state(walker: Walker, value: Any) -> list[Json]:
    """Return the state that a user's subclass of a library's class adds."""
    if origin_of(type(value).__module__).kind != "user" or not hasattr(value, "__dict__"):
        return []
    # Of other libraries these are their own; an array has no attributes but the user's.
    is_array = any(base.__module__ == "numpy" for base in type(value).__mro__)
    own = {k: v for k, v in vars(value).items() if is_array or not k.startswith("_")}
    return [_encoded(walker, own, type(value))] if own else []


def _state(walker: Walker, value: Any) -> dict[str, Json]:
    kind = type(value)
    getter = _users_attribute(kind, "__getstate__")
    if getter is not None:
        # What pickle leaves behind does not reach a worker.
        state = value.__getstate__()
        return _encoded(walker, state, kind) if isinstance(state, dict) else {"state": walker.encode(state)}
    state = dict(getattr(value, "__dict__", None) or {})
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            full = f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            if full not in ("__dict__", "__weakref__") and hasattr(value, full):
                state[full] = getattr(value, full)
    return _encoded(walker, state, kind)


def _encoded(walker: Walker, state: dict[Any, Any], kind: type) -> dict[str, Json]:
    left_out = excluded_names(kind) | _recomputable(kind)
    found: dict[str, Json] = {}
    for name in sorted(state, key=str):
        if name not in left_out:
            with walker.at(f".{name}"):
                found[str(name)] = walker.encode(state[name])
    return found


def _recomputable(kind: type) -> frozenset[str]:
    names = {"_delayed_corr"}  # what coffea's look-ups remember of their use with dask
    for base in kind.__mro__:
        names.update(name for name, value in vars(base).items() if isinstance(value, functools.cached_property))
    return frozenset(name for name in names if not _sets(kind, name))


@functools.lru_cache(maxsize=1024)
def _sets(kind: Any, name: str) -> bool:
    """Whether a method sets the attribute of this name itself: then it holds what the user has put there."""
    methods = (value for base in kind.__mro__ for value in vars(base).values() if isinstance(value, types.FunctionType))
    return any(
        step.opname == "STORE_ATTR" and step.argval == name
        for method in methods
        if name in method.__code__.co_names
        for step in dis.get_instructions(method)
    )


def _users_attribute(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name] if base is not object else None
    return None


def _reduced_base(walker: Walker, value: Any) -> list[Json]:
    """Return what a user's class inherits from a library's class that keeps its state outside of attributes."""
    for base in type(value).__mro__:
        if (
            base is not object
            and origin_of(base.__module__).kind != "user"
            and {"__reduce__", "__reduce_ex__"} & set(vars(base))
        ):
            return [_reduced(walker, value)]
    return []


def _reduced(walker: Walker, value: Any) -> Json:
    """Encode an instance of a library's class by what it is made again from: never by pickled bytes."""
    import copyreg

    if hasattr(type(value), "py_func") or "py_func" in getattr(value, "__dict__", {}):
        return ["wraps", walker.class_of(value), walker.encode(value.py_func)]
    try:
        maker = copyreg.dispatch_table.get(type(value))
        reduced = maker(value) if maker is not None else value.__reduce_ex__(4)
    except Exception as error:  # noqa: BLE001 - whatever stops it from being taken apart, it has no fingerprint
        raise walker.error(f"{values.advice(value)} ({error})") from None
    if isinstance(value, set | frozenset):
        # Taken apart, a set is a list in the order of hashes.
        return ["made", walker.class_of(value), *walker.sorted_unordered(value), _state(walker, value)]
    if isinstance(reduced, str):
        return ["library", walker.class_of(value), reduced]
    function, arguments, *rest = reduced
    state, items, pairs = (*rest, None, None, None)[:3]
    arguments = tuple("its class" if a is type(value) else a for a in arguments)
    parts = [walker.encode(function), walker.encode(arguments), _reduced_state(walker, value, state)]
    return ["made", walker.class_of(value), *parts, walker.encode(list(items or ())), walker.encode(list(pairs or ()))]


def _reduced_state(walker: Walker, value: Any, state: Any) -> Json:
    if isinstance(state, dict):
        return _encoded(walker, state, type(value))
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        return [_reduced_state(walker, value, state[0]), _encoded(walker, state[1], type(value))]
    return walker.encode(state)


def typing_form(walker: Walker, value: Any) -> Json:
    """Return the encoding of a type expression, None for other values."""
    if type(value).__module__ != "typing":
        return None
    if isinstance(value, typing.TypeVar):
        return ["TypeVar", value.__name__, walker.encode(value.__bound__), walker.encode(value.__constraints__)]
    if isinstance(value, typing.ForwardRef):
        return ["ForwardRef", value.__forward_arg__]
    origin, arguments = typing.get_origin(value), typing.get_args(value)
    if origin is not None and arguments:
        return ["generic", walker.encode(origin), *(walker.encode(a) for a in arguments)]
    return ["typing", repr(value)]
