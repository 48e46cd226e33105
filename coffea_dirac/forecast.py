"""What a run would load and compute, before it runs.

Work items are looked up by their keys.  Of those that miss ``process`` is called here, on a copy of the processor and
with a placeholder for the data, and its handles are looked up by the rules of a run: only, nothing is computed.
"""

from __future__ import annotations

import contextvars
import copy
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from coffea_dirac.cache import StageCache
from coffea_dirac.calls import ProcessingCall, item_metadata
from coffea_dirac.discovery import Window, files_named
from coffea_dirac.errors import ConfigurationError, StoreError
from coffea_dirac.evaluation import Evaluator, Result
from coffea_dirac.handles import Handle, handles_in
from coffea_dirac.interfaces import Outcome
from coffea_dirac.keeper import Keeper
from coffea_dirac.plan import Plan, Run, make_plan, stage_name
from coffea_dirac.planning import Forecast, Question
from coffea_dirac.sources import DataNeeded
from coffea_dirac.staged import ItemPlace, StagedProcessor, source_identity
from coffea_dirac.stages import Templates
from coffea_dirac.task import reading_of

DEADLINE_S = 60.0
"""How long user code may take here, all together."""


def forecast(run: Run, call: ProcessingCall, items: list[Any], question: Question) -> Forecast:
    """Return what processing `items` would load and compute; nothing is written, and no worker started.

    Raises
    ------
    ConfigurationError
        There is no cache.
    """
    cache = StageCache(question.store) if question.store is not None else run.cache.twin() if run.cache else None
    if cache is None:
        raise ConfigurationError("there is no cache to look into: DiracExecutor(cache=...) names one")
    found = Forecast()
    run.cache = cache
    plan = make_plan(run, call, items)
    name = stage_name(call)
    for position, key in enumerate(plan.keys):
        if position in plan.rows:
            found.add(Outcome(name, key, "loaded"))
            found.seconds_saved += float(plan.rows[position].info.get("seconds", 0.0))
        else:
            found.add(Outcome(name, key, "computed", plan.reasons.get(position, {"reason": "not kept"})))
    missing = [i for i in range(len(items)) if i not in plan.rows]
    has_stages = plan.template is not None and bool(plan.template.stages)
    if missing and plan.not_kept:
        found.note(plan.not_kept)
    if missing and has_stages:
        _look_up_stages(found, _Symbolic(cache, call, plan), missing, is_on=question.templates)
    _estimate(found, cache, name, [] if has_stages else [items[i] for i in missing])
    return found


def _look_up_stages(found: Forecast, symbolic: _Symbolic, missing: Sequence[int], *, is_on: bool) -> None:
    done = symbolic.of_all(missing, DEADLINE_S) if is_on else 0
    found.not_looked_up = len(missing) - done
    if not is_on:
        found.note("templates=False: stages are looked up at the workers")
    for text in symbolic.notes:
        found.note(text)
    found.seconds_saved += symbolic.seconds_saved
    for outcome in symbolic.explained():
        found.add(outcome)


def _estimate(found: Forecast, cache: StageCache, name: str, whole: Sequence[Any]) -> None:
    """Enter the seconds to spend: of stages by the mean of their records, of whole work items by their entries."""
    wanted = {o.stage for o in found.computed if not o.work_items} | ({name} if whole else set())
    seconds, records, entries = defaultdict[str, float](float), defaultdict[str, int](int), 0
    try:
        for row in cache.index() if wanted else ():
            of = str(row.info.get("stage", ""))
            if of in wanted and "seconds" in row.info:
                seconds[of] += float(row.info["seconds"])
                records[of] += 1
                entries += int(row.info.get("entries", 0)) if of == name else 0
    except StoreError as error:
        cache.give_up(str(error))
    for outcome in found.computed:
        if not outcome.work_items and records[outcome.stage]:
            found.seconds_to_spend += seconds[outcome.stage] / records[outcome.stage]
    if whole and entries:
        found.seconds_to_spend += seconds[name] / entries * sum(map(len, whole))
    found.not_estimated = sorted(of for of in wanted if not records[of])


# ------------------------------------------------------------------------------------------------ process, without data


