"""One call of the executor, from work items to the merged accumulator.

``plan`` (which results exist, why others do not) -> ``compute`` (bundles at the workers) -> ``merge`` (in fileset order).
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.cache import CacheWarning, StageCache, choose, item_key
from coffea_dirac.calls import Call, ProcessingCall, item_metadata
from coffea_dirac.discovery import Checker, counts, metadata_digest
from coffea_dirac.dispatch import Pending
from coffea_dirac.errors import FingerprintError, InputError
from coffea_dirac.fingerprint import digest_file
from coffea_dirac.identity import FileIdentity, IdentityMemo, local_path
from coffea_dirac.interfaces import Json, Outcome, Row
from coffea_dirac.merge import Leaf, fold, tree
from coffea_dirac.messages import processing_error, read_error, stale_plan
from coffea_dirac.report import DatasetReport, Report
from coffea_dirac.work import Receipt, Task, attempt, chain, innermost, pack_task, run_bundle, template_of
from coffea_dirac.workers import Workers

# Payloads of hits are verified before anything is submitted and kept in memory up to this much; beyond, they are read again.
HELD_BYTES = 256 * 2**20
_THREADS = 8


@dataclass
class Run:
    """What one call works with."""

    workers: Workers
    cache: StageCache | None
    memo: IdentityMemo
    told: set[str]
    io_retries: int = 2
    status: bool = True
    desc: str = "Processing"
    unit: str = "items"

    def warn_once(self, text: str) -> None:
        """Warn, once in the life of an executor."""
        if text not in self.told:
            self.told.add(text)
            warnings.warn(text, CacheWarning, stacklevel=4)


@dataclass
class Found:
    """Where the result of one work item is: a row of the store, a payload in memory, or the value itself."""

    row: Row | None = None
    payload: tuple[str, bytes] | None = None
    value: Any = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Plan:
    """What is known before anything is computed: a key and a reason for each work item that must run."""

    items: Sequence[Any]
    identities: Mapping[str, FileIdentity]
    template: Any = None
    not_kept: str = ""
    named_files: Mapping[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    found: dict[int, Found] = field(default_factory=dict)
    reasons: dict[int, Mapping[str, Json]] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------------------- the call


def process(
    run: Run, call: ProcessingCall, items: Sequence[Any], accumulator: Any, report: Report, skipped: Mapping[tuple[str, str], str]
) -> Any:
    """Return the merged results of `items`, loading what the cache has and computing the rest."""
    started = time.perf_counter()
    session = run.cache.begin() if run.cache is not None else ""
    expect(report, items, skipped)
    try:
        plan = make_plan(run, call, items)
        for position in plan.found:
            report.add(Outcome(_stage(call), plan.keys[position], "loaded"))
        with _progress(run, len(items), done=len(plan.found)) as advance:
            compute(run, call, plan, session, report, advance)
        merged = merge(run, call, plan, report)
    finally:
        report.seconds = time.perf_counter() - started
        if run.cache is not None:
            run.cache.end()
    return merged if accumulator is None else _added(accumulator, merged)


def _added(accumulator: Any, merged: Any) -> Any:
    from coffea.processor import accumulate

    return accumulate([merged], accumulator)


def _stage(call: ProcessingCall) -> str:
    processor = call.processor
    return str(getattr(processor, "__qualname__", type(processor).__qualname__))


def expect(report: Report, items: Iterable[Any], skipped: Mapping[tuple[str, str], str]) -> None:
    """Enter into the report what the result should hold."""
    for item in items:
        dataset = report.datasets.setdefault(item.dataset, DatasetReport())
        dataset.files_expected.add(item.filename)
        dataset.events_expected += len(item)
    for (name, filename), why in skipped.items():
        dataset = report.datasets.setdefault(name, DatasetReport())
        dataset.files_expected.add(filename)
        dataset.failed[filename] = why


# -------------------------------------------------------------------------------------------------------------- the plan


def make_plan(run: Run, call: ProcessingCall, items: Sequence[Any]) -> Plan:
    """Find for each work item its result, or the reason why there is none."""
    plan = Plan(items, identify(run, call, items))
    try:
        plan.template = template_of(call)
        plan.named_files = named_files(plan.template.strings, items)
    except FingerprintError as error:
        plan.not_kept = f"{_stage(call)} is computed and not kept, since a part of it has no fingerprint: {error}"
    if call.arguments.get("checkpointer") is not None:
        plan.not_kept = "results are computed and not kept: Runner(checkpointer=...) may return any result; leave it out"
    if plan.not_kept and run.cache is not None:
        run.warn_once(plan.not_kept)
    plan.keys = [_key(plan, item) for item in items]
    if run.cache is not None:
        look_up(run.cache, plan, _stage(call))
    return plan


def _key(plan: Plan, item: Any) -> str:
    identity = plan.identities.get(item.filename + "\0" + item.treename)
    if plan.not_kept or identity is None:
        return ""
    return item_key(
        plan.template.digest, identity.digest, item.treename, item.entrystart, item.entrystop, item.preload
    )


def identify(run: Run, call: ProcessingCall, items: Sequence[Any]) -> dict[str, FileIdentity]:
    """Return the identity of every input file, by file and tree; a file that cannot be read has none.

    Raises
    ------
    InputError
        A file holds other entries than its work items were planned for.
    """
    wanted = {(item.filename, item.treename): item for item in items}

    def one(name: tuple[str, str]) -> FileIdentity | None:
        try:
            return run.memo.identify(*name, file_format=call.file_format, uproot_options=call.uproot_options)
        except Exception:  # noqa: BLE001 - the worker that processes the file reports what is wrong with it
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(wanted, pool.map(one, wanted), strict=True))
    last_stop: dict[tuple[str, str], int] = {}
    for item in items:
        name = (item.filename, item.treename)
        last_stop[name] = max(last_stop.get(name, 0), item.entrystop)
    whole = _whole_files(items)
    for name, identity in found.items():
        planned = planned_entries(wanted[name]) or last_stop[name]
        is_short = (name in whole or planned_entries(wanted[name]) is not None) and identity and planned != identity.entries
        if identity is not None and (is_short or last_stop[name] > identity.entries):
            raise stale_plan(wanted[name], planned, identity.entries)
    return {"\0".join(name): identity for name, identity in found.items() if identity is not None}


def _whole_files(items: Sequence[Any]) -> set[tuple[str, str]]:
    """Return the files that the plan covers to the end: with ``maxchunks`` only the last file of a dataset may be cut."""
    last = {item.dataset: (item.filename, item.treename) for item in items}
    return {(item.filename, item.treename) for item in items} - set(last.values())


def planned_entries(item: Any) -> int | None:
    """Return the entries that coffea's own metadata cache says the file of `item` has, None if it says nothing."""
    from coffea.processor.executor import DEFAULT_METADATA_CACHE, FileMeta

    known = DEFAULT_METADATA_CACHE.get(FileMeta(item.dataset, item.filename, item.treename))
    return int(known["numentries"]) if known and known.get("uuid") == item.fileuuid else None


