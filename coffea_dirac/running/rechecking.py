"""Work items that were found in the cache, computed again at the workers and compared: a part of them, if asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coffea_dirac import codecs, packs
from coffea_dirac.errors import CodecError, StoreError
from coffea_dirac.interfaces import Row
from coffea_dirac.report import Report
from coffea_dirac.running.call import Call, Lost, Source
from coffea_dirac.running.dispatch import Offer
from coffea_dirac.running.messages import processing_error
from coffea_dirac.running.plan import Plan, Run
from coffea_dirac.stages.resources import ORDINARY, Blocked
from coffea_dirac.stages.verifying import Verification, shown
from coffea_dirac.worker.failures import told, user_line, with_retries
from coffea_dirac.worker.item import Item
from coffea_dirac.worker.reading import Reader
from coffea_dirac.worker.shelf import Receipt, read_only_keeper
from coffea_dirac.worker.task import TASKS, Task

ATTEMPTS = 3


@dataclass(frozen=True)
class _Due:
    """A work item to be computed again, its record, and how often workers died of it."""

    position: int
    item: Any
    row: Row
    n_lost: int = 0


def recheck(run: Run, plan: Plan, task: Task, packed: Callable[[], bytes], report: Report) -> None:
    """Compute some of the work items that were found again, and compare.

    Raises
    ------
    VerificationError
        One is not what it was.
    ProcessingError, InputError
        One cannot be computed any more.
    """
    due = [_Due(i, plan.items[i], row) for i, row in plan.rows.items() if task.verification.picks()]
    if not due:
        return
    at_most = len(due)

    def next_call(_: Offer) -> Call | None:
        return Call(verify_item, (due[-1].position, due[-1].item, due[-1].row), due.pop()) if due else None

    for call, came, _ in run.workers.each(packed(), Source(next_call), at_most=at_most):
        one: _Due = call.about
        if isinstance(came, Lost):
            _lost(one, due, report)
        elif came.error is not None:
            raise processing_error(one.item, task.call, came)
        else:
            report.verified += came.verified
            for text in came.notes:
                report.note(text)


def _lost(one: _Due, due: list[_Due], report: Report) -> None:
    if one.n_lost + 1 < ATTEMPTS:
        due.append(replace(one, n_lost=one.n_lost + 1))
    else:
        report.note(
            f"{shown('a work item', one.row.info)} is loaded and could not be verified: {ATTEMPTS} workers died while "
            "they computed it again"
        )


def verify_item(blob: bytes, position: int, item: Any, row: Row) -> Receipt:
    """Compute one work item again at a worker, and compare it, and its stages, with what is kept; keep nothing."""
    task = TASKS.get(blob)
    # The stages of a work item that is verified are verified too: the one that differs is named.
    whole = replace(task, verification=Verification(1.0, task.verification.tolerance))
    with Reader(task.call) as reader:
        work = Item(whole, read_only_keeper(task), reader, item, None if task.inline else ORDINARY)
        try:
            result = with_retries(work.attempt_all, task.io_retries, reader.close)
            verified = [*work.verified, *_compared(whole, row, result["out"])]
        except Blocked as blocked:
            text = (
                f"{shown('a work item', row.info)} is loaded and not verified: that needs another worker, for {blocked}"
            )
            return Receipt(position, notes=(text,))
        except Exception as error:  # noqa: BLE001 - reported with its place; the submitter raises it
            where = user_line(error)
            return Receipt(position, error=told(error, inline=task.inline), where=where)
    return Receipt(position, verified=tuple(verified))


def _compared(task: Task, row: Row, out: Any) -> Sequence[str]:
    assert task.store is not None, "rows come from a store"
    what = shown(task.stage, row.info)
    try:
        kept = packs.read(task.store, [row])[row]
    except StoreError:
        return ()
    if not isinstance(kept, bytes):
        return ()
    try:
        # Large results of stages stand in it as they are kept, and in what was computed now as values.
        as_values = codecs.encode(codecs.decode(row.codec, kept)).data
    except CodecError:
        return ()
    task.verification.compare(what, row.info, as_values, codecs.encode(out).data)
    return (what,)
