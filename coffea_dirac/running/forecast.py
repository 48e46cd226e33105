"""What a run would load and compute, before it runs.

Work items are looked up by their keys.  Of those that miss ``process`` is called here, on a copy of the processor and
with a placeholder for the data, once for all that look the same to it (`symbolic`); the handles are looked up by the
rules of a run, and nothing is computed.
"""

from __future__ import annotations

import contextvars
import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from coffea_dirac.cache import StageCache
from coffea_dirac.calls import ProcessingCall, added_metadata, item_metadata
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.inputs.discovery import Window
from coffea_dirac.inputs.paths import files_named
from coffea_dirac.interfaces import Outcome
from coffea_dirac.planning import Forecast, Question
from coffea_dirac.running.plan import Plan, Run, make_plan, metadata_of, stage_name
from coffea_dirac.stages.evaluation import Evaluator, Result
from coffea_dirac.stages.explaining import Explainer
from coffea_dirac.stages.handles import Handle
from coffea_dirac.stages.keeper import Keeper, Kept
from coffea_dirac.stages.place import Place
from coffea_dirac.stages.sources import DataNeeded
from coffea_dirac.stages.staged import ItemPlace, StagedProcessor, source_identity
from coffea_dirac.stages.symbolic import Shape, Shapes
from coffea_dirac.stages.templates import Templates
from coffea_dirac.worker.task import reading_of

DEADLINE_S = 60.0
"""How long user code may take here, all together."""


def forecast(run: Run, call: ProcessingCall, items: list[Any], question: Question) -> Forecast:
    """Return what processing `items` would load and compute; nothing is written, and no worker started.

    Raises
    ------
    ConfigurationError
        There is no cache.
    """
    asked = question.cache or run.cache
    if asked is None:
        raise ConfigurationError("there is no cache to look into: DiracExecutor(cache=...) names one")
    found = Forecast()
    run.cache = cache = asked.twin()
    plan = make_plan(run, call, items)
    name = stage_name(call)
    for position, key in enumerate(plan.keys):
        if position in plan.rows:
            found.add(Outcome(name, key, "loaded", seconds=_seconds_of(plan.rows[position])))
        else:
            found.add(Outcome(name, key, "computed", plan.reasons.get(position, {"reason": "not kept"})))
    missing = [i for i in range(len(items)) if i not in plan.rows]
    has_stages = plan.template is not None and plan.template.may_have_handles
    if missing and plan.not_kept:
        found.note(plan.not_kept)
    if missing and has_stages:
        _look_up_stages(found, _Symbolic(cache, call, plan, found.note), missing, is_on=question.templates)
    _estimate(found, cache, name, [] if has_stages else [items[i] for i in missing])
    return found


def _seconds_of(kept: Kept) -> float:
    """Return what a record took when it was computed, seconds."""
    return float(kept.info.get("seconds", 0.0))


def _look_up_stages(found: Forecast, symbolic: _Symbolic, missing: Sequence[int], *, is_on: bool) -> None:
    if not is_on:
        found.note("templates=False: stages are looked up at the workers")
    done = symbolic.of_all(missing, DEADLINE_S) if is_on else []
    found.not_looked_up = len(missing) - len(done)
    for outcome in symbolic.explained(chain.from_iterable(done)):
        found.add(outcome)


def _estimate(found: Forecast, cache: StageCache, name: str, whole: Sequence[Any]) -> None:
    """Enter the seconds to spend: of stages by the mean of their records, of whole work items by their entries."""
    wanted = {o.stage for o in found.computed if not o.work_items} | ({name} if whole else set())
    earlier = {
        stage: [row for row in rows if "merged" not in row.info] for stage, rows in cache.earlier(wanted).items()
    }
    mean_s = {stage: sum(map(_seconds_of, rows)) / len(rows) for stage, rows in earlier.items() if rows}
    found.seconds_to_spend = sum(mean_s.get(o.stage, 0.0) for o in found.computed if not o.work_items)
    if whole and (rows := earlier[name]):
        entries = sum(int(row.info.get("entries", 0)) for row in rows)
        found.seconds_to_spend += sum(map(_seconds_of, rows)) / max(entries, 1) * sum(map(len, whole))
    found.not_estimated = sorted(stage for stage, rows in earlier.items() if not rows)


# ------------------------------------------------------------------------------------------------ process, without data


