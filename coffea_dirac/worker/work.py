"""What runs at a worker: process the work items of a bundle, keep their results in packs.

Nothing here knows of dask: `run_bundle` is a plain function of values, called by a dask task or directly.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coffea_dirac import codecs, packs
from coffea_dirac.calls import item_metadata
from coffea_dirac.environment import environment
from coffea_dirac.errors import CodecError, StageError, StoreError, chain
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.discovery import Window, digest_path, files_named
from coffea_dirac.interfaces import Discovered, Json, Outcome, Record, Row
from coffea_dirac.redact import without_secrets
from coffea_dirac.stages.handles import HANDLE_PLACES, Handle
from coffea_dirac.stages.keeper import Keeper
from coffea_dirac.stages.reevaluation import evaluator_of
from coffea_dirac.stages.resources import Blocked, Grant, resources_of
from coffea_dirac.stages.stage import Templates
from coffea_dirac.stages.staged import ItemPlace, StagedProcessor, source_identity
from coffea_dirac.stores import copies_of
from coffea_dirac.worker.failures import innermost, told, user_line, with_retries
from coffea_dirac.worker.reading import Opened, Reader, checked, is_known
from coffea_dirac.worker.sealed import is_wanted, may_be_again
from coffea_dirac.worker.task import TASKS, Task


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


def run_bundle(
    blob: bytes,
    name: str,
    items: Sequence[tuple[int, Any, str]],
    grant: Grant | None = None,
    rows: Sequence[Row] = (),
) -> list[Receipt]:
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
    grant : Grant, optional
        Which stages may run: all of them if there is none, or if all is done in the submitter's process.
    rows : sequence of Row
        Records of this run that the index of this process may not have yet.
    """
    task = TASKS.get(blob)
    shelf = _Shelf(task, name, None if task.inline else grant, rows)
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


_LOCK = threading.Lock()


def finished(position: int, row: Row) -> Receipt:
    """Return the receipt of a work item that was computed in this run by a worker that did not live to tell."""
    seconds, site = float(row.info.get("seconds", 0.0)), str(row.info.get("site", ""))
    return Receipt(position, row=row, seconds=seconds, site=site)


def _process(task: Task, shelf: _Shelf, reader: Reader, position: int, item: Any, key: str) -> Receipt:
    started = time.perf_counter()
    work = Item(task, shelf.keeper, reader, item, shelf.grant)
    try:
        result = with_retries(work.attempt_all, task.io_retries, reader.close)
    except Blocked as blocked:
        assert shelf.grant is not None, "without a grant all may run"
        return Receipt(
            position,
            needs=blocked.asks(shelf.grant, has_advanced=any(o.outcome != "loaded" for o in work.outcomes)),
            where=str(blocked),
            seconds=time.perf_counter() - started,
            metrics=blocked.metrics,
            **work.told(),
        )
    except Exception as error:  # noqa: BLE001 - reported with its place; the submitter raises it
        done = work.told()
        skip = task.call.skipbadfiles and not task.call.use_result_type
        if skip and any(isinstance(e, task.call.skipbadfiles) for e in chain(error)):
            return Receipt(position, skipped=f"{type(innermost(error)).__name__}: {innermost(error)}", **done)
        where = user_line(error)
        return Receipt(position, error=told(error, inline=task.inline), where=where, site=_site(), **done)
    seconds = time.perf_counter() - started
    receipt = _receipt(task, shelf, position, item, key, result["out"], work.window, seconds, result["metrics"])
    return replace(receipt, **work.told())


