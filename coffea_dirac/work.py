"""What runs at a worker: process the work items of a bundle, keep their results in packs.

Nothing here knows of dask: `run_bundle` is a plain function of values, called by a dask task or directly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from coffea.processor import ProcessorABC

from coffea_dirac import codecs, packs
from coffea_dirac.calls import item_metadata
from coffea_dirac.discovery import RecordingMetadata, Window, digest_path, recording
from coffea_dirac.errors import CodecError, StoreError
from coffea_dirac.failures import chain, innermost, portable, user_line, with_retries
from coffea_dirac.interfaces import Discovered, Json, Record, Row
from coffea_dirac.reading import Reader, is_known
from coffea_dirac.redact import without_secrets
from coffea_dirac.task import TASKS, Task

PACK_SECONDS = 0.3
PACK_BYTES = 32 << 20
is_wanted: ContextVar[Callable[[], bool]] = ContextVar("coffea_dirac_is_wanted", default=lambda: True)
"""Tells a bundle between two work items whether somebody still waits for it."""


@dataclass(frozen=True)
class Receipt:
    """What a worker says of one work item: where its record lies, or its payload, or its value, or what went wrong."""

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


def run_bundle(blob: bytes, name: str, items: Sequence[tuple[int, Any, str]]) -> list[Receipt]:
    """Process the work items of one bundle in order and return a receipt for each that was reached.

    Parameters
    ----------
    blob : bytes
        What `pack_task` made.
    name : str
        The bundle's name, unique in the session: packs carry it, so that a second attempt finds what the first one
        kept.
    items : sequence of (position, WorkItem, key)
        An empty key means that the result is not to be kept.
    """
    task = TASKS.get(blob)
    shelf = _Shelf(task, name)
    try:
        with Reader(task.call) as reader:
            for position, item, key in items:
                receipt = shelf.find(position, key) or _process(task, shelf, reader, position, item, key)
                shelf.receipts.append(receipt)
                if (receipt.error is not None and not task.collect) or not is_wanted.get()():
                    break
    finally:
        # Also after Ctrl-C in this process: what is finished is kept.
        receipts = shelf.close()
    return receipts


class _Shelf:
    """Where a bundle's results go: packs of `PACK_SECONDS` of work each, or nowhere once the store has failed."""

    def __init__(self, task: Task, name: str) -> None:
        self._task, self._name = task, name
        self._rows: dict[str, Row] = {}
        self.receipts: list[Receipt] = []
        self.problem = ""
        self._writer: packs.PackWriter | None = None
        self._opened = time.monotonic()
        if task.store is not None and task.session:
            try:
                self._rows = {row.key: row for row in packs.bundle_rows(task.store, task.session, name)}
                self._writer = packs.PackWriter(task.store, task.session, name)
            except StoreError as error:
                self.problem = str(error)

    def find(self, position: int, key: str) -> Receipt | None:
        """Return the receipt of a work item that an earlier attempt at this bundle finished."""
        row = self._rows.get(key) if key else None
        return finished(position, row) if row else None

    def keep(self, record: Record) -> None:
        if self._writer is None:
            return
        self._writer.add(record)
        if time.monotonic() - self._opened > PACK_SECONDS or self._writer.size > PACK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            return
        try:
            self._rows.update({row.key: row for row in self._writer.close()})
        except StoreError as error:
            self.problem, self._writer = str(error), None
        else:
            # What lies in the store need not lie in memory.
            self.receipts = [self._placed(r) for r in self.receipts]
        self._opened = time.monotonic()

    def close(self) -> list[Receipt]:
        """Return the receipts with rows instead of payloads wherever the store took the record."""
        self._flush()
        return [self._placed(r) for r in self.receipts]

    def _placed(self, receipt: Receipt) -> Receipt:
        if not receipt.key:
            return receipt
        if receipt.key in self._rows:
            return replace(receipt, row=self._rows[receipt.key], payload=None)
        return replace(receipt, store_problem=self.problem) if self.problem else receipt