class _Lookup(Evaluator):
    """Pulls handles as a run does, and notes what would be loaded and computed instead of doing it."""

    def __init__(self, known: set[str], keeper: Keeper, place: Place, note: Callable[[str], None]) -> None:
        super().__init__(keeper, place, note)
        self._known = known
        self.roots: list[Handle] = []

    def pull(self, handles: Iterable[Handle]) -> list[Result]:
        """Look handles up."""
        self.roots += (pulled := list(handles))
        return super().pull(pulled)

    def _find(self, handle: Handle) -> bool:
        is_found = super()._find(handle)
        if is_found and (kept := self._results[handle.fingerprint].kept) is not None:
            self.outcomes.append(self._outcome(handle, "loaded", _seconds_of(kept)))
        return is_found

    def _cut(self, handle: Handle) -> bool:
        # Known only when the stages above have run.
        return False

    def _compute(self, handle: Handle) -> None:
        is_known = handle.fingerprint in self._known and handle.stage.keep
        self._known.add(handle.fingerprint)
        self._results[handle.fingerprint] = Result(handle.fingerprint, frozenset())
        if handle.stage.is_told:
            self.outcomes.append(self._outcome(handle, "loaded" if is_known else "computed"))

    def fetch(self, handles: Iterable[Handle]) -> None:
        """Read nothing."""

    def value(self, handle: Handle) -> Any:
        """Ask for data: ``process`` wants a result to go on."""
        raise DataNeeded(".compute()")

    def fresh(self, handle: Handle) -> Any:
        """Return nothing in place of a result."""
        return None


class _Symbolic:
    """Calls ``process`` without data, once for work items that look the same to it."""

    def __init__(self, cache: StageCache, call: ProcessingCall, plan: Plan, note: Callable[[str], None]) -> None:
        self._cache, self._call, self._plan, self._note = cache, call, plan, note
        self._known = set[str]()
        self._shapes, self._digests = Shapes(), dict[tuple[Any, str], str]()
        self._templates = Templates(
            plan.template.sources if plan.template else None, files_named, versions=cache.versions
        )

    def of_all(self, positions: Sequence[int], deadline_s: float) -> list[list[Outcome]]:
        """Return the outcomes of work items, one list for each, until user code has taken too long."""
        done: list[list[Outcome]] = []
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
            self._note(
                f"process() took more than {deadline_s:.0f} s here, without data: what is left is looked up at the "
                "workers. Probably it does its work outside of stages."
            )
        # What is added later does not count.
        return list(done)

    def explained(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Return outcomes with their reasons."""
        return Explainer(self._cache).explained(outcomes, self._templates.ingredients)

    def _work(self, positions: Sequence[int], done: list[list[Outcome]], is_late: threading.Event) -> None:
        try:
            # What process() does to the processor happens to a copy.
            processor = copy.deepcopy(self._call.processor)
            reading, index = reading_of(self._call, versions=self._cache.versions), self._cache.index()
        except Exception as error:  # noqa: BLE001 - said in a note; the run itself does without this
            self._give_up(error)
            return
        for position in positions:
            if is_late.is_set():
                return
            try:
                outcomes = self._one(processor, reading, lambda: index, position)
            except Exception as error:  # noqa: BLE001 - likewise; the run itself says where and why
                self._give_up(error)
            else:
                if outcomes is not None:
                    done.append(outcomes)

    def _give_up(self, error: Exception) -> None:
        self._note(f"stages are looked up at the workers: {type(error).__name__}: {error}")

    def _one(self, processor: Any, reading: str, index: Callable[[], Any], position: int) -> list[Outcome] | None:
        """Return the outcomes of one work item, None if ``process`` asks for data."""
        item = self._plan.items[position]
        identity = self._plan.identities.get(item.filename + "\0" + item.treename)
        if identity is None:
            return None
        source = source_identity(reading, identity.digest, item)
        metadata = metadata_of(item, self._digests)
        keeper = Keeper(self._cache.store, "", "plan", index)
        shape = self._shapes.find(item.dataset, metadata, len(item))
        if shape is not None:
            lookup = _Lookup(self._known, keeper, Place(metadata), lambda text: None)
            lookup.pull(shape.roots_of(source))
            return lookup.outcomes
        lookups: list[_Lookup] = []

        def evaluator(*arguments: Any) -> _Lookup:
            lookups.append(_Lookup(self._known, *arguments))
            return lookups[0]

        of_schema = added_metadata(self._call.arguments.get("schema"))
        place = ItemPlace(source, item_metadata(item), len(item), {}, [], of_schema=of_schema)
        called = StagedProcessor(
            processor, Window([]), place, self._templates, keeper, lambda text: None, evaluator=evaluator
        )
        does, _ = called.process_without_data(_no_data)
        if does:
            n_entries = len(item) if called.counts_entries else None
            self._shapes.add(item.dataset, Shape(source, called.reads, n_entries, tuple(lookups[0].roots)))
            return called.outcomes
        self._note("process() asks for data outside of stages: stages are looked up at the workers")
        return None


def _no_data() -> Any:
    raise DataNeeded("nothing is read for a plan")
