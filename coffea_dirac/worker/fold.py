"""What runs at a worker to merge results: read them from the store, add them from left to right, keep the sums.

As `work`, this knows nothing of dask: `run_merge` is a plain function of values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac import codecs, packs
from coffea_dirac.errors import CodecError, CorruptRecordError, StoreError
from coffea_dirac.interfaces import Record, Row, Store
from coffea_dirac.ledger import Group, add_metrics
from coffea_dirac.worker.failures import portable
from coffea_dirac.worker.task import TASKS, Task

# So many bytes of results are read at once, and so many of sums wait for a pack to be written.
READ_BYTES = 32 << 20
PACK_BYTES = 64 << 20


@dataclass(frozen=True)
class MergeReceipt:
    """What a worker says of a merge: the rows it kept, the last one that of the whole; or what is in the way.

    `lost` are rows that cannot be read: what they stand for is needed again.
    """

    rows: tuple[Row, ...] = ()
    payload: tuple[str, bytes] | None = None
    value: Any = None
    metrics: dict[str, Any] = field(default_factory=dict)
    lost: tuple[Row, ...] = ()
    problem: str = ""
    error: BaseException | None = None


class LostRowsError(Exception):
    """Rows that cannot be read while they are merged."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(f"{len(rows)} records cannot be read")
        self.rows = tuple(rows)


def add(total: Any, value: Any) -> Any:
    """Return the sum of a partial sum, which may change, and a value; coffea says how values are added.

    Examples
    --------
    >>> add(add(None, {"n": 1}), {"n": 2})
    {'n': 3}
    """
    from coffea.processor import accumulate

    return value if total is None else accumulate([value], total)


def run_merge(blob: bytes, name: str, group: Group) -> MergeReceipt:
    """Merge the rows of a group, and of the groups inside, and keep each sum.

    Parameters
    ----------
    blob : bytes
        What `pack_task` made.
    name : str
        Names the packs that are written; unique in the session.
    """
    return merge_group(TASKS.get(blob), name, group)


def merge_group(task: Task, name: str, group: Group) -> MergeReceipt:
    """Do what `run_merge` does for a task that is already unpacked."""
    assert task.store is not None, "rows are merged where they can be read"
    folding = _Folding(task, task.store, name)
    try:
        value, metrics = folding.fold(group)
    except LostRowsError as lost:
        return MergeReceipt(lost=lost.rows)
    except StoreError as error:
        return MergeReceipt(lost=_all_rows(group), problem=str(error))
    except Exception as error:  # noqa: BLE001 - the user's types cannot be added; the submitter raises it
        return MergeReceipt(error=error if task.inline else portable(error))
    return folding.close(group, value, metrics)


def _all_rows(group: Group) -> tuple[Row, ...]:
    return tuple(row for part in group.parts for row in ((part,) if isinstance(part, Row) else _all_rows(part)))


class _Folding:
    """One merge in progress."""

    def __init__(self, task: Task, store: Store, name: str) -> None:
        self._task, self._store = task, store
        self._writer = packs.PackWriter(store, task.session, name)
        self._rows: list[Row] = []
        self._payload: codecs.Payload | None = None
        self._problem = ""

    def fold(self, group: Group) -> tuple[Any, dict[str, Any]]:
        """Return the sum of a group, which is kept if it can be, and its metrics."""
        started = time.perf_counter()
        total, metrics = None, dict[str, Any]()
        for value, more in self._values(group.parts):
            total = add(total, value)
            add_metrics(metrics, more)
        self._keep(group, total, metrics, time.perf_counter() - started)
        return total, metrics

    def _values(self, parts: Sequence[Row | Group]) -> Iterator[tuple[Any, Any]]:
        for run in _runs(parts):
            if isinstance(run, Group):
                value, metrics = self.fold(run)
                # As it will be loaded, so that cold equals warm.
                kept = self._payload
                yield (codecs.decode(kept.codec, kept.data) if kept is not None else value), metrics
                continue
            found = packs.read(self._store, run)
            lost = [row for row in run if isinstance(found[row], CorruptRecordError)]
            if lost:
                raise LostRowsError(lost)
            for row in run:
                # Not popped: a file that is listed twice has the same row twice.
                payload = found[row]
                assert isinstance(payload, bytes), "else it was lost"
                try:
                    value = codecs.decode(row.codec, payload)
                except CodecError as error:
                    raise LostRowsError([row]) from error
                yield value, row.info

    def _keep(self, group: Group, total: Any, metrics: dict[str, Any], seconds: float) -> None:
        """Keep a sum; what its parts could be written as, it may not be: then it travels as it is."""
        self._payload = None
        try:
            payload = codecs.encode(total)
        except CodecError:
            return
        info = {
            "stage": self._task.stage,
            "merged": group.n_leaves,
            "seconds": round(seconds, 6),
            "created_s": round(time.time(), 3),
            "entries": int(metrics.get("entries", 0)),
            "columns": sorted(metrics.get("columns", ())),
        }
        if self._task.session:
            self._writer.add(Record(group.mark, payload.data, payload.codec, info=info))
            if self._writer.size > PACK_BYTES:
                self._flush()
        self._payload = payload

    def _flush(self) -> None:
        try:
            self._rows += self._writer.close()
        except StoreError as error:
            self._problem = str(error)

    def close(self, group: Group, value: Any, metrics: dict[str, Any]) -> MergeReceipt:
        """Return the receipt: rows if the sum of the whole was kept, else the sum itself."""
        self._flush()
        if self._rows and self._rows[-1].key == group.mark:
            return MergeReceipt(tuple(self._rows), metrics=metrics, problem=self._problem)
        if self._payload is None:
            return MergeReceipt(tuple(self._rows), value=value, metrics=metrics, problem=self._problem)
        payload = (self._payload.codec, self._payload.data)
        return MergeReceipt(tuple(self._rows), payload, metrics=metrics, problem=self._problem)


def _runs(parts: Sequence[Row | Group]) -> Iterator[list[Row] | Group]:
    """Divide parts into groups and runs of rows of at most `READ_BYTES`, in order."""
    run: list[Row] = []
    size = 0
    for part in parts:
        if run and (isinstance(part, Group) or size + part.length > READ_BYTES):
            yield run
            run, size = [], 0
        if isinstance(part, Group):
            yield part
        else:
            run.append(part)
            size += part.length
    if run:
        yield run
