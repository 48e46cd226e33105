"""One work item of a processor with stages: its handles are collected, then what it returns is pulled.

``process`` is called twice at most: with a placeholder that has metadata but no data, so that nothing is read if all
that is returned is kept; and, if it asked for data outside of a stage, with the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coffea.processor import ProcessorABC

from coffea_dirac.context import let
from coffea_dirac.errors import FingerprintError
from coffea_dirac.inputs.discovery import Window, recording
from coffea_dirac.inputs.metadata import RecordingMetadata, metadata_digest
from coffea_dirac.interfaces import Json, Outcome
from coffea_dirac.stages.calls import Graph
from coffea_dirac.stages.evaluation import Evaluator
from coffea_dirac.stages.handles import ACTIVE, handles_in, replaced
from coffea_dirac.stages.keeper import Keeper
from coffea_dirac.stages.place import Place, runs_all
from coffea_dirac.stages.sources import DataNeeded, ItemSource, Placeholder, was_asked, was_counted
from coffea_dirac.stages.templates import Templates


@dataclass(frozen=True)
class ItemPlace:
    """What stages of one work item know of it.

    Parameters
    ----------
    source : str
        The identity of its data, as it enters fingerprints.
    metadata : dict
        What ``process`` finds as ``events.metadata``.
    n_entries : int
        Its entries.
    info : mapping
        Small facts for records.
    ignored : list of str
        Files and folders whose reading does not count.
    can_run : callable
        Resources -> whether they are here.
    of_schema : dict
        What the schema adds to the metadata.
    """

    source: str
    metadata: dict[str, Any]
    n_entries: int
    info: Mapping[str, Json]
    ignored: list[str]
    can_run: Callable[[Mapping[str, float]], bool] = runs_all
    of_schema: Mapping[str, Any] = field(default_factory=dict)


class StagedProcessor(ProcessorABC):  # type: ignore[misc]
    """The user's processor, run inside a recording window, with a graph for its stages.

    Parameters
    ----------
    inner : ProcessorABC or callable
        The user's.
    window : Window
        Gets all that was discovered, in stages too.
    place : ItemPlace
        Which work item it is.
    templates : Templates
        Of the stages.
    keeper : Keeper
        Where results of stages are.
    note : callable
        Takes a text for the user.
    evaluator : callable
        Makes what pulls the handles, of the keeper, a `Place` and `note`.
    is_encoded : bool
        What ``process`` returns is encoded next: large results stand in it as the payloads that they are kept as.
    """

    def __init__(
        self,
        inner: Any,
        window: Window,
        place: ItemPlace,
        templates: Templates,
        keeper: Keeper,
        note: Callable[[str], None],
        *,
        evaluator: Callable[[Keeper, Place, Callable[[str], None]], Evaluator] = Evaluator,
        is_encoded: bool = False,
    ) -> None:
        self._inner, self._window, self._place = inner, window, place
        self.columns: Callable[[], Iterable[str]] = tuple
        where = Place(self._digest, place.info, place.ignored, lambda: self.columns(), place.can_run)
        self.source = ItemSource(place.source, self._no_data)
        self._evaluator = evaluator(keeper, where, note)
        self._graph = Graph(templates, self._evaluator.value, self.source)
        self._result_of = self._evaluator.part if is_encoded else self._evaluator.fresh
        self.reads: dict[str, str] = {}
        self.counts_entries = False

    @property
    def outcomes(self) -> list[Outcome]:
        """What was loaded, computed and cut."""
        return self._evaluator.outcomes

    @property
    def verified(self) -> list[str]:
        """What was computed again and came out the same."""
        return self._evaluator.verified

    @property
    def read_columns(self) -> frozenset[str]:
        """The columns that results came from, also those of results that were loaded."""
        return frozenset(self.columns()) | self._evaluator.all_columns()

    def process(self, events: Any) -> Any:
        """Return what the user's processor makes of `events`, with results in place of handles."""
        self.dress(events)
        self.source.take(events)
        return self._pulled(self._called(events))

    def process_without_data(self, opened: Callable[[], Any]) -> tuple[bool, Any]:
        """Return whether ``process`` does without data outside of stages, and then what it returns.

        Parameters
        ----------
        opened : callable
            Opens the events, once a stage is run on them.
        """
        place = self._place
        metadata = RecordingMetadata({**place.metadata, **place.of_schema}, self._window, place.of_schema)
        placeholder: Any = Placeholder(metadata, place.n_entries)
        self._graph.metadata = placeholder.metadata
        self.source.stands_for(placeholder)
        self.source.opens_by(lambda: self.dress(opened()))
        try:
            out = self._called(placeholder)
            self.reads = dict(self._window.metadata)
            self.counts_entries = was_counted(placeholder)
        except DataNeeded:
            return False, None
        except Exception:
            if was_asked(placeholder):
                return False, None
            raise
        return (False, None) if was_asked(placeholder) else (True, self._pulled(out))

    def dress(self, events: Any) -> Any:
        """Let `events` record which metadata are read, and return it."""
        found = events.metadata or {}
        # In the order of the placeholder's.
        order = [*(name for name in self._place.metadata if name in found), *found]
        of_schema = found.keys() - self._place.metadata.keys()
        self._graph.metadata = RecordingMetadata({name: found[name] for name in order}, self._window, of_schema)
        events.layout._parameters["metadata"] = self._graph.metadata
        return events

    def postprocess(self, accumulator: Any) -> Any:
        """Return the accumulator as it is."""
        return accumulator

    def _called(self, events: Any) -> Any:
        with let(ACTIVE, self._graph), recording(self._window):
            out = self._inner.process(events) if isinstance(self._inner, ProcessorABC) else self._inner(events)
            # Returned as they are, all of them are read.
            return replaced(out, RecordingMetadata.copy, RecordingMetadata)

    def _pulled(self, out: Any) -> Any:
        try:
            if self._graph.refused is not None:
                raise self._graph.refused
            if not len(self._graph):
                return out
            returned = list(handles_in(out))
            self._evaluator.pull([*returned, *self._graph.wanted])
            self._evaluator.fetch(returned)
            out = replaced(out, self._result_of)
            self._discovered()
            return out
        finally:
            self._graph.is_over = True

    def _discovered(self) -> None:
        """Enter what was discovered while stages were computed, now or earlier: it determines the whole too."""
        for kind, name, digest in self._evaluator.all_inputs():
            if kind == "metadata":
                self._window.metadata.setdefault(name, digest)
            elif kind == "file":
                self._window.files.setdefault(name, digest)
            else:
                self._window.written.add(name)

    def _digest(self, name: str) -> str:
        try:
            return metadata_digest(self._place.metadata, name)
        except FingerprintError:
            return "unfingerprintable"

    def _no_data(self) -> Any:
        raise AssertionError("events are taken or opened before they are pulled")


def source_identity(reading: str, identity: str, item: Any) -> str:
    """Return what identifies the data of a work item as stages see it.

    Parameters
    ----------
    reading : str
        Digest of schema, reader options and versions.
    identity : str
        That of the file.
    item : WorkItem
        Tree, entries and what is preloaded.
    """
    preload = sorted(getattr(item, "preload", None) or ())
    parts = ("source 1", reading, identity, item.treename, str(item.entrystart), str(item.entrystop), *preload)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
