"""Computing in one run: which work items go to workers next, and what comes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coffea_dirac import packs
from coffea_dirac.errors import CoffeaDiracError, StoreError, VerificationError, chain
from coffea_dirac.inputs import lake
from coffea_dirac.interfaces import Outcome
from coffea_dirac.ledger import Found
from coffea_dirac.redact import without_secrets
from coffea_dirac.report import Report
from coffea_dirac.running.blame import Blame
from coffea_dirac.running.call import Call, Lost
from coffea_dirac.running.dispatch import NOWHERE, Offer, Pending, Triple
from coffea_dirac.running.halves import Halves
from coffea_dirac.running.lanes import Lanes
from coffea_dirac.running.merging import Merging
from coffea_dirac.running.messages import bad_worker, blocked_error, doubtful_error, processing_error, worker_error
from coffea_dirac.running.plan import Plan, Run
from coffea_dirac.running.telling import Telling
from coffea_dirac.running.trust import Trust
from coffea_dirac.stages.resources import Resources
from coffea_dirac.worker.shelf import Receipt, finished
from coffea_dirac.worker.task import Task
from coffea_dirac.worker.work import run_bundle

logger = logging.getLogger(__name__)

# Of a worker that used more than this part of its memory when it was last heard of, memory is the probable cause.
FULL = 0.8
# So many bytes of results may come back with one bundle.
TRAVEL_BYTES = 16 << 20
# A bundle that takes so many times what it should, and so much more, goes to another worker too.
LATE, LATE_S = 3.0, 5.0


@dataclass(eq=False)
class Bundle:
    """Work items that a worker has; `is_alone` says that nothing else was in flight, `n_copies` how often it went out.

    `since_s` is when it went out first.
    """

    name: str
    triples: Sequence[Triple]
    is_alone: bool = False
    since_s: float = field(default_factory=time.monotonic)
    n_copies: int = 0


class Computing:
    """The work items of one run that have no result yet.

    Parameters
    ----------
    run : Run
        What the call works with.
    plan : Plan
        Work items, keys and reasons.
    merging : Merging
        Where results go.
    task : Task
        What workers need.
    report : Report
        Gets an outcome for each work item that is computed.
    advance : callable
        Moves the bar by so many work items.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        merging: Merging,
        task: Task,
        report: Report,
        advance: Callable[[int], None],
    ) -> None:
        self._run, self._plan, self._merging, self._task, self._report = run, plan, merging, task, report
        self._advance = advance
        self.errors: list[CoffeaDiracError] = []
        self.waiting: set[int] = set()
        self.metrics: dict[str, Any] = {"bytesread": 0, "processtime": 0.0}
        self._pending = Pending()
        self.trust = Trust()
        self._to_be_alone: list[Triple] = []
        stages = plan.template.stages if plan.template is not None else ()
        self.lanes = Lanes(stage.resources for stage in stages)
        self._blame = Blame()
        self._last_lost = Lost(0, "")
        self._spent_s, self._n_spent, self._travelled_bytes = 0.0, 0, 0
        self._n_bundles = 0
        self._flying: dict[Bundle, Call] = {}
        self._counted: set[int] = set()
        self.halves = Halves(plan.items)
        self.telling = Telling(run, plan, task, report)

    def add(self, positions: Sequence[int]) -> None:
        """Take on work items; only the first ones are put together by file."""
        triples = [(i, self._plan.items[i], self._plan.keys[i]) for i in positions]
        self.waiting.update(positions)
        if self._n_bundles or self._pending:
            for triple in triples:
                self._queue(triple, is_again=True)
        else:
            near = self._task.lake[1]
            self._pending = Pending(triples, sites_of=lambda item: lake.sites_of(item.filename) if near else NOWHERE)

    # ---------------------------------------------------------------- what goes out

    @property
    def is_last(self) -> bool:
        """Whether no work item waits or is at a worker."""
        return not self._pending and not self._flying and not self._to_be_alone and not self.lanes

    def waiting_for(self) -> list[Resources]:
        """Return what work items wait for that need more than an ordinary worker has."""
        alone = (self.lanes.needs(triple[0]).resources for triple in self._to_be_alone)
        return list(dict.fromkeys([*self.lanes.waiting(), *filter(None, alone)]))

    def next_call(self, offer: Offer) -> Call | None:
        """Return the next bundle for workers, None if there is none now; without slots there are no such workers."""
        if not offer.slots:
            self._give_up(offer.resources)
            return None
        per_item = self._spent_s / self._n_spent if self._n_spent else None
        if offer.resources and (triples := self.lanes.take(offer, seconds_per_item=per_item)):
            return self._call(triples)
        # Results that are not kept travel here together with those of their bundle.
        at_most = int(TRAVEL_BYTES * self._n_spent / self._travelled_bytes) if self._travelled_bytes else None
        if not offer.resources and (triples := self._pending.take(offer, seconds_per_item=per_item, at_most=at_most)):
            return self._call(triples)
        while offer.is_idle and (triple := self._next_alone(offer.resources)):
            if not self._blame.is_to_blame(triple[0]):
                return self._call([triple], is_alone=True)
            self._accuse(triple)
        return self._copy(per_item) if offer.is_free and offer.has_peers and not offer.resources else None

    def _copy(self, per_item: float | None) -> Call | None:
        """Return what takes far too long once more, for a worker that has nothing to do; what is done first counts."""
        if per_item is None:
            return None
        now = time.monotonic()

        def lateness(bundle: Bundle) -> float:
            due_s = (LATE * per_item * len(bundle.triples) + LATE_S) * (1 + bundle.n_copies)
            return 0.0 if bundle.is_alone else now - bundle.since_s - due_s

        latest = max(self._flying, key=lateness, default=None)
        if latest is None or lateness(latest) <= 0:
            return None
        latest.n_copies += 1
        call = self._flying[latest]
        return replace(call, copy_of=call)

    def _next_alone(self, resources: Resources) -> Triple | None:
        """Those that never died alone come first: when they come back, the others have nobody else to accuse."""
        fitting = [triple for triple in self._to_be_alone if self.lanes.needs(triple[0]).resources == resources]
        chosen = min(fitting, key=lambda triple: triple[0] in self._blame.died_alone, default=None)
        if chosen is not None:
            self._to_be_alone.remove(chosen)
        return chosen

    def _give_up(self, resources: Resources) -> None:
        """Let the work items fail that wait for what no worker has: all else is done."""
        triples = self.lanes.take_all(resources)
        while triple := self._next_alone(resources):
            triples.append(triple)
        positions = [triple[0] for triple in triples]
        error = blocked_error(self.lanes.why(positions), resources, len(positions))
        for position in positions:
            self._fail(position, error)

    def _call(self, triples: list[Triple], *, is_alone: bool = False) -> Call:
        bundle = Bundle(f"b{self._n_bundles}", triples, is_alone)
        self._n_bundles += 1
        # All that goes together has the same needs.
        grant = self.lanes.needs(triples[0][0])
        arguments = (bundle.name, triples, grant, self.lanes.rows(triples))
        call = self._flying[bundle] = Call(run_bundle, arguments, bundle, grant.resources)
        return call

    # ---------------------------------------------------------------- what comes in

    def take_in(self, call: Call, came: list[Receipt] | Lost, worker: str = "") -> None:
        """Enter what came of a bundle, from a worker whose errors may be its own if there is an address.

        Raises
        ------
        ProcessingError, InputError
            A work item failed, and ``errors="fail"``.
        """
        bundle: Bundle = call.about
        self._flying.pop(bundle, None)
        if isinstance(came, Lost):
            self._lost(bundle, came)
            return
        self._blame.came_back([r.position for r in came])
        if self._run.cache is not None:
            rows = [r.row for r in came if r.row is not None]
            self._run.cache.noted([*rows, *(row for r in came for row in r.stage_rows)])
        self._trust(worker, came)
        doubtful: dict[int, str] = {}
        for receipt in came:
            if receipt.error is not None and self._is_doubtful(worker, receipt):
                doubtful[receipt.position] = receipt.site
            else:
                self._enter(receipt)
        # A bundle ends at its first error; if that did not end the run (an item was halved) the rest goes out again.
        reached = {receipt.position for receipt in came} - doubtful.keys()
        blocked = {receipt.position for receipt in came if receipt.needs is not None}
        for triple in bundle.triples:
            if triple[0] in blocked:
                self._queue(triple)
            elif triple[0] in doubtful:
                self._queue_first(triple, failed_at=doubtful[triple[0]])
            elif triple[0] not in reached:
                self._queue(triple, is_again=True)

    def _trust(self, worker: str, came: Sequence[Receipt]) -> None:
        """Tell who is to blame for earlier errors, now that some of their work items are finished elsewhere."""
        finished = [receipt.position for receipt in came if receipt.error is None]
        for culprit, why in self.trust.succeeded(worker, finished).items():
            text = bad_worker(culprit, why)
            logger.warning("%s", text)
            self._report.note(text)

    def _is_doubtful(self, worker: str, receipt: Receipt) -> bool:
        """Whether an error may be the worker's own: then its work item goes to another one first."""
        error = receipt.error
        if isinstance(error, CoffeaDiracError) or not self.trust.is_doubtful(worker, receipt.position):
            self.trust.failed(receipt.position)
            return False
        self.trust.doubt(worker, receipt.position, doubtful_error(self._plan.items[receipt.position], receipt))
        return True

    def _queue(self, triple: Triple, *, is_again: bool = False) -> None:
        """Let a work item wait, with others that need the same."""
        if not self.lanes.add(triple, is_again=is_again):
            self._pending.add(triple)

    def _queue_first(self, triple: Triple, *, failed_at: str) -> None:
        """Let a work item be the next one: until it is done, its first worker has nothing to do."""
        if not self.lanes.add(triple, is_again=True):
            self._pending.add_first(triple, failed_at=failed_at)

    def _enter(self, receipt: Receipt) -> None:
        position = receipt.position
        item = self._plan.items[position]
        if receipt.needs is not None:
            self.lanes.stopped(position, receipt.needs, rows=receipt.found, seconds=receipt.seconds, why=receipt.where)
        self.telling.happened(receipt, self.lanes.news(position, receipt.outcomes))
        if receipt.error is not None:
            memory = any(isinstance(e, MemoryError) for e in chain(receipt.error))
            if not (memory and self._halve(position, "it ran out of memory")):
                self._fail(position, processing_error(item, self._task.call, receipt))
            return
        if receipt.skipped:
            self._leave_out(position, receipt.skipped)
            return
        self._spent_s += receipt.seconds
        self._n_spent += 1
        self._travelled_bytes += len(receipt.payload[1]) if receipt.payload is not None else 0
        for name in self.metrics:
            self.metrics[name] += receipt.metrics.get(name, 0)
        self.telling.kept(receipt)
        if receipt.needs is not None:
            return
        self.waiting.discard(position)
        found = Found(receipt.row, receipt.payload, receipt.value, receipt.metrics)
        self.add(self._merging.enter(position, found))
        self._count(receipt)

    def _count(self, receipt: Receipt) -> None:
        """Enter an outcome, once for each work item; one that was halved counts with its last part."""
        position = self.halves.whole(receipt.position)
        if position in self._counted or self.halves.are_missing(position, waiting=self.waiting):
            return
        self._counted.add(position)
        reason = self._plan.reasons.get(position, {"reason": "not kept"})
        key = self._plan.keys[position]
        if receipt.site:
            self._report.sites[receipt.site] += 1
        seconds = receipt.seconds + self.lanes.seconds(receipt.position)
        self._report.add(Outcome(self._task.stage, key, "computed", reason, seconds))
        self._advance(1)

    def _leave_out(self, position: int, why: str) -> None:
        item = self._plan.items[position]
        self._report.datasets[item.dataset].failed[item.filename] = without_secrets(why)
        self.waiting.discard(position)
        self.add(self._merging.leave_out(position))
        self._advance(1)

    def _fail(self, position: int, error: CoffeaDiracError) -> None:
        if not self._run.collect or isinstance(error, VerificationError):
            raise error
        self.errors.append(error)
        self._leave_out(position, str(error).splitlines()[0])

    # ---------------------------------------------------------------- what was lost

    def enter_finished(self) -> None:
        """Enter what the bundles in flight have kept so far: the run is about to end without them."""
        for bundle in list(self._flying):
            self._enter_finished(bundle)
            del self._flying[bundle]

    def _enter_finished(self, bundle: Bundle) -> dict[int, Receipt]:
        done = self._finished(bundle)
        if self._run.cache is not None:
            self._run.cache.noted([receipt.row for receipt in done.values() if receipt.row is not None])
        for receipt in done.values():
            self._enter(receipt)
        return done

    def _lost(self, bundle: Bundle, lost: Lost) -> None:
        done = self._enter_finished(bundle)
        left = [triple for triple in bundle.triples if triple[0] not in done]
        # With several work items at hand nobody knows which of them it was.
        deaths = lost.deaths if len(left) == 1 else 1
        self._blame.came_back(receipt.position for receipt in done.values())
        self._last_lost = lost
        self._blame.died([p for p, _, _ in left], lost.worker, deaths=deaths, is_alone=bundle.is_alone)
        for triple in left:
            self._retry(triple, lost)

    def _finished(self, bundle: Bundle) -> dict[int, Receipt]:
        """Return, by position, what the lost worker kept before it died."""
        if self._task.store is None or not self._task.session:
            return {}
        try:
            rows = packs.bundle_rows(self._task.store, self._task.session, bundle.name)
        except StoreError:
            # Nothing is lost by this but time: the work items are computed again.
            return {}
        found = {row.key: row for row in rows}
        return {position: finished(position, found[key]) for position, _, key in bundle.triples if key in found}

    def _retry(self, triple: Triple, lost: Lost) -> None:
        position = triple[0]
        is_full = lost.memory_limit > 0 and lost.memory >= FULL * lost.memory_limit
        if is_full and self._blame.times(position) > 1 and self._halve(position, _full(lost)):
            return
        if self._blame.must_be_alone(position):
            # Also what is to blame already: all else shall be done and kept before the run ends for it.
            self._to_be_alone.append(triple)
        else:
            self._queue(triple, is_again=True)

    def _accuse(self, triple: Triple) -> None:
        position, item, _ = triple
        self._fail(position, worker_error(item, self._task.call, self._blame.times(position), self._last_lost))

    def _halve(self, position: int, why: str) -> bool:
        """Put the two halves of a work item in its place, if it is not too small for that."""
        halves = self.halves.of(position)
        if not halves:
            return False
        new = self._merging.split(position, halves)
        self.halves.stand_for(position, new)
        self.waiting.discard(position)
        self.waiting.update(new)
        for triple in zip(new, halves, ("", ""), strict=True):
            self._pending.add(triple)
        self._report.note(self.halves.note(position, why))
        return True


def _full(lost: Lost) -> str:
    return f"workers died that used {lost.memory / 2**30:.2f} of {lost.memory_limit / 2**30:.2f} GiB memory"
