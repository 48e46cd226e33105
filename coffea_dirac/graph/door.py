"""The door for dask graphs: plans what a graph loads and computes, and tells the report of it."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from coffea_dirac.context import let
from coffea_dirac.errors import CorruptRecordError, StoreError
from coffea_dirac.graph import layers, nodes, tasks
from coffea_dirac.graph.collections import Asked, Planned, asked, groups, has_own_optimisations, optimise
from coffea_dirac.graph.doors import OPEN, SHUT
from coffea_dirac.graph.layers import Table
from coffea_dirac.graph.look_up import LookUp, Outside
from coffea_dirac.graph.nodes import Key
from coffea_dirac.graph.plan import Plan, Planner, Policy, inherited
from coffea_dirac.graph.prints import Prints
from coffea_dirac.graph.reasons import Functions, Reasons
from coffea_dirac.graph.rewrite import Rewriter
from coffea_dirac.graph.values import Values
from coffea_dirac.inputs.memo import IdentityMemo
from coffea_dirac.interfaces import Outcome, Row, Store, Versions
from coffea_dirac.packs.pack import SESSIONS, read_footer
from coffea_dirac.report import Report
from coffea_dirac.stages.explaining import Records
from coffea_dirac.stages.keeper import PACK_SECONDS

_logger = logging.getLogger(__name__)


class Cache(Records, Protocol):
    """What a `StageCache` does for graphs."""

    store: Store
    versions: Versions

    def read(self, rows: Sequence[Row]) -> dict[Row, bytes]: ...  # noqa: D102 - as StageCache has it
    def give_up(self, why: str) -> None: ...  # noqa: D102
    def noted(self, rows: Iterable[Row]) -> None: ...  # noqa: D102
    def warn_once(self, what: str, why: str) -> None: ...  # noqa: D102


@dataclass
class Planning:
    """One graph on its way through the door."""

    view: layers.View
    prints: Prints
    look_up: LookUp
    plan: Plan
    rewriter: Rewriter


_READ_AGAIN = {"reason": "new input", "where": "read again, with its report"}


@dataclass
class Graphs:
    """How graphs go through a cache: which results are kept, and where what is known of input files lies."""

    policy: Policy = "marked"
    memo_place: Path | None = None
    marked: set[Key] = field(default_factory=set)


class Door:
    """Graphs of one ``with StageCache(...)`` block, or of one `DiracClient`.

    Parameters
    ----------
    cache : Cache
        A cache whose session is open.
    session : str
        Its session, empty if nothing can be kept.
    report : Report
        Gets the outcomes.
    graphs : Graphs
        What is kept.

    Attributes
    ----------
    flush_workers : callable
        Whoever has workers has them write what they hold.
    held : callable
        Returns the keys under which a cluster holds something.
    """

    def __init__(self, cache: Cache, session: str, report: Report, graphs: Graphs) -> None:
        self._cache, self._session, self._report, self._graphs = cache, session, report, graphs
        memo = IdentityMemo()
        memo.attach(graphs.memo_place)
        self._values = Values(memo, count=cache.versions)
        self._reasons = Reasons(cache, self._values.ingredients)
        self._waiting: dict[str, int] = {}
        self._packs: set[str] = set()
        self._known: dict[Key, str] = {}
        self._plain: set[Key] = set()
        # Threads may use one client at once.
        self._lock = threading.RLock()
        self._is_used, self._asked_others_s = False, 0.0
        self.flush_workers: Callable[[], None] = lambda: None
        self.held: Callable[[], Container[Key]] = tuple

    # ---------------------------------------------------------------- planning

    def planned(
        self, collections: Iterable[Any], *, is_optimised: bool, options: Mapping[str, Any]
    ) -> list[Planned] | None:
        """Return stand-ins for collections, with a smaller graph; None, with one warning, if that cannot be made."""
        if is_optimised and has_own_optimisations(options):
            why = "dask is told to optimise it by a function that is not its own, which may change results"
            self._cache.warn_once("a dask graph is computed as it is", why)
            return None
        options = {name: value for name, value in options.items() if name != "optimizations"}
        with let(OPEN, SHUT), self._lock, _not_collecting():
            try:
                found = asked(collections, is_optimised=is_optimised)
                graph = layers.merged([one.graph for one in found])
                everything = list(dict.fromkeys(key for one in found for key in one.keys))
                planning = self._planning(graph, everything)
                parts = []
                for group in groups(found):
                    whole = layers.merged([one.graph for one in group])
                    wanted = list(dict.fromkeys(key for one in group for key in one.keys))
                    how = optimise(group, options) if is_optimised else None
                    parts += planning.rewriter.reduced(whole, wanted, how)
                return self._stand_ins(found, planning.rewriter.looked_at(parts, set(everything)), planning)
            except Exception as error:  # noqa: BLE001 - whatever a graph is made of, dask computes it as it is
                self._passes_through(error)
                return None

    def _stand_ins(self, found: list[Asked], parts: list[Table], planning: Planning) -> list[Planned]:
        small = layers.assembled(parts)
        self._tell(planning)
        return [Planned(one.collection, small, one.nested_keys) for one in found]

    def reduced(self, graph: Mapping[Key, Any], keys: Any) -> Any:
        """Return a smaller graph for `keys` of one that nobody optimises; itself if that cannot be made."""
        with let(OPEN, SHUT), self._lock, _not_collecting():
            try:
                wanted = list(dict.fromkeys(layers.flat([keys])))
                planning = self._planning(graph, wanted)
                rewriter = planning.rewriter
                small = layers.assembled(rewriter.looked_at(rewriter.reduced(graph, wanted, None), set(wanted)))
                self._tell(planning)
                return small
            except Exception as error:  # noqa: BLE001 - as in `planned`
                self._passes_through(error)
                return graph

    def note_values(self, values: Mapping[Key, Any]) -> None:
        """Take notice of values that a cluster has been given under keys."""
        with self._lock:
            self._note_values(values)

    def _note_values(self, values: Mapping[Key, Any]) -> None:
        view = layers.view({key: nodes.data(key, value) for key, value in values.items()})
        self._values.begin()
        prints = Prints(view, self._values)
        for key in values:
            digest = prints.of(key)
            self._known.pop(key, None)
            if digest is not None:
                self._known[key] = digest
                self._plain.add(key)

    def _know(self, key: Key, digest: str | None) -> None:
        """Note what a cluster will hold under a key: as long as it holds something there, it is that and stays that."""
        before = self._known.pop(key, None)
        if digest is not None and (digest == before or key not in self.held()):
            self._known[key] = digest

    def forget(self, keys: Iterable[Key]) -> None:
        """Take notice that a cluster computes something under keys that nobody looks at here."""
        for key in keys:
            self._known.pop(key, None)
            self._plain.discard(key)

    def _passes_through(self, error: Exception) -> None:
        self._known.clear()
        _logger.debug("a dask graph passes through", exc_info=error)
        self._cache.warn_once(
            f"a dask graph is computed as it is, without {self._cache!r}", f"{type(error).__name__}: {error}"
        )

    def _planning(self, graph: Any, wanted: Sequence[Key]) -> Planning:
        self.settle()
        self._is_used = True
        view, values, look_up = layers.view(graph), self._values, LookUp(self._cache)
        values.begin()
        values.prepare(layers.trees_read(view))
        prints = Prints(view, values, self._known)
        outside = Outside(prints, look_up, self._plain)
        plan = Planner(prints, outside, self._graphs.policy, self._graphs.marked).plan(wanted)
        gained = inherited(plan, view, outside.inputs())
        store = self._cache.store
        ignored = {os.path.realpath(name) for name in (*values.files, store.url.removeprefix("file://"))}
        place = tasks.Place(store, self._session, tuple(sorted(ignored)))
        self._plain.difference_update(wanted)
        for key in wanted:
            if not _is_held(view, key):
                self._know(key, plan.keeps.get(key) or _of_row(plan, key))
        return Planning(view, prints, look_up, plan, Rewriter(view, plan, place, Functions(prints), gained))

    # ---------------------------------------------------------------- telling

    def _tell(self, planning: Planning) -> None:
        plan, functions, report = planning.plan, planning.rewriter.functions, self._report
        for key, found in plan.loads.items():
            stage, seconds = str(found.row.info.get("stage", "")) or functions(key).name, _seconds(found.row)
            report.add(Outcome(stage, found.row.key, "loaded", None, seconds, work_items=0))
        own = {key: functions(key) for key in plan.keeps}
        reasons, unsound = self._reasons.of(plan, planning.prints, own), planning.look_up.reasons
        for key, digest in plan.keeps.items():
            self._waiting[digest] = len(report.outcomes)
            why = unsound.get(digest) or (_READ_AGAIN if key in plan.again else reasons[key])
            report.add(Outcome(own[key].name, digest, "computed", why, work_items=0))
        for key, why_not in plan.unknown.items():
            told = {"reason": "no fingerprint", "where": why_not}
            self._report.add(Outcome(layers.name_of_key(planning.view, key), "", "computed", told, work_items=0))
        if plan.unknown:
            self._cache.warn_once(
                "a result of a dask graph is computed and not kept", next(iter(plan.unknown.values()))
            )

    # ---------------------------------------------------------------- what was written

    def settle(self, *, is_last: bool = False) -> None:
        """Take notice of what was kept since the last time, here and, unless that was a moment ago, by workers."""
        if not self._is_used or not self._session:
            return
        asks_others = is_last or time.monotonic() - self._asked_others_s > PACK_SECONDS
        if asks_others:
            self.flush_workers()
        writer = tasks.writer_of(tasks.Place(self._cache.store, self._session))
        rows = writer.taken()
        self._packs.update(row.pack for row in rows)
        if writer.problem:
            self._cache.give_up(writer.problem)
        try:
            rows += self._rows_of_others() if asks_others else []
        except StoreError as error:
            self._cache.give_up(str(error))
        self._cache.noted(rows)
        self._tell_seconds(rows)
        for note in [str(row.info["note"]) for row in rows if row.key == tasks.NOTES]:
            self._report.note(note)
            self._cache.warn_once("a result of a dask graph is not kept", note)

    def _tell_seconds(self, rows: Iterable[Row]) -> None:
        """Add to what was told as computed how long it took."""
        outcomes = self._report.outcomes
        for row in rows:
            i = self._waiting.pop(row.key, -1)
            if 0 <= i < len(outcomes) and outcomes[i].fingerprint == row.key:
                outcomes[i] = replace(outcomes[i], seconds=_seconds(row))

    def _rows_of_others(self) -> list[Row]:
        rows = []
        self._asked_others_s = time.monotonic()
        for blob in self._cache.store.list(f"{SESSIONS}{self._session}/p/"):
            if blob.name not in self._packs:
                self._packs.add(blob.name)
                try:
                    table = read_footer(self._cache.store, blob.name)
                except CorruptRecordError:
                    continue
                rows += [table.row(i) for i in range(len(table))]
        return rows

    def leave(self) -> None:
        """Write what is left."""
        self.settle(is_last=True)
        tasks.close(tasks.Place(self._cache.store, self._session))


@contextmanager
def _not_collecting() -> Iterator[None]:
    """Let the collector of garbage rest: a plan makes very many objects and drops none, so it would look in vain."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


def _seconds(row: Row) -> float:
    return float(row.info.get("seconds", 0.0))


def _of_row(plan: Plan, key: Key) -> str | None:
    return plan.loads[key].row.key if key in plan.loads else None


def _is_held(view: layers.View, key: Key) -> bool:
    """Whether a graph has under a key what a cluster holds there already."""
    found = nodes.structure(view.node(key)) if key in view.tasks else None
    return isinstance(found, nodes.Ref) and found.key == key
