"""One call of the executor, from work items to the merged accumulator.

``make_plan`` (which results exist, why others do not) -> ``compute`` (bundles at the workers) -> ``merge`` (in fileset
order).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.calls import ProcessingCall
from coffea_dirac.dispatch import Pending
from coffea_dirac.interfaces import Outcome, Row
from coffea_dirac.merge import Leaf, fold, tree
from coffea_dirac.messages import processing_error
from coffea_dirac.plan import Found, Plan, Run, make_plan, stage_name
from coffea_dirac.progress import progress
from coffea_dirac.report import DatasetReport, Report
from coffea_dirac.task import Task, pack_task, schema_settings
from coffea_dirac.work import Receipt, run_bundle


def process(
    run: Run,
    call: ProcessingCall,
    items: Sequence[Any],
    accumulator: Any,
    report: Report,
    skipped: Mapping[tuple[str, str], str],
) -> Any:
    """Return the merged results of `items`, loading what the cache has and computing the rest."""
    started = time.perf_counter()
    session = run.cache.begin() if run.cache is not None else ""
    expect(report, items, skipped)
    try:
        plan = make_plan(run, call, items)
        if plan.not_kept and run.cache is not None:
            report.note(plan.not_kept)
        for position in plan.found:
            report.add(Outcome(stage_name(call), plan.keys[position], "loaded"))
        with progress(run.desc, run.unit, len(items), done=len(plan.found), show=run.status) as advance:
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


# plan


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

    task = pack_task(_task(run, call, plan, session))
    for receipts in run.workers.each(run_bundle, task, next_bundle, at_most=len(missing)):
        if run.cache is not None:
            run.cache.noted([r.row for r in receipts if r.row is not None])
        for receipt in receipts:
            spent.append(receipt.seconds)
            _enter(run, call, plan, report, receipt)
        advance(len(receipts))


def _task(run: Run, call: ProcessingCall, plan: Plan, session: str) -> Task:
    keeps = run.cache is not None and bool(session) and not plan.not_kept
    return Task(
        call=call,
        template=plan.template,
        stage=stage_name(call),
        schema_settings=schema_settings(call.arguments["schema"]),
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
        run.warn_once(f"the result of {stage_name(call)} is computed and not kept: {receipt.not_kept}")
        report.note(receipt.not_kept)
    for name in receipt.written:
        report.note(f"{name} is written by {stage_name(call)}: it is not written again when the result is loaded")
    plan.found[receipt.position] = Found(receipt.row, receipt.payload, receipt.value, receipt.metrics)
    reason = plan.reasons.get(receipt.position, {"reason": "not kept"})
    report.add(Outcome(stage_name(call), plan.keys[receipt.position], "computed", reason, receipt.seconds))


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
    """Return the result of one work item as the cache would; it is computed again here if it was lost on the way."""
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
