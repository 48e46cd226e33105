"""What comes of a bundle at a worker: a receipt for each work item, its record in a pack if the store takes it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coffea_dirac import packs
from coffea_dirac.errors import StoreError
from coffea_dirac.inputs.health import Damage
from coffea_dirac.interfaces import Outcome, Record, Row
from coffea_dirac.stages.keeper import Keeper
from coffea_dirac.stages.resources import Grant, resources_of
from coffea_dirac.stores import copies_of
from coffea_dirac.worker.sealed import may_be_again
from coffea_dirac.worker.task import Task

_LOCK = threading.Lock()


@dataclass(frozen=True)
class Receipt:
    """What a worker says of one work item: where its record lies, or its payload, or its value, or what went wrong.

    Of one that is blocked it says what that `needs`, `where` says for which stages, and `found` where the records lie
    that it has come by.  `stage_rows`, of the last receipt of a bundle, are those of all stages that were kept.
    """

    position: int
    row: Row | None = None
    payload: tuple[str, bytes] | None = None
    value: Any = None
    seconds: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    not_kept: str = ""
    store_problem: str = ""
    written: tuple[str, ...] = ()
    skipped: str = ""
    error: BaseException | None = None
    where: str = ""
    key: str = ""
    stage_rows: tuple[Row, ...] = ()
    needs: Grant | None = None
    found: tuple[Row, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()
    site: str = ""
    verified: tuple[str, ...] = ()
    damaged: tuple[Damage, ...] = ()


def finished(position: int, row: Row) -> Receipt:
    """Return the receipt of a work item that was computed in this run by a worker that did not live to tell."""
    seconds, site = float(row.info.get("seconds", 0.0)), str(row.info.get("site", ""))
    return Receipt(position, row=row, seconds=seconds, site=site, notes=tuple(row.info.get("notes", ())))


class Shelf:
    """Where a bundle's results go: into the store by a keeper, or nowhere once that has failed."""

    def __init__(self, task: Task, name: str, grant: Grant | None, rows: Sequence[Row]) -> None:
        self.receipts: list[Receipt] = []
        self.grant = grant
        index = functools.partial(index_of, task) if task.store is not None else None
        self.keeper = Keeper(task.store, task.session, name, index)
        if task.store is not None and task.session and may_be_again.get():
            try:
                self.keeper.note(packs.bundle_rows(task.store, task.session, name))
            except StoreError as error:
                self.keeper.give_up(error)
        if rows:
            self.keeper.learn(rows)
        self._rows = {row.key: row for row in self.keeper.rows}
        self._earlier = dict(self._rows)

    def find(self, position: int, key: str) -> Receipt | None:
        """Return the receipt of a work item that an earlier attempt at this bundle finished."""
        row = self._earlier.get(key) if key else None
        return finished(position, row) if row else None

    def keep(self, record: Record) -> None:
        """Take the record of a work item."""
        if self.keeper.keep(record):
            # What lies in the store need not lie in memory.
            self._place()

    def close(self) -> list[Receipt]:
        """Return the receipts with rows instead of payloads wherever the store took the record."""
        self.keeper.flush()
        self._place()
        self.receipts = [self._found(r) if r.needs is not None else r for r in self.receipts]
        if self.receipts:
            of_items = {receipt.key for receipt in self.receipts}
            rows = tuple(row for row in self.keeper.rows if row.key not in of_items)
            self.receipts[-1] = replace(self.receipts[-1], stage_rows=rows)
        return self.receipts

    def _found(self, receipt: Receipt) -> Receipt:
        """Return the receipt of a blocked work item with what the store has for whoever goes on with it."""
        assert receipt.needs is not None, "asked for blocked ones only"
        rows = [row for outcome in receipt.outcomes for row in self.keeper.look_up(outcome.fingerprint)]
        needs, problem = receipt.needs, self.keeper.problem
        if problem and self.grant is not None:
            # Nothing that was done here will be found.
            needs = Grant(resources_of(needs.resources, self.grant.resources))
        return replace(
            receipt, needs=needs, store_problem=problem, found=tuple(row for row in rows if isinstance(row, Row))
        )

    def _place(self) -> None:
        self._rows.update({row.key: row for row in self.keeper.rows})
        self.receipts = [self._placed(r) for r in self.receipts]

    def _placed(self, receipt: Receipt) -> Receipt:
        if not receipt.key:
            return receipt
        if receipt.key in self._rows:
            return replace(receipt, row=self._rows[receipt.key], payload=None)
        problem = self.keeper.problem
        return replace(receipt, store_problem=problem) if problem else receipt


def read_only_keeper(task: Task) -> Keeper:
    """Return a keeper that finds what is in the task's store and keeps nothing."""
    return Keeper(task.store, "", "", functools.partial(index_of, task))


def index_of(task: Task) -> packs.Index:
    """Return the index of the task's store, read once by each process of a run.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    with _LOCK:
        if "index" not in task.memory:
            assert task.store is not None, "without a store nothing is looked up"
            index = packs.Index(task.store, copies=copies_of(task.store))
            index.refresh()
            task.memory["index"] = index
        found: packs.Index = task.memory["index"]
        return found