def finished(position: int, row: Row) -> Receipt:
    """Return the receipt of a work item that was computed in this run by a worker that did not live to tell."""
    return Receipt(position, row=row, seconds=float(row.info.get("seconds", 0.0)))


class _Recorded(ProcessorABC):  # type: ignore[misc]
    """The user's processor, run inside a recording window."""

    def __init__(self, inner: Any, window: Window) -> None:
        self._inner, self._window = inner, window

    def process(self, events: Any) -> Any:
        events.layout._parameters["metadata"] = RecordingMetadata(events.metadata or {}, self._window)
        with recording(self._window):
            return self._inner.process(events) if isinstance(self._inner, ProcessorABC) else self._inner(events)

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator


def _process(task: Task, shelf: _Shelf, reader: Reader, position: int, item: Any, key: str) -> Receipt:
    started = time.perf_counter()
    window = Window(_ignored(task, item))
    try:
        result = _attempt(task, reader, item, window)
    except Exception as error:  # noqa: BLE001 - reported with its place; the submitter raises it
        skip = task.call.skipbadfiles and not task.call.use_result_type
        if skip and any(isinstance(e, task.call.skipbadfiles) for e in chain(error)):
            return Receipt(position, skipped=f"{type(innermost(error)).__name__}: {innermost(error)}")
        where = user_line(error)
        return Receipt(position, error=error if task.inline else portable(error), where=where)
    seconds = time.perf_counter() - started
    metrics = dict(result.get("metrics", {}))
    return _receipt(task, shelf, position, item, key, result["out"], window, seconds, metrics)


def _ignored(task: Task, item: Any) -> list[str]:
    url = task.store.url if task.store is not None else ""
    return [item.filename.removeprefix("file://"), *([url.removeprefix("file://")] if url else [])]


def _attempt(task: Task, reader: Reader, item: Any, window: Window) -> dict[str, Any]:
    processor = _Recorded(task.call.processor, window)

    def once() -> Any:
        if is_known(task.call):
            return reader.run(item, processor.process, item_metadata(item))
        from coffea.processor import Runner

        arguments = {**task.call.arguments, "savemetrics": True, "use_dataframes": False}
        return Runner._work_function(**arguments, item=item, processor_instance=processor)

    found: dict[str, Any] = with_retries(once, task.io_retries, reader.close)
    return found


def _receipt(
    task: Task,
    shelf: _Shelf,
    position: int,
    item: Any,
    key: str,
    out: Any,
    window: Window,
    seconds: float,
    metrics: dict[str, Any],
) -> Receipt:
    inputs, written, problem = _all_inputs(task, window)
    common: dict[str, Any] = {"seconds": seconds, "metrics": metrics, "written": written}
    try:
        payload = codecs.encode(out)
    except CodecError as error:
        return Receipt(position, value=out, not_kept=str(error), **common)
    if problem or not key:
        return Receipt(position, payload=(payload.codec, payload.data), not_kept=problem, **common)
    info: dict[str, Json] = {
        "stage": task.stage,
        "dataset": item.dataset,
        "file": without_secrets(item.filename),
        "start": int(item.entrystart),
        "stop": int(item.entrystop),
        "seconds": round(seconds, 6),
        "created_s": round(time.time(), 3),
        "entries": int(metrics.get("entries", 0)),
        "columns": sorted(metrics.get("columns", ())),
    }
    shelf.keep(Record(key, payload.data, payload.codec, inputs, info=info))
    return Receipt(position, payload=(payload.codec, payload.data), key=key, **common)


def _all_inputs(task: Task, window: Window) -> tuple[tuple[Discovered, ...], tuple[str, ...], str]:
    """Return the inputs of a work item: what its window saw and the files that its code names."""
    problem = window.unchecked
    for name, digest in task.named_files.items():
        if name not in window.written:
            window.files.setdefault(name, digest)
    for name, digest in window.files.items():
        if name not in window.written and digest_path(name) != digest:
            problem = problem or f"{name} changed while it was read"
        if digest.startswith("unreadable"):
            problem = problem or f"{name} cannot be read again for a check ({digest}): pass it as File({name!r})"
    return window.inputs(), tuple(sorted(window.written)), problem
