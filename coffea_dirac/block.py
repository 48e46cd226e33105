"""Stages and graphs outside of a Runner: ``with StageCache(...)``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from coffea_dirac import packs
from coffea_dirac.graph.door import Door, Graphs
from coffea_dirac.graph.doors import OPEN
from coffea_dirac.graph.seam import close_door, open_door
from coffea_dirac.inputs.paths import files_named
from coffea_dirac.interfaces import Row, Store, Versions
from coffea_dirac.report import Report
from coffea_dirac.stages.calls import Graph
from coffea_dirac.stages.explaining import Explainer, Records
from coffea_dirac.stages.handles import ACTIVE, Handle
from coffea_dirac.stages.keeper import Keeper
from coffea_dirac.stages.nanoevents import Finder, Identities
from coffea_dirac.stages.place import Place
from coffea_dirac.stages.reevaluation import evaluator_of
from coffea_dirac.stages.templates import Templates
from coffea_dirac.stages.verifying import Verification


class Cache(Records, Protocol):
    """What a `StageCache` does for stages outside of a Runner."""

    store: Store
    report: Report
    versions: Versions
    verification: Verification

    def begin(self) -> str: ...  # noqa: D102 - as StageCache has it
    def end(self) -> None: ...  # noqa: D102
    def index(self) -> packs.Index: ...  # noqa: D102
    def read(self, rows: Sequence[Row]) -> dict[Row, bytes]: ...  # noqa: D102
    def give_up(self, why: str) -> None: ...  # noqa: D102
    def noted(self, rows: Iterable[Row]) -> None: ...  # noqa: D102
    def warn_once(self, what: str, why: str) -> None: ...  # noqa: D102
    def twin(self) -> Cache: ...  # noqa: D102


class Block:
    """One ``with StageCache(...)`` block.

    Parameters
    ----------
    cache : Cache
        A cache of its own, whose session this is.
    report : Report
        Gets the outcomes.
    graphs : Graphs
        How dask graphs go through the cache.
    """

    def __init__(self, cache: Cache, report: Report, graphs: Graphs) -> None:
        self._cache, self.report, self._graphs = cache, report, graphs
        self._explainer = Explainer(cache)
        self._token: Any = None

    def enter(self) -> None:
        """Open a session, and let calls of stages go into a graph."""
        cache = self._cache
        session = cache.begin()
        self._keeper = Keeper(cache.store if session else None, session, "block", cache.index)
        self._evaluator = evaluator_of(cache.verification)(self._keeper, Place(), self.report.note)
        self._templates = Templates(None, files_named, is_watching=True, versions=cache.versions)
        self._graph = Graph(self._templates, self._value, finder=Finder(Identities(), versions=cache.versions))
        self._token = ACTIVE.set(self._graph)
        self._door = Door(cache, session, self.report, self._graphs)
        self._door_token = OPEN.set(self._door)
        open_door()

    def leave(self, *, failed: bool = False) -> None:
        """Write what is left, and close the session; after an error nothing more is computed."""
        close_door()
        OPEN.reset(self._door_token)
        ACTIVE.reset(self._token)
        try:
            if not failed:
                self._evaluator.pull(self._graph.wanted)
        finally:
            self._graph.is_over = True
            self._settle()
            self._door.leave()
            self._cache.end()

    def _value(self, handle: Handle) -> Any:
        try:
            return self._evaluator.fresh(handle)
        finally:
            self._settle()

    def _settle(self) -> None:
        """Write what was computed, and report it."""
        self._keeper.flush()
        if self._keeper.problem:
            self._cache.give_up(self._keeper.problem)
        self._cache.noted(self._keeper.taken())
        outcomes, self._evaluator.outcomes = self._evaluator.outcomes, []
        verified, self._evaluator.verified = self._evaluator.verified, []
        self.report.verified += verified
        for outcome in self._explainer.explained(outcomes, self._templates.ingredients):
            self.report.add(outcome)