def named_files(strings: Iterable[str], items: Sequence[Any]) -> dict[str, str]:
    """Return the files that strings in the code name, with the digest of their content; input files do not count."""
    inputs = {os.path.realpath(path) for path in (local_path(item.filename) for item in items) if path}
    found = {}
    for name in sorted(strings):
        path = os.path.realpath(name)
        if Path(path).is_file() and path not in inputs and counts(path):
            found[name] = digest_file(path)
    return found


def look_up(cache: StageCache, plan: Plan, stage: str) -> None:
    """Fill the plan with verified hits and with the reasons of the misses."""
    rows = cache.look_up({key for key in plan.keys if key})
    checker, hits = Checker(), {}
    for position, (item, key) in enumerate(zip(plan.items, plan.keys, strict=True)):
        row, reason = choose(rows.get(key, ()), checker, _metadata_of(item), plan.named_files)
        if row is not None:
            hits[position] = row
        elif reason is not None:
            plan.reasons[position] = reason
    readable = _verified(cache, list(dict.fromkeys(hits.values())))
    for position, row in hits.items():
        if row in readable:
            plan.found[position] = Found(row=row, payload=readable[row])
        else:
            plan.reasons[position] = {"reason": "unreadable"}
    if plan.template is not None and not plan.not_kept and len(plan.found) < len(plan.items):
        why = cache.why_new(stage, plan.template.digest, plan.template.tree)
        for position, key in enumerate(plan.keys):
            if position not in plan.found:
                plan.reasons.setdefault(position, why if key else {"reason": "not kept"})
        cache.keep_template(stage, plan.template.digest, plan.template.tree)


