"""The walk from named values through all user code and values that they can reach.

Functions, classes, instances and modules become nodes under readable labels, in the order they are met, so that
cycles end and equal code has equal nodes in every process.  Everything else is encoded where it stands.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import classes, deferred, functions, modules, values
from coffea_dirac.fingerprint.dump import constant
from coffea_dirac.fingerprint.guard import Guard
from coffea_dirac.fingerprint.packages import Origin, counted_version, origin_of, public_module
from coffea_dirac.fingerprint.science import handler_of
from coffea_dirac.interfaces import Json, Versions

_DATA_READERS = frozenset({"resources", "files", "get_data"})
_MAXIMUM_NAME = 1024
Special = Callable[["Walker", Any], Json]
"""Encodes what a caller knows better than this room; None for everything else."""


class _Step:
    """A step of a walker's path; it stays there for errors that are told further up."""

    __slots__ = ("_step", "_walker")

    def __init__(self, walker: Walker, step: str) -> None:
        self._walker, self._step = walker, step

    def __enter__(self) -> None:
        self._walker._path.append(self._step)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._walker._path.pop()


class Walker:
    """Encodes values and collects what they reach; one walker, one fingerprint.

    Parameters
    ----------
    omit : collection of str
        Methods of the root instances' classes that are left out.
    given : mapping
        Source texts by file name, for code that is not importable here.
    docs, annotations : bool
        Whether some reachable code reads docstrings or annotations, so that they count.
    special : callable, optional
        Asked first for functions, classes and instances.
    versions : "exact" or "minor"
        How versions of installed packages count.
    """

    def __init__(
        self,
        *,
        omit: Collection[str] = (),
        given: Mapping[str, str] | None = None,
        docs: bool = False,
        annotations: bool = False,
        special: Special | None = None,
        versions: Versions = "exact",
    ) -> None:
        self.special = special
        self.omit, self.docs, self.annotations = frozenset(omit), docs, annotations
        self.given: Mapping[str, str] = given or {}
        self.versions: Versions = versions
        self.nodes: dict[str, Json] = {}
        self.places: dict[str, Json] = {}
        self.packages: dict[str, str] = {}
        self.strings: set[str] = set()
        self.stages: list[Any] = []
        self.holds_cache = False
        self.makes_stages = False
        self.files: dict[str, str] = {}
        self.guard = Guard()
        self.attributes: set[str] = set()
        self.sources: dict[str, str] = {}
        self.members: dict[str, dict[str, Json]] = {}
        self.functions: dict[str, types.FunctionType] = {}
        self.omitting: set[type] = set()
        self.module_name = ""
        self.root = ""
        self.deferred: list[deferred.Deferred] = []
        self.written_names: set[tuple[int, str]] = set()
        self.written_values: set[int] = set()
        self.written_attributes: set[str] = set()
        self.reached: set[int] = set()
        self.root_names: set[str] = {"process", "__call__"}
        self._labels: dict[int, tuple[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._queue: deque[tuple[str, Any, Any, tuple[str, ...]]] = deque()
        self._path: list[str] = []
        self._entered: dict[str, str] = {}
        self._open: dict[int, int] = {}

    # ------------------------------------------------------------------------------------------------------- the walk

    def run(self, roots: Mapping[str, Any]) -> Json:
        """Encode named values and all they reach; return the encoded roots."""
        encoded = {}
        for name in roots:
            with self.at(name):
                encoded[name] = self.encode(roots[name])
        self.drain()
        deferred.settle(self)
        return encoded

    def finish(self, content: Json) -> Json:
        """Encode what `content` refers to; return it."""
        self.drain()
        deferred.settle(self)
        return content

    def drain(self) -> None:
        """Encode the nodes met so far, and those met on the way."""
        while self._queue:
            label, value, encoder, path = self._queue.popleft()
            self._path = list(path)
            self.nodes[label] = encoder(self, value, label)

    def node(self, value: Any, name: str, encoder: Any) -> Json:
        """Return the reference to a value that is encoded once, by ``encoder(walker, value, label)``."""
        known = self._labels.get(id(value))
        if known is None:
            self._counts[name] = number = self._counts.get(name, 0) + 1
            label = name if number == 1 else f"{name} #{number}"
            self._labels[id(value)] = known = (label, value)
            self._queue.append((label, value, encoder, (*self._path, name)))
        return f"-> {known[0]}"

    @property
    def path(self) -> tuple[str, ...]:
        """How the value at hand is reached."""
        return tuple(self._path)

    @path.setter
    def path(self, steps: tuple[str, ...]) -> None:
        self._path = list(steps)

    def at(self, step: str) -> _Step:
        """Name the next step of the path that an error shows."""
        return _Step(self, step)

    def error(self, why: str) -> FingerprintError:
        """Return an error that names the path to the value at hand."""
        return FingerprintError(" -> ".join(self._path), why)

    # -------------------------------------------------------------------------------------------------------- encoding

    def encode(self, value: Any) -> Json:
        """Return a value's encoding."""
        exact = values.EXACT.get(type(value))
        if type(value) in values.ATOMS and exact is not None:
            return exact(self, value)
        self.guard.is_changeable |= type(value) in values.CHANGEABLE
        if id(value) in self._open:
            return f"cycle {len(self._open) - self._open[id(value)]}"
        self._open[id(value)] = len(self._open)
        try:
            return self._other(value) if exact is None else exact(self, value)
        except RecursionError:
            raise self.error("it is nested too deeply; pass a flatter value") from None
        finally:
            del self._open[id(value)]

    def _other(self, value: Any) -> Json:
        kind = type(value)
        if self.special is not None and (known := self.special(self, value)) is not None:
            return known
        for kinds, encoder in _KINDS:
            if issubclass(kind, kinds):
                return encoder(self, value)
        if kind.__name__ == "cython_function_or_method":
            return functions.builtin(self, value)
        typing_form = classes.typing_form(self, value)
        if typing_form is not None:
            return typing_form
        self.guard.is_changeable = True
        handler = handler_of(kind)
        if handler is not None:
            return [self.class_of(value), handler(self, value), *classes.extra_state(self, value)]
        if values.is_pure(kind):
            return classes.instance(self, value)
        return self.node(value, f"{classes.name_of(kind)}()", classes.instance_node)

    def class_of(self, value: Any) -> Json:
        """Return the encoding of a value's class."""
        return classes.class_(self, type(value))

    def sorted_unordered(self, elements: Iterable[Any]) -> list[Json]:
        """Return the encodings of a set's elements in an order of their own."""
        found = list(elements)
        if all(type(e) in values.ATOMS for e in found):
            return sorted((self.encode(e) for e in found), key=values.canonical)
        keyed = []
        for element in found:
            other = Walker(
                given=self.given,
                docs=self.docs,
                annotations=self.annotations,
                special=self.special,
                versions=self.versions,
            )
            other.module_name, other.root, other._path = self.module_name, self.root, [*self._path, "{...}"]
            keyed.append((values.canonical([other.run({"": element}), other.nodes]), element))
        return [self.encode(element) for _, element in sorted(keyed, key=lambda pair: pair[0])]

    def _path_like(self, value: Any) -> Json:
        """Encode a path by the content of its file, and by its name where there is none."""
        self.guard.is_changeable = True
        name = os.fspath(value)
        kind = "path" if isinstance(value, Path) else self.class_of(value)
        travels = getattr(type(value), "belongs_to_analysis", False) is True
        if travels:
            self.files[value.path] = ""
        if isinstance(name, str) and Path(name).is_file():
            try:
                digest = values.digest_file(name)
                if travels:
                    self.files[value.path] = digest
                return [kind, Path(name).name, digest]
            except OSError as error:
                raise self.error(f"the file {name} cannot be read ({error}): make it readable") from error
        return [kind, constant(self.normalised(name) if isinstance(name, str) else name)]

    # ------------------------------------------------------------------------------------------------------ collecting

    def seen_string(self, value: str) -> str:
        """Note a string that may name a file; return it as it enters: places below the code's folder are relative."""
        entered = self.normalised(value)
        if 0 < len(value) <= _MAXIMUM_NAME and "\0" not in value and "\n" not in value:
            self.strings.add(value)
            self._entered[value] = entered
        return entered

    def find_package_files(self) -> None:
        """Note the files beside the code that it may read as data of its packages, by parts of their names."""
        words = {word for label in self.functions for word in self.nodes[label].get("names", ())}
        if not _DATA_READERS & (self.attributes | {word.rpartition(" ")[2] for word in words}):
            return
        folders = {os.path.dirname(f.__code__.co_filename) for f in self.functions.values()}  # noqa: PTH120
        roots = {modules.root_of(f.__globals__) for f in self.functions.values()} - {""}
        strings = {s for s in self.strings | self.attributes if not os.path.isabs(s)}  # noqa: PTH117
        for root in roots:
            folders |= {p for s in strings if os.path.isdir(p := os.path.join(root, *s.split(".")))}  # noqa: PTH112, PTH118
        for folder in sorted(folders):
            for name in sorted(strings):
                if os.path.isfile(path := os.path.join(folder, name)):  # noqa: PTH113, PTH118
                    self.strings.add(path)
                    self._entered[path] = name

    def relative(self, value: str) -> str:
        """Return a noted string as it entered."""
        return self._entered.get(value, value)

    def normalised(self, value: str) -> str:
        """Return a path below the folder that the code at hand is imported from as relative to it."""
        if os.sep not in value:
            return value
        for folder, mark in ((self.root, "<here>"), (os.path.dirname(self.root), "<here>/..")):  # noqa: PTH120
            if len(folder) > 1 and (value == folder or value.startswith(folder + os.sep)):
                return mark + value[len(folder) :]
        return value

    def used(self, module: str) -> Origin:
        """Note that something of a module is used; return whose it is."""
        origin = origin_of(module)
        if origin.kind == "installed":
            self.packages[origin.name] = counted_version(origin.version, self.versions)
        return origin

    def library(self, module: str, name: str) -> Json:
        """Return the encoding of something that a library holds under a name."""
        kind = self.used(module).kind
        if kind == "stdlib":
            module = public_module(module)
        self.makes_stages |= kind == "own" and name == "stage"
        return f"library {module}.{name}"

    def member(self, module: str, name: str, content: Json) -> None:
        """Note what entered of a user's module."""
        if self.used(module).kind == "user":
            self.members.setdefault(module, {})[name] = content

    @contextlib.contextmanager
    def inside(self, namespace: Mapping[str, Any]) -> Iterator[None]:
        """Resolve names and places as the module with this namespace does."""
        before = self.module_name, self.root
        self.module_name, self.root = str(namespace.get("__name__", "")), modules.root_of(namespace)
        try:
            yield
        finally:
            self.module_name, self.root = before


_KINDS: tuple[tuple[Any, Any], ...] = (
    (types.FunctionType, functions.function),
    (type, classes.class_),
    (types.ModuleType, modules.module),
    (tuple(functions.BUILTIN_KINDS), functions.builtin),
    (types.CodeType, functions.code),
    (os.PathLike, Walker._path_like),
)
