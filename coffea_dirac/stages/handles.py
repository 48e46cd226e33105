"""Handles: calls of stages that wait until their results are pulled, and the graph they make.

A handle's fingerprint is H(template of the stage, its arguments), where a handle among the arguments enters by its own
fingerprint and ``events`` by the identity of the data: so it is known before anything is read or computed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from coffea_dirac.errors import FingerprintError, StageError
from coffea_dirac.fingerprint import describe, digest_file
from coffea_dirac.inputs.discovery import unrecorded
from coffea_dirac.inputs.files import File, vanished
from coffea_dirac.stages.sources import factory_of

if TYPE_CHECKING:
    from coffea_dirac.stages.stage import Stage, Templates

ACTIVE: ContextVar[Graph | None] = ContextVar("coffea_dirac_graph", default=None)
"""Where calls of stages go at the moment; None: they are plain calls."""
RUNNING: ContextVar[tuple[Any, ...]] = ContextVar("coffea_dirac_running", default=())
"""The stages that run at the moment, the innermost last."""
CALLED: ContextVar[str] = ContextVar("coffea_dirac_called", default="")
"""The fingerprint of the call that runs at the moment."""
HANDLE_PLACES = "Handles are found as values in dicts, lists and tuples; or take the result with .compute()"
_ATOMS = frozenset({type(None), bool, int, float, complex, bytes})
# Their content is code, or lies in a file that is named: it does not change within a run.
_LASTING = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, types.ModuleType, os.PathLike)


class Template(NamedTuple):
    """What all calls of a stage have in common: its digest, and the files that its strings name, with digests."""

    digest: str
    named_files: Mapping[str, str]


class Source(Protocol):
    """The data of one work item, as an argument of stages."""

    @property
    def identity(self) -> str:
        """What enters fingerprints."""
        ...

    def is_whole(self, value: object) -> bool:
        """Whether `value` is the data as it was handed to ``process``."""
        ...

    def has_made(self, factory: object) -> bool:
        """Whether the data are the events of `factory`."""
        ...

    def events(self) -> Any:
        """Return the data, opening the file at the first call."""
        ...


class Finder(Protocol):
    """Tells which data arrays are, or were taken out of, outside of a work item."""

    def source(self, value: Any) -> Source | None:
        """Return the data that `value` is all of, None if it is not."""
        ...

    def origin(self, factory: Any) -> str:
        """Return what identifies the events that `factory` makes, empty if that is not known."""
        ...


@dataclass
class Arguments:
    """The arguments of one call: as values with handles inside, and as the text that enters the fingerprint.

    `parts` are texts and handles in turn; `changeable` are values that could be changed before they are used, with the
    name of their argument and the digest they had.
    """

    values: dict[str, Any] = field(default_factory=dict)
    parts: list[Any] = field(default_factory=list)
    strings: set[str] = field(default_factory=set)
    changeable: list[tuple[str, Any, str]] = field(default_factory=list)
    has_source: bool = False

    @functools.cached_property
    def parents(self) -> list[Handle]:
        """The handles among the arguments, each once; asked for when all parts are there."""
        return list(dict.fromkeys(part for part in self.parts if type(part) is Handle))

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Short digests of the arguments that are neither data nor results, by name; a file's has its name."""
        found: dict[str, list[str]] = {}
        others, name = set[str](), ""
        for part in self.parts:
            if type(part) is Handle or part.startswith("source "):
                others.add(name)
            elif part.endswith("="):
                name = part[:-1]
            elif name:
                found.setdefault(name, []).append(part)
        return {
            name: _file_name(self.values[name]) + _short_digest("".join(parts))
            for name, parts in found.items()
            if name not in others
        }

    def text(self, digest_of: Callable[[Handle], str]) -> str:
        """Return the text that stands for the arguments, with each handle replaced by its digest."""
        return "".join(part if type(part) is str else f"@{digest_of(part)};" for part in self.parts)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _file_name(value: Any) -> str:
    return f"{os.path.basename(value.path)} " if type(value) is File else ""  # noqa: PTH119 - of a text