class _Lookup(Evaluator):
    """Pulls handles as a run does, and notes what would be computed instead of doing it."""

    known: set[str]

    def _cut(self, handle: Handle) -> bool:
        # Known only when the stages above have run.
        return False

    def _compute(self, handle: Handle) -> None:
        is_known = handle.fingerprint in self.known and handle.stage.keep
        self.known.add(handle.fingerprint)
        self._results[handle.fingerprint] = Result(handle.fingerprint, frozenset())
        self.outcomes.append(self._outcome(handle, "loaded" if is_known else "computed"))

    def value(self, handle: Handle) -> Any:
        """Ask for data: ``process`` wants a result to go on."""
        raise DataNeeded(".compute()")

    def loaded(self) -> Iterable[tuple[str, float]]:
        """Yield name and seconds of the records that would be loaded."""
        for result in self._results.values():
            if result.kept is not None:
                yield str(result.kept.info.get("stage", "")), float(result.kept.info.get("seconds", 0.0))


class _Called(StagedProcessor):
    """The user's processor, whose handles are looked up only."""

    evaluator_class = _Lookup

    def _pulled(self, out: Any) -> Any:
        try:
            self._evaluator.pull(handles_in(out))
        finally:
            self._graph.is_over = True


class _Symbolic:
    """Calls ``process`` without data, for one work item after the other."""

    def __init__(self, cache: StageCache, call: ProcessingCall, plan: Plan) -> None:
        self._cache, self._call, self._plan = cache, call, plan
        self.notes: list[str] = []
        self.outcomes: list[Outcome] = []
        self.seconds_saved = 0.0
        self._known = set[str]()
        self._templates = Templates(plan.template.sources if plan.template else None, files_named)

    def of_all(self, positions: Sequence[int], deadline_s: float) -> int:
        """Return of how many work items the stages were looked up, until user code has taken too long."""
        done: list[bool] = []
        is_late = threading.Event()
        context = contextvars.copy_context()
        # A thread that hangs in user code does not keep this process from ending.
        thread = threading.Thread(
            target=context.run, args=(self._work, positions, done, is_late), name="coffea-dirac-plan", daemon=True
        )
        thread.start()
        thread.join(deadline_s)
        is_late.set()
        if thread.is_alive():
            self.notes.append(
                f"process() took more than {deadline_s:.0f} s here, without data: what is left is looked up at the "
                "workers. Probably it does its work outside of stages."
            )
        return sum(done)

    def explained(self) -> list[Outcome]:
        """Return the outcomes with their reasons."""
        return self._cache.explained(list(self.outcomes), self._templates.ingredients)

    def _work(self, positions: Sequence[int], done: list[bool], is_late: threading.Event) -> None:
        try:
            # What process() does to the processor happens to a copy.
            processor = copy.deepcopy(self._call.processor)
            reading, index = reading_of(self._call), self._cache.index()
        except Exception as error:  # noqa: BLE001 - said in a note; the run itself does without this
            self._give_up(error)
            return
        for position in positions:
            if is_late.is_set():
                return
            try:
                done.append(self._one(processor, reading, lambda: index, position))
            except Exception as error:  # noqa: BLE001 - likewise; the run itself says where and why
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        text = f"stages are looked up at the workers: {type(error).__name__}: {error}"
        if text not in self.notes:
            self.notes.append(text)

    def _one(self, processor: Any, reading: str, index: Callable[[], Any], position: int) -> bool:
        item = self._plan.items[position]
        identity = self._plan.identities.get(item.filename + "\0" + item.treename)
        if identity is None:
            return False
        source = source_identity(
            reading, identity.digest, item.treename, item.entrystart, item.entrystop, getattr(item, "preload", None)
        )
        place = ItemPlace(source, item_metadata(item), len(item), {}, [])
        keeper = Keeper(self._cache.store, "", "plan", index)
        called = _Called(processor, Window([]), place, self._templates, keeper, lambda text: None)
        lookup: _Lookup = called._evaluator  # type: ignore[assignment]
        lookup.known = self._known
        does, _ = called.process_without_data(_no_data)
        if not does:
            text = "process() asks for data outside of stages: stages are looked up at the workers"
            if text not in self.notes:
                self.notes.append(text)
            return False
        self.outcomes += lookup.outcomes
        for name, seconds in lookup.loaded():
            self.outcomes.append(Outcome(name, "", "loaded", work_items=0))
            self.seconds_saved += seconds
        return True


def _no_data() -> Any:
    raise DataNeeded("nothing is read for a plan")