def _verified(cache: StageCache, rows: Sequence[Row]) -> dict[Row, tuple[str, bytes] | None]:
    """Return the rows whose records are sound, with their payloads as long as these fit into `HELD_BYTES`."""
    found: dict[Row, tuple[str, bytes] | None] = {}
    held = 0
    for at in range(0, len(rows), 256):
        for row, payload in cache.read(rows[at : at + 256]).items():
            held += len(payload)
            found[row] = (row.codec, payload) if held <= HELD_BYTES else None
    return found


def _metadata_of(item: Any) -> Callable[[str], str]:
    def digest(name: str) -> str:
        try:
            return metadata_digest(item_metadata(item), name)
        except FingerprintError:
            return "unfingerprintable"

    return digest


# ----------------------------------------------------------------------------------------------------------- computing


def compute(
    run: Run, call: ProcessingCall, plan: Plan, session: str, report: Report, advance: Callable[[int], None]
) -> None:
    """Process at the workers what the plan did not find, noting every result as it comes."""
    missing = [(i, item, plan.keys[i]) for i, item in enumerate(plan.items) if i not in plan.found]
    if not missing:
        return
    pending = Pending.of(missing, file_of=lambda item: (item.dataset, item.filename))
    spent: list[float] = []
    names = iter(range(len(missing)))

    def next_bundle(slots: int) -> tuple[Any, ...] | None:
        if not pending.runs:
            return None
        per_item = sum(spent) / len(spent) if spent else None
        return f"b{next(names)}", pending.take(slots=slots, seconds_per_item=per_item)

    for receipts in run.workers.each(run_bundle, pack_task(_task(run, call, plan, session)), next_bundle):
        if run.cache is not None:
            run.cache.noted([r.row for r in receipts if r.row is not None])
        for receipt in receipts:
            spent.append(receipt.seconds)
            _enter(run, call, plan, report, receipt)
        advance(len(receipts))


def _task(run: Run, call: ProcessingCall, plan: Plan, session: str) -> Task:
    template = plan.template
    keeps = run.cache is not None and bool(session) and not plan.not_kept
    return Task(
        call=call,
        digest=template.digest if template is not None else "",
        stage=_stage(call),
        sources=template.sources if template is not None else {},
        modules=template.modules if template is not None else {},
        store=run.cache.store if keeps and run.cache is not None else None,
        session=session,
        named_files=plan.named_files,
        io_retries=run.io_retries,
        cwd=str(Path.cwd()),
        sys_path=tuple(sys.path),
        inline=run.workers.inline,
    )


def _enter(run: Run, call: ProcessingCall, plan: Plan, report: Report, receipt: Receipt) -> None:
    item = plan.items[receipt.position]
    if receipt.error is not None:
        raise processing_error(item, call, receipt)
    if receipt.skipped:
        report.datasets[item.dataset].failed[item.filename] = receipt.skipped
        return
    if receipt.not_kept and run.cache is not None:
        run.warn_once(f"the result of {_stage(call)} is computed and not kept: {receipt.not_kept}")
        report.note(receipt.not_kept)
    for name in receipt.written:
        report.note(f"{name} is written by {_stage(call)}: it is not written again when the result is loaded")
    plan.found[receipt.position] = Found(receipt.row, receipt.payload, receipt.value, receipt.metrics)
    reason = plan.reasons.get(receipt.position, {"reason": "not kept"})
    report.add(Outcome(_stage(call), plan.keys[receipt.position], "computed", reason, receipt.seconds))


# ------------------------------------------------------------------------------------------------------------- merging


def merge(run: Run, call: ProcessingCall, plan: Plan, report: Report) -> dict[str, Any] | None:
    """Return what coffea expects of an executor: ``out``, ``processed`` and, if asked for, ``metrics``."""
    present = [(i, item) for i, item in enumerate(plan.items) if i in plan.found]
    if not present:
        return None
    leaves = [Leaf(item.dataset, item.filename, plan.keys[i] or f"{i}", i) for i, item in present]
    rows = {i: plan.found[i].row for i, _ in present}
    out = fold(tree(leaves), lambda position: _value(run, call, plan, position))
    merged = {"out": out, "processed": {item for _, item in present}}
    for _, item in present:
        report.datasets[item.dataset].events_processed += len(item)
    if call.arguments.get("savemetrics"):
        merged["metrics"] = _metrics([(rows[i], plan.found[i].metrics) for i, _ in present])
    return merged


