"""Stages under any executor: ``cache.wrap(processor)``."""

from __future__ import annotations

import os
import threading
import uuid
from typing import Any

from coffea.processor import ProcessorABC

from coffea_dirac.block import Cache
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.inputs.discovery import Window
from coffea_dirac.inputs.lake import read_here
from coffea_dirac.inputs.paths import files_named
from coffea_dirac.report import Report
from coffea_dirac.stages.explaining import Explainer
from coffea_dirac.stages.keeper import Keeper
from coffea_dirac.stages.nanoevents import Finder, Identities
from coffea_dirac.stages.reevaluation import evaluator_of
from coffea_dirac.stages.staged import ItemPlace, StagedProcessor
from coffea_dirac.stages.templates import Templates


class Wrapped(ProcessorABC):  # type: ignore[misc]
    """A processor whose stages go through a cache under any executor.

    Parameters
    ----------
    inner : ProcessorABC or callable
        The user's.
    cache : Cache
        Where results are kept; its URL travels, not what it has open.
    """

    wraps_for_stages = True

    def __init__(self, inner: Any, cache: Cache) -> None:
        if not callable(getattr(inner, "process", inner)):
            raise ConfigurationError(
                f"cache.wrap() takes a processor or a function of events, not {inner!r}: cache.wrap(Analysis())"
            )
        self.inner, self.cache = inner, cache

    def process(self, events: Any) -> Any:
        """Return what the inner processor makes of `events`, with results in place of handles."""
        here = _here(self.cache)
        source = here.finder.source(events, with_metadata=False)
        metadata = dict(events.metadata or {})
        info = {"dataset": str(metadata.get("dataset", "")), "file": str(metadata.get("filename", ""))}
        identity = source.identity if source is not None else f"unknown {uuid.uuid4()}"
        place = ItemPlace(identity, metadata, len(events), info, here.ignored(metadata))
        staged = StagedProcessor(
            self.inner,
            Window(place.ignored),
            place,
            here.templates,
            here.keeper,
            self.cache.report.note,
            evaluator=evaluator_of(self.cache.verification),
        )
        try:
            return staged.process(events)
        finally:
            here.settle(staged, self.cache.report)

    def postprocess(self, accumulator: Any) -> Any:
        """Return what the inner processor makes of the accumulator."""
        return self.inner.postprocess(accumulator) if isinstance(self.inner, ProcessorABC) else accumulator


class _Here:
    """What this process has open for wrapped processors of one store."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._explainer = cache, Explainer(cache)
        self.finder = Finder(Identities(), versions=cache.versions)
        self.templates = Templates(None, files_named, is_watching=True, versions=cache.versions)
        session = cache.begin()
        self.keeper = Keeper(cache.store if session else None, session, "wrapped", cache.index)

    def ignored(self, metadata: dict[str, Any]) -> list[str]:
        """Return what the code at hand reads without meaning to: the input and the store."""
        return [*read_here(str(metadata.get("filename", ""))), self._cache.store.url.removeprefix("file://")]

    def settle(self, staged: StagedProcessor, report: Report) -> None:
        """Write what one work item has computed, and report it."""
        self.keeper.flush()
        if self.keeper.problem:
            self._cache.give_up(self.keeper.problem)
        self._cache.noted(self.keeper.taken())
        report.verified += staged.verified
        for outcome in self._explainer.explained(staged.outcomes, self.templates.ingredients):
            report.add(outcome)


_open: dict[tuple[object, ...], _Here] = {}
_lock = threading.Lock()


def _here(cache: Cache) -> _Here:
    with _lock:
        name = cache.store.url, cache.versions, os.getpid()
        found = _open.get(name)
        if found is None:
            found = _open[name] = _Here(cache.twin())
        return found
