"""The graph that calls of stages make: each call known by what it is given, before anything is read."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from coffea_dirac.errors import FingerprintError, StageError
from coffea_dirac.fingerprint import describe, digest_file
from coffea_dirac.inputs.discovery import unrecorded
from coffea_dirac.inputs.files import File, vanished
from coffea_dirac.inputs.metadata import RecordingMetadata
from coffea_dirac.stages.arguments import Arguments, Finder, Source, fingerprint_of
from coffea_dirac.stages.handles import Handle
from coffea_dirac.stages.meaning import meaning_of
from coffea_dirac.stages.sources import factory_of

if TYPE_CHECKING:
    from coffea_dirac.stages.stage import Stage
    from coffea_dirac.stages.templates import Templates

_ATOMS = frozenset({type(None), bool, int, float, complex, bytes})
# Their content is code, or lies in a file that is named: it does not change within a run.
LOOKED_AT = (types.FunctionType, types.MethodType)
"""What they mean is looked at again when they are run: names around them may have been bound anew."""
_LASTING = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, types.ModuleType, os.PathLike)


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
        self.refused: StageError | None = None
        """The first error of a handle that was taken for its result."""
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
                raise StageError(
                    f"{stage.name}({name}=...): {value!r} belongs to another run, or to one that is over: call its "
                    "stage again in this one"
                )
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
        if type(value) is RecordingMetadata and value.is_untouched:
            # What of them the stage reads is noted then.
            found.parts.append("metadata of the work item;")
            return value
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
        if not isinstance(value, _LASTING) or isinstance(value, LOOKED_AT):
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
        meaning, held = meaning_of(value)
        known = templates.digests.get(meaning)
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
            templates.digests[meaning] = ((value, held), digest)
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