def _value(run: Run, call: ProcessingCall, plan: Plan, position: int) -> Any:
    """Return the result of one work item as the cache would return it, computed again here if it was lost on the way."""
    found = plan.found[position]
    if found.payload is not None:
        return codecs.decode(*found.payload)
    if found.row is None:
        return found.value
    values = run.cache.load([found.row]) if run.cache is not None else {}
    if found.row in values:
        return values[found.row]
    task = pack_task(_task(run, call, Plan(plan.items, plan.identities, not_kept="lost"), ""))
    (receipt,) = run_bundle(task, "again", [(position, plan.items[position], "")])
    if receipt.error is not None:
        raise processing_error(plan.items[position], call, receipt)
    return codecs.decode(*receipt.payload) if receipt.payload is not None else receipt.value


def _metrics(parts: Iterable[tuple[Row | None, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return coffea's metrics: entries and columns of all, bytes and times of this run only."""
    total: dict[str, Any] = {"bytesread": 0, "columns": set(), "entries": 0, "processtime": 0.0}
    for row, now in parts:
        kept = row.info if row is not None and not now else now
        total["entries"] += int(kept.get("entries", 0))
        total["columns"] |= set(kept.get("columns", ()))
        total["bytesread"] += int(now.get("bytesread", 0))
        total["processtime"] += float(now.get("processtime", 0.0))
    return total


# ------------------------------------------------------------------------------------------------------- other calls


def read_metadata(run: Run, call: Call, items: Sequence[Any], accumulator: Any, skipped: dict[tuple[str, str], str]) -> Any:
    """Return `accumulator` with the metadata of files: read at the workers if there are any, else by threads here."""
    from coffea.processor import accumulate

    def note(item: Any, error: BaseException) -> None:
        if any(isinstance(e, call.skipbadfiles) for e in chain(error)) and not call.use_result_type:
            skipped[item.dataset, item.filename] = f"{type(innermost(error)).__name__}: {innermost(error)}"
            return
        if isinstance(error, Exception):
            raise read_error(item, error) from error
        raise error

    with _progress(run, len(items)) as advance:
        for item, result, error in _map(run, call.function, sorted(items, key=lambda i: (i.dataset, i.filename))):
            advance(1)
            if error is not None:
                note(item, error)
            else:
                skipped.pop((item.dataset, item.filename), None)
                accumulator = accumulate([result], accumulator)
    return accumulator


def _map(run: Run, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[Any, Any, BaseException | None]]:
    if run.workers.are_up:
        rest = iter(enumerate(items))
        for position, result, error in run.workers.each(
            attempt, (function, run.io_retries), lambda _slots: next(((i, item) for i, item in rest), None)
        ):
            yield items[position], result, error
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = (pool.submit(attempt, (function, run.io_retries), i, item) for i, item in enumerate(items))
        for job in list(jobs):
            position, result, error = job.result()
            yield items[position], result, error


def process_plain(run: Run, call: Call, items: Sequence[Any], accumulator: Any) -> Any:
    """Return `accumulator` with the results of a function whose layout is not known: computed, not kept."""
    from coffea.processor import accumulate

    if run.cache is not None:
        run.warn_once(
            "the executor was given a function that is not one of this coffea's Runner: results are computed and not kept. "
            "Probably another version of coffea is installed than this package knows, or the executor was called by hand."
        )
    results: dict[int, Any] = {}
    rest = iter(enumerate(items))
    with _progress(run, len(items)) as advance:
        for position, result, error in run.workers.each(
            attempt, (call.function, run.io_retries), lambda _slots: next(((i, item) for i, item in rest), None)
        ):
            advance(1)
            if error is None:
                results[position] = result
            elif not any(isinstance(e, call.skipbadfiles) for e in chain(error)) or call.use_result_type:
                raise error
    return accumulate([results[i] for i in sorted(results)], accumulator)


@contextmanager
def _progress(run: Run, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar as coffea's executors do, where there is a person to see it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    if not run.status:
        yield lambda n: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn(f"{run.unit}"), transient=False) as progress:
        bar = progress.add_task(run.desc, total=total, completed=done)
        yield lambda n: progress.advance(bar, n)


