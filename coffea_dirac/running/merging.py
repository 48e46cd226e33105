"""Merging in one run: what the cache has already merged, what workers merge next, and the result of the whole."""

from __future__ import annotations

import copy
import functools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from coffea_dirac import codecs, packs
from coffea_dirac.cache import StageCache
from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import Discovered, Outcome, Row
from coffea_dirac.ledger import Found, Ledger, UnreadableError, metrics_of
from coffea_dirac.merge import Leaf, Node, Place, leaves_of, tree
from coffea_dirac.report import Report
from coffea_dirac.running.call import Call, Lost
from coffea_dirac.running.messages import merge_error
from coffea_dirac.running.plan import Plan, leaves
from coffea_dirac.stages.rows import full_key
from coffea_dirac.worker.fold import MergeReceipt, add, merge_group, run_merge
from coffea_dirac.worker.task import Task, pack_task
from coffea_dirac.worker.work import run_bundle

LOST_MERGES = 10
# So often may a store lose what it took for a work item; then the result stays in memory.
LOST_RECORDS = 2


class Merging:
    """The merge of one run.

    Parameters
    ----------
    plan : Plan
        Work items and the rows known for them; rows that come are entered there too.
    task : Task
        What workers need.
    cache : StageCache or None
        Where merged results are looked up and loaded.
    report : Report
        Gets an outcome for each record that is loaded.
    """

    def __init__(self, plan: Plan, task: Task, cache: StageCache | None, report: Report) -> None:
        self._plan, self._task, self._cache, self._report = plan, task, cache, report
        self.lock = threading.RLock()
        self._leaves = leaves(plan)
        self._digests: dict[tuple[Discovered, ...], str] = {}
        self._lost: set[Row] = set()
        self._times_lost: Counter[int] = Counter()
        self._absent: set[int] = set()
        self._left_out: set[int] = set()
        self._is_split = False
        self._n_merges = self._n_lost = 0
        self._n_flying = 0
        self._ledger = Ledger(tree(self._leaves), self._loaded, add)

    @functools.cached_property
    def blob(self) -> bytes:
        """The task as workers get it; it is packed when the first of them is asked, since a warm run asks none."""
        return pack_task(self._task)

    # ---------------------------------------------------------------- what the cache has

    def survey(self) -> list[int]:
        """Enter what the cache has, merged as far as it has been; return the positions that must be computed."""
        with self.lock:
            return self._enter_known([self._ledger.root], is_first=True)

    def _enter_known(self, places: Sequence[Place], *, is_first: bool = False) -> list[int]:
        merged = self._merged_rows(places)
        missing: list[int] = []
        waiting = list(reversed(places))
        while waiting:
            place = waiting.pop()
            row = merged.get(place) if isinstance(place, Node) else self._plan.rows.get(place.position)
            payload = None
            if row is not None and place is self._ledger.root:
                payload = self._read(row)
            if row is not None and row not in self._lost:
                if is_first:
                    n = place.n_leaves if isinstance(place, Node) else 1
                    self._report.add(Outcome(self._task.stage, row.key, "loaded", work_items=n))
                self._ledger.enter(place, Found(row, payload))
            elif isinstance(place, Node):
                waiting.extend(reversed(place.children))
            elif place.position not in self._absent:
                missing.append(place.position)
                if row is not None:
                    self._plan.reasons[place.position] = {"reason": "unreadable"}
        return missing

    def _read(self, row: Row) -> tuple[str, bytes] | None:
        """Return the payload of the record that is the whole result; an unreadable one must be found out now."""
        payload = self._cache.read([row]).get(row) if self._cache is not None else None
        if payload is None:
            self._lost.add(row)
            return None
        return row.codec, payload

    def _merged_rows(self, places: Sequence[Place]) -> dict[Node, Row]:
        """Return the records of merges at and below places, of those whose leaves are all known."""
        if self._cache is None or not self._plan.rows:
            return {}
        marks: dict[Node, str] = {}
        waiting = list(places)
        for place in places:
            for leaf in leaves_of(place):
                row = self._plan.rows.get(leaf.position)
                if row is not None:
                    self._ledger.know(leaf, full_key(row, self._digests))
        while waiting:
            place = waiting.pop()
            if isinstance(place, Node):
                if mark := self._ledger.mark(place):
                    marks[place] = mark
                waiting.extend(place.children)
        rows = self._cache.look_up(set(marks.values()))
        found = {node: [row for row in rows.get(mark, ()) if row not in self._lost] for node, mark in marks.items()}
        return {node: sound[-1] for node, sound in found.items() if sound}

    # ---------------------------------------------------------------- what comes

    def enter(self, position: int, found: Found) -> list[int]:
        """Note the result of a work item; return the positions whose records turned out to be unreadable."""
        with self.lock:
            leaf = self._leaves[position]
            if found.row is not None:
                self._plan.rows[position] = found.row
                self._ledger.know(leaf, full_key(found.row, self._digests))
            self._ledger.enter(leaf, found)
            return self._unreadable_here()

    def leave_out(self, position: int) -> list[int]:
        """Note that a work item has no result; return the positions whose records turned out to be unreadable."""
        with self.lock:
            self._absent.add(position)
            self._left_out.add(position)
            self._ledger.leave_out(self._leaves[position])
            return self._unreadable_here()

    def split(self, position: int, parts: Sequence[Any]) -> list[int]:
        """Put parts of a work item in its place and return their positions; their results are not kept."""
        with self.lock:
            whole = self._leaves[position]
            self._is_split = True
            first = len(self._plan.items)
            self._plan.items.extend(parts)
            self._plan.keys.extend("" for _ in parts)
            new = [whole._replace(position=first + n) for n in range(len(parts))]
            self._leaves.extend(new)
            self._ledger.split(whole, new)
            return [leaf.position for leaf in new]

    # ---------------------------------------------------------------- merging at workers

    @property
    def is_done(self) -> bool:
        """Whether the result of the whole is there, or known to be nothing."""
        return self._ledger.is_done

    def next_call(self, *, is_last: bool) -> Call | None:
        """Return a merge for a worker, None if there is none now; `is_last` says that no work item is to come."""
        with self.lock:
            node = self._ledger.take(is_last=is_last)
            if node is None:
                return None
            self._n_merges += 1
            self._n_flying += 1
            return Call(run_merge, (f"m{self._n_merges}", self._ledger.group(node)), node)

    def merge_here(self, *, is_last: bool = True) -> list[int]:
        """Merge in this process what can be merged, as the workers would; return the positions that were lost."""
        lost: list[int] = []
        while (call := self.next_call(is_last=is_last)) is not None:
            lost += self.take_in(call, merge_group(self._task, *call.arguments))
        return lost

    def take_in(self, call: Call, receipt: MergeReceipt | Lost) -> list[int]:
        """Note what came of a merge; return the positions whose records turned out to be unreadable.

        Raises
        ------
        ProcessingError
            The results cannot be added.
        """
        node: Node = call.about
        with self.lock:
            self._n_flying -= 1
            self._ledger.landed(node)
            if isinstance(receipt, Lost):
                self._put_back(node)
                return []
            if receipt.error is not None:
                raise merge_error(receipt.error)
            if receipt.problem and self._cache is not None:
                self._cache.give_up(receipt.problem)
            if receipt.lost:
                return [i for row in receipt.lost for i in self._look_again(self._ledger.reopen(node, [row]), row)]
            if self._cache is not None:
                self._cache.noted(receipt.rows)
            self._report.merged += max(len(receipt.rows), 1)
            is_kept = receipt.payload is None and receipt.value is None
            row = receipt.rows[-1] if is_kept else None
            self._ledger.enter(node, Found(row, receipt.payload, receipt.value, receipt.metrics))
            return self._unreadable_here()

    def _put_back(self, node: Node) -> None:
        self._n_lost += 1
        if self._n_lost > LOST_MERGES:
            raise JobServiceError(
                f"{LOST_MERGES} workers died while they merged results: probably they have too little memory for "
                "them; give workers more, or return less from process(). What is finished is kept."
            )
        self._ledger.put_back(node)

    def _unreadable_here(self) -> list[int]:
        """Look again for what could not be read to be added here; return the positions that must be computed."""
        positions: list[int] = []
        while self._ledger.unreadable:
            place, found = self._ledger.unreadable.pop()
            assert found.row is not None, "what is in memory can be read"
            positions += self._look_again([place], found.row)
        return positions

    def _look_again(self, places: Sequence[Place], row: Row) -> list[int]:
        """Find other records for what a lost one stood for; return the positions that must be computed."""
        self._lost.add(row)
        if self._cache is not None:
            self._cache.is_unreadable(row)
        for place in places:
            if isinstance(place, Leaf):
                self._plan.rows.pop(place.position, None)
                self._plan.reasons[place.position] = {"reason": "unreadable"}
            if row.pack.startswith(f"{packs.SESSIONS}{self._task.session}/"):
                self._count_lost([leaf.position for leaf in leaves_of(place)])
        return [i for place in places for i in self._enter_known([place], is_first=self._report.retract(row.key))]

    def _count_lost(self, positions: Sequence[int]) -> None:
        """Trust the store no more with what it has lost again in this run: that is computed, and merged in memory."""
        self._times_lost.update(positions)
        for position in positions:
            if self._times_lost[position] >= LOST_RECORDS:
                self._plan.rows.pop(position, None)
                self._plan.keys[position] = ""

    def settle(self) -> bool:
        """Give the tree the shape of the leaves that have a result; say whether there is more to merge.

        What has no result was left out where it stood; only without it is the shape that of a run without it.
        """
        with self.lock:
            present = [leaf for leaf in self._leaves if leaf.position not in self._absent]
            if not self._absent or self._is_split or not present or len(self._plan.rows) < len(present):
                return False
            self._absent = set()
            self._ledger = Ledger(tree(present), self._loaded, add)
            self._enter_known([self._ledger.root])
            return not self._ledger.is_done

    # ---------------------------------------------------------------- results

    def result(self) -> tuple[Any, dict[str, Any]] | None:
        """Return the merged value and its ``entries`` and ``columns``, None if no work item has a result."""
        found = self._ledger.result
        if found is None:
            return None
        return self._value(self._ledger.root, found), dict(metrics_of(found))

    def partial(self) -> tuple[Any, set[int]]:
        """Return the merged results so far, a copy or None, and the positions whose records turn out unreadable.

        May be called from another thread.
        """
        with self.lock:
            parts = [
                (place, found if found.row or found.payload else Found(value=copy.deepcopy(found.value)))
                for place, found in self._ledger.so_far()
            ]
        total: Any = None
        unreadable: set[int] = set()
        for place, found in parts:
            # What turns out to be unreadable is left out: no user code runs here.
            total = add(total, self._value(place, found, lacking=unreadable))
        return total, unreadable

    @property
    def left_out(self) -> frozenset[int]:
        """The positions that have no result and will have none."""
        return frozenset(self._left_out)

    def present(self) -> Iterator[int]:
        """Yield the positions that are in the result: all but those left out."""
        return (leaf.position for leaf in leaves_of(self._ledger.root) if leaf.position not in self._absent)

    def _loaded(self, _: Place, found: Found) -> Any:
        """Return a result as the cache would."""
        if found.payload is not None:
            return codecs.decode(*found.payload)
        if found.row is None:
            return found.value
        values = self._cache.load([found.row]) if self._cache is not None else {}
        if found.row not in values:
            raise UnreadableError
        return values[found.row]

    def _value(self, place: Place, found: Found, *, lacking: set[int] | None = None) -> Any:
        """Return a result as the cache would; what was lost on the way is made again here, or entered as `lacking`."""
        try:
            return self._loaded(place, found)
        except UnreadableError:
            return self._made_again(place, lacking)

    def _made_again(self, place: Place, lacking: set[int] | None) -> Any:
        if isinstance(place, Node):
            total = None
            for child in place.children:
                if not isinstance(child, Leaf) or child.position not in self._absent:
                    total = add(total, self._made_again(child, lacking))
            return total
        row = self._plan.rows.get(place.position)
        values = self._cache.load([row]) if row is not None and self._cache is not None else {}
        if row in values:
            return values[row]
        if lacking is not None:
            lacking.add(place.position)
            return None
        (receipt,) = run_bundle(self.blob, "again", [(place.position, self._plan.items[place.position], "")])
        if receipt.error is not None:
            raise receipt.error
        return codecs.decode(*receipt.payload) if receipt.payload is not None else receipt.value