class Handle:
    """A call of a stage whose result is pulled later.

    It may be an argument of other stages, also in a dict, list or tuple; ``process`` may return it in one; `compute`
    returns its result.  Anything else asked of it is an error: it is not the result.
    """

    __slots__ = ("_graph", "arguments", "fingerprint", "number", "stage", "template")
    _graph: Graph
    arguments: Arguments
    fingerprint: str
    number: int
    stage: Stage
    template: Template

    def __init__(
        self, graph: Graph, stage: Stage, template: Template, arguments: Arguments, fingerprint: str, number: int
    ) -> None:
        values = (graph, arguments, fingerprint, number, stage, template)
        for name, value in zip(Handle.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<handle of {self.stage.name}, {self.fingerprint[:12]}>"

    def compute(self) -> Any:
        """Return the result: loaded if it is kept, else computed.

        Raises
        ------
        StageError
            The run that the handle belongs to is over.
        """
        return self._graph.compute(self)

    def _refuse(self, what: str) -> NoReturn:
        raise StageError(
            f"{what} of {self!r}: it is not the result, which is known only when it is pulled. Pass the handle to "
            "another @stage function that does this, or take the result with .compute()"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        self._refuse(f".{name}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self._refuse(f".{name} =")

    def __delattr__(self, name: str) -> NoReturn:
        self._refuse(f"del .{name}")

    def __format__(self, spec: str) -> str:
        return repr(self) if not spec else self._refuse(f"format {spec!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not Handle:
            self._refuse("comparison")
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise StageError(
            f"{self!r} cannot be copied or sent anywhere, nor kept inside an object: return it from process() in a "
            "dict, list or tuple, or take its result with .compute()"
        )

    def __getstate__(self) -> NoReturn:
        raise StageError(f"{self!r} is in a set or an object, where nothing finds it. {HANDLE_PLACES}")


def _refusing(name: str) -> Callable[..., Any]:
    def operation(self: Handle, *_: object, **__: object) -> Any:
        self._refuse(f"{name}()")

    operation.__name__ = name
    return operation


_OPERATIONS = (
    "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or radd rsub rmul rmatmul rtruediv "
    "rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror neg pos abs invert lt le gt ge bool len iter getitem "
    "setitem delitem contains call int float complex index round trunc floor ceil reversed array array_ufunc "
    "array_function enter next"
)
for _name in _OPERATIONS.split():
    setattr(Handle, f"__{_name}__", _refusing(f"__{_name}__"))


class Graph:
    """The calls of stages in one ``process`` or one ``with`` block; the same call twice is one handle.

    Parameters
    ----------
    templates : Templates
        Of the stages.
    compute : callable
        Handle -> its result.
    source : Source, optional
        What ``events`` is.
    finder : Finder, optional
        Where there is no source, finds the data that arrays are of.
    """

    def __init__(
        self,
        templates: Templates,
        compute: Callable[[Handle], Any],
        source: Source | None = None,
        finder: Finder | None = None,
    ) -> None:
        self.templates, self._source, self._finder = templates, source, finder
        self._compute = compute
        self._handles: dict[str, Handle] = {}
        self._sources: list[Source] = []
        self._origins: dict[int, tuple[Any, str]] = {}
        self.is_over = False
        self.metadata: Mapping[str, Any] | None = None
        """Those of the work item, if there is one."""
        self.wanted: list[Handle] = []
        """Handles that are pulled whether or not anything is made of them."""

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def identity(self) -> str:
        """What identifies the data of the work item, empty if there is none."""
        return self._source.identity if self._source is not None else ""

    def call(self, stage: Stage, arguments: Mapping[str, Any]) -> Handle:
        """Return the handle of a call.

        Raises
        ------
        StageError
            An argument cannot be fingerprinted; the message names it.
        """
        try:
            template = self.templates.of(stage, arguments)
        except FingerprintError as error:
            raise StageError(f"stage {stage.name} has no fingerprint: {error}") from error
        found = Arguments()
        for name, value in arguments.items():
            if stage.is_method and not found.parts:
                # The instance is in the template, whole.
                found.parts.append("self;")
                found.values[name] = value
                continue
            found.parts.append(f"{name}=")
            found.values[name] = self._enter(found, stage, name, value)
        fingerprint = fingerprint_of(template, found)
        handle = self._handles.get(fingerprint)
        if handle is None:
            handle = Handle(self, stage, template, found, fingerprint, len(self._handles))
            self._handles[fingerprint] = handle
        return handle

    def _enter(self, found: Arguments, stage: Stage, name: str, value: Any) -> Any:
        """Note a part of an argument; return it with containers of its own, which nobody else can change."""
        kind = type(value)
        if kind in _ATOMS:
            found.parts.append(f"{kind.__name__} {value!r};")
            return value
        if kind is str:
            found.parts.append(f"str {value!r};")
            found.strings.add(value)
            return value
        if kind is Handle:
            if value._graph is not self:
                raise StageError(f"{stage.name}({name}=...): {value!r} belongs to another run, or to one that is over")
            found.parts.append(value)
            return value
        if kind is list or kind is tuple:
            found.parts.append(f"{kind.__name__}[")
            items = [self._enter(found, stage, name, item) for item in value]
            found.parts.append("]")
            return kind(items)
        if kind is dict:
            found.parts.append("dict{")
            pairs = [
                (self._enter(found, stage, name, key), self._enter(found, stage, name, item))
                for key, item in value.items()
            ]
            found.parts.append("}")
            return dict(pairs)
        source = self._source_of(value)
        if source is not None:
            found.has_source = True
            found.parts.append(f"source {source.identity};")
            return source
        try:
            origin = self._origin_of(value)
        except StageError as error:
            raise StageError(f"{stage.name}({name}=...): {error}") from error
        if origin:
            found.parts.append(f"of {origin};")
        digest = self.digest(stage, name, value)
        found.parts.append(f"value {digest};")
        if not isinstance(value, _LASTING):
            found.changeable.append((name, value, digest))
        return value

    def _source_of(self, value: Any) -> Source | None:
        if self._source is not None and self._source.is_whole(value):
            return self._source
        for known in self._sources:
            if known.is_whole(value):
                return known
        found = self._finder.source(value) if self._finder is not None else None
        if found is not None:
            self._sources.append(found)
        return found

    def _origin_of(self, value: Any) -> str:
        """Return what identifies the events that an array was taken out of: it refers to their other columns.

        Raises
        ------
        StageError
            They are not known.
        """
        factory = factory_of(value)
        if factory is None:
            return ""
        if self._source is not None and self._source.has_made(factory):
            return self._source.identity
        if id(factory) not in self._origins:
            self._origins[id(factory)] = factory, self._finder.origin(factory) if self._finder is not None else ""
        found = self._origins[id(factory)][1]
        if not found:
            raise StageError(
                "it belongs to events that are not those of this work item, or of no file: pass the `events` that "
                "process() got, arrays of these, or ak.Array(array.layout), which belongs to none"
            )
        return found

    def digest(self, stage: Stage, name: str, value: Any) -> str:
        """Return the digest of an argument by content and type.

        Raises
        ------
        StageError
            It has none.
        InputError
            A `File` is not there.
        """
        templates = self.templates
        known = templates.digests.get(id(value))
        if known is not None:
            return known[1]
        try:
            with unrecorded():
                if type(value) is File:
                    digest = digest_file(value)
                else:
                    digest = describe({"value": value}, sources=templates.sources, versions=templates.versions).digest
        except FingerprintError as error:
            raise StageError(
                f"{stage.name}({name}=...) has an argument without a fingerprint: {error}. Pass plain data, arrays "
                "that are read, `events` itself, or the result of another stage"
            ) from error
        except StageError as error:
            raise StageError(f"{stage.name}({name}=...): {error}") from error
        except OSError as error:
            raise vanished(os.fspath(value), error) from error
        if isinstance(value, _LASTING) and not templates.is_watching:
            templates.digests[id(value)] = (value, digest)
        return digest

    def compute(self, handle: Handle) -> Any:
        """Return the result of a handle.

        Raises
        ------
        StageError
            The run is over.
        """
        if self.is_over:
            raise StageError(
                f"{handle!r} is used after its run: take results inside the `with StageCache(...)` block, or return "
                "handles from process()"
            )
        return self._compute(handle)


def fingerprint_of(template: Template, arguments: Arguments) -> str:
    """Return the fingerprint of a call: H(template of the stage, its arguments)."""
    text = f"stage 1 {template.digest} {arguments.text(_fingerprint)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _fingerprint(handle: Handle) -> str:
    return handle.fingerprint


def handles_in(value: Any) -> Iterator[Handle]:
    """Yield the handles in a value and in the dicts, lists and tuples inside of it."""
    if type(value) is Handle:
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from handles_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from handles_in(item)


def handle_in(value: Any) -> Handle | None:
    """Return the first handle in a value, None if there is none."""
    return next(handles_in(value), None)


def filled(value: Any, result_of: Callable[[Any], Any]) -> Any:
    """Return an argument as a stage gets it: new containers, with `result_of` of all that is in them."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([filled(item, result_of) for item in value])
    if kind is dict:
        return {filled(key, result_of): filled(item, result_of) for key, item in value.items()}
    return result_of(value)


def replaced(value: Any, result_of: Callable[[Handle], Any]) -> Any:
    """Return a value with handles replaced by results; dicts and lists that hold any are changed in place."""
    if type(value) is Handle:
        return result_of(value)
    if handle_in(value) is None:
        return value
    if isinstance(value, dict):
        for key, item in value.items():
            dict.__setitem__(value, key, replaced(item, result_of))
        return value
    if isinstance(value, list):
        value[:] = [replaced(item, result_of) for item in value]
        return value
    items = [replaced(item, result_of) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