class Item:
    """One work item at a worker, as often as it is attempted."""

    def __init__(self, task: Task, keeper: Keeper, reader: Reader, item: Any, grant: Grant | None = None) -> None:
        self._task, self._keeper, self._reader, self._item = task, keeper, reader, item
        self._grant = grant
        self._metadata = item_metadata(item)
        self.window = Window()
        self._attempts: list[StagedProcessor] = []
        self.notes: list[str] = []
        self.verified: list[str] = []

    def told(self) -> dict[str, Any]:
        """Return what a receipt says of the stages."""
        notes = (*self.notes, *lake.news(self._item.filename))
        return {"outcomes": tuple(self.outcomes), "notes": notes, "verified": tuple(self.verified)}

    @property
    def outcomes(self) -> list[Outcome]:
        """What came of stages; what an earlier attempt computed was computed, though the last one found it."""
        found: dict[str, Outcome] = {}
        for outcome in (o for processor in self._attempts for o in processor.outcomes):
            if outcome.outcome != "loaded" or outcome.fingerprint not in found:
                found[outcome.fingerprint] = outcome
        return list(found.values())

    def attempt_all(self) -> dict[str, Any]:
        """Return ``{"out": .., "metrics": ..}``, read from a replica of the file that is not damaged."""
        return lake.survive(self._item.filename, self.attempt, self._reader.close)

    def attempt(self) -> dict[str, Any]:
        """Return the same, or fail with the replica that is read."""
        call = self._task.call
        if not is_known(call):
            from coffea.processor import Runner

            arguments = {**call.arguments, "savemetrics": True, "use_dataframes": False}
            found: dict[str, Any] = Runner._work_function(
                **arguments, item=self._item, processor_instance=self._processor()
            )
            return found
        group = f"needs data {self._item.dataset}"
        if self._task.has_stages and group not in self._task.memory:
            if (without := self._without_data()) is not None:
                return without
            self._task.memory[group] = True
        processor = self._processor()

        def process(events: Any) -> Any:
            return processor.process(events)

        opened = self._reader.open(self._item, self._metadata)
        processor.columns = opened.columns
        return self._measured(processor, opened, lambda: process(opened.events))

    def _without_data(self) -> dict[str, Any] | None:
        """Do without opening the file, if all that is needed of it is kept; None if ``process`` wants data."""
        processor, opened = self._processor(), list[Opened]()

        def open_now() -> Any:
            opened.append(self._reader.open(self._item, self._metadata))
            processor.columns = opened[0].columns
            return opened[0].events

        found: list[Any] = []

        def process() -> Any:
            does, out = processor.process_without_data(open_now)
            found.append(does)
            return out if does else _NEEDS_DATA

        result = self._measured(processor, opened, process)
        return result if found == [True] else None

    def _measured(self, processor: Any, opened: Opened | list[Opened], process: Callable[[], Any]) -> dict[str, Any]:
        started = time.perf_counter()

        def metrics() -> dict[str, Any]:
            last = opened if isinstance(opened, Opened) else opened[0] if opened else None
            return {
                "bytesread": last.bytes_read() if last is not None else 0,
                "columns": processor.read_columns,
                "entries": len(self._item),
                "processtime": time.perf_counter() - started,
            }

        try:
            return {"out": checked(self._item, process), "metrics": metrics()}
        except Blocked as blocked:
            blocked.metrics = metrics()
            raise

    def _processor(self) -> StagedProcessor:
        """Return the user's processor with a window and a graph of its own, for one attempt."""
        task, item = self._task, self._item
        ignored = _ignored(task, item)
        self.window = Window(ignored)
        identity = task.identities.get(item.filename + "\0" + item.treename) or f"unknown {uuid.uuid4()}"
        place = ItemPlace(
            source_identity(task.reading, identity, item),
            self._metadata,
            len(item),
            _facts(item),
            ignored,
            self._can_run,
        )
        processor = StagedProcessor(
            task.call.processor,
            self.window,
            place,
            _templates(task),
            self._keeper,
            self._note,
            evaluator=evaluator_of(task.verification),
        )
        self._attempts.append(processor)
        self.verified = processor.verified
        return processor

    def _can_run(self, wanted: Mapping[str, float]) -> bool:
        return self._grant is None or self._grant.allows(wanted)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


_NEEDS_DATA = object()


def _site() -> str:
    """Return where this is by DIRAC's name, if it has one."""
    return os.environ.get("DIRACSITE", "")


def _facts(item: Any) -> dict[str, Json]:
    return {
        "dataset": item.dataset,
        "file": without_secrets(item.filename),
        "start": int(item.entrystart),
        "stop": int(item.entrystop),
    }


def _templates(task: Task) -> Templates:
    with _LOCK:
        if "templates" not in task.memory:
            sources = task.template.sources if task.template is not None else None
            task.memory["templates"] = Templates(sources, files_named, versions=task.versions)
        found: Templates = task.memory["templates"]
        return found


def _ignored(task: Task, item: Any) -> list[str]:
    url = task.store.url if task.store is not None else ""
    return [item.filename.removeprefix("file://"), *([url.removeprefix("file://")] if url else [])]


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
    site = _site()
    common: dict[str, Any] = {"seconds": seconds, "metrics": metrics, "written": written, "site": site}
    try:
        payload = codecs.encode(out)
    except CodecError as error:
        if error.type_name == f"{Handle.__module__}.{Handle.__qualname__}":
            # Nothing would ever pull it there.
            lost = StageError(f"process() returns a handle where it cannot be pulled: {error.path}. {HANDLE_PLACES}")
            return Receipt(position, error=lost)
        return Receipt(position, value=out, not_kept=str(error), **common)
    if problem or not key:
        return Receipt(position, payload=(payload.codec, payload.data), not_kept=problem, **common)
    info: dict[str, Json] = {
        "stage": task.stage,
        **_facts(item),
        "seconds": round(seconds, 6),
        "created_s": round(time.time(), 3),
        "environment": environment(),
        "entries": int(metrics.get("entries", 0)),
        "columns": sorted(metrics.get("columns", ())),
        **({"site": site} if site else {}),
        **({"rses": rses} if (rses := lake.rses_read(item.filename)) else {}),
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
