"""One call of the executor, from work items to the merged accumulator.

``make_plan`` (which results exist, why others do not) -> ``Merging.survey`` (what is merged already) -> bundles and
merges at the workers, as long as anything is missing -> the result of the whole.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.calls import ProcessingCall
from coffea_dirac.errors import StoreError
from coffea_dirac.inputs import lake, traces
from coffea_dirac.inputs.files import read_files
from coffea_dirac.interrupts import deferred_interrupt
from coffea_dirac.report import DatasetReport, Report, Skipped
from coffea_dirac.running.call import Call, Source
from coffea_dirac.running.computing import Bundle, Computing
from coffea_dirac.running.dispatch import Offer
from coffea_dirac.running.merging import Merging
from coffea_dirac.running.messages import processing_errors, resume_line
from coffea_dirac.running.plan import Plan, Run, make_plan, stage_name
from coffea_dirac.running.progress import progress
from coffea_dirac.running.rechecking import recheck
from coffea_dirac.stages.verifying import NEVER
from coffea_dirac.worker.modules import sources, user_modules
from coffea_dirac.worker.task import Task, reading_of, schema_settings, stage_options

# How often records may vanish between being found and being read.
ROUNDS = 10


class Processing:
    """One processing call.

    Parameters
    ----------
    run : Run
        What it works with.
    call : ProcessingCall
        What is to be done with each work item.
    report : Report
        Is filled as results come.
    """

    def __init__(self, run: Run, call: ProcessingCall, report: Report) -> None:
        self.run, self.call, self.report = run, call, report
        self._merging: Merging | None = None

    def partial(self) -> Any:
        """Return what is finished so far, merged, as a copy; None if nothing is."""
        return self._merging.partial()[0] if self._merging is not None else None

    def process(self, items: list[Any], skipped: Mapping[tuple[str, str], Skipped]) -> dict[str, Any] | None:
        """Return what coffea expects of an executor, loading what the cache has and computing the rest.

        Raises
        ------
        ProcessingError
            User code failed; with ``errors="collect"`` after everything else is done, and with ``partial_output``.
        KeyboardInterrupt
            With ``partial_output``: what was finished, merged.
        """
        started = time.perf_counter()
        session = self.run.cache.begin() if self.run.cache is not None else ""
        expect(self.report, items, skipped)
        try:
            return self._process(items, session)
        finally:
            self.report.seconds = time.perf_counter() - started
            if self.run.cache is not None:
                self.run.cache.end()

    def _process(self, items: list[Any], session: str) -> dict[str, Any] | None:
        run, report = self.run, self.report
        codecs.offer(self.call.processor)
        plan = make_plan(run, self.call, items)
        if plan.not_kept and run.cache is not None:
            report.note(plan.not_kept)
        task = make_task(run, self.call, plan, session)
        merging = self._merging = Merging(plan, task, run.cache, report)
        missing = merging.survey()
        traces.send({plan.items[position].filename for position in missing})
        if run.cache is not None:
            run.cache.use(plan.rows.values())
            recheck(run, plan, task, lambda: merging.blob, report)
        with progress(run.desc, run.unit, len(items), done=len(items) - len(missing), show=run.status) as advance:
            computing = Computing(run, plan, merging, task, report, advance)
            computing.add(missing)
            unreadable: set[int] = set()
            try:
                self._work(computing, merging)
                if computing.errors:
                    partial, unreadable = merging.partial()
                    raise processing_errors(computing.errors, partial)
                return self._merged(plan, merging, computing, n_items=len(items))
            except KeyboardInterrupt as stop:
                computing.enter_finished()
                print(resume_line(len(computing.waiting), len(items)), file=sys.stderr)  # noqa: T201
                stop.partial_output, unreadable = merging.partial()  # type: ignore[attr-defined]
                raise
            finally:
                traces.declare(computing.telling.damaged)
                count_events(report, plan, merging, computing.waiting | unreadable)

    def _work(self, computing: Computing, merging: Merging) -> None:
        """Compute and merge until nothing is left."""
        workers = self.run.workers
        if computing.waiting or (workers.are_up and not merging.is_done):
            self._work_at_workers(computing, merging, at_most=len(computing.waiting))
        for _ in range(ROUNDS):
            if merging.is_done and not merging.settle():
                return
            # Merging alone starts no worker; records that turn out to be unreadable may.
            computing.add(merging.merge_here())
            if computing.waiting:
                self._work_at_workers(computing, merging, at_most=len(computing.waiting))
        raise StoreError(f"records of {self.run.cache!r} got lost {ROUNDS} times while they were merged")

    def _work_at_workers(self, computing: Computing, merging: Merging, *, at_most: int) -> None:
        def next_call(offer: Offer) -> Call | None:
            merge = None if offer.resources else merging.next_call(is_last=computing.is_last)
            return merge or computing.next_call(offer)

        source = Source(next_call, computing.lanes.kinds, computing.waiting_for, computing.trust.distrusted)
        # Closed at once, also after an error: what is in flight is cancelled then.
        with closing(self.run.workers.each(merging.blob, source, at_most=at_most)) as arrivals:
            for call, came, worker in arrivals:
                with deferred_interrupt():
                    if isinstance(call.about, Bundle):
                        computing.take_in(call, came, worker)
                    else:
                        computing.add(merging.take_in(call, came))

    def _merged(self, plan: Plan, merging: Merging, computing: Computing, *, n_items: int) -> dict[str, Any] | None:
        """Return what coffea expects of an executor: ``out``, ``processed`` and, if asked for, ``metrics``."""
        found = merging.result()
        if found is None:
            return None
        out, kept = found
        lacking = {computing.halves.whole(position) for position in merging.left_out}
        merged = {"out": out, "processed": {plan.items[i] for i in range(n_items) if i not in lacking}}
        if self.call.arguments.get("savemetrics"):
            # Entries and columns are those of all work items; bytes and times are those of this run.
            merged["metrics"] = {
                "entries": int(kept.get("entries", 0)),
                "columns": set(kept.get("columns", ())),
                **computing.metrics,
            }
            if self.call.file_format == "parquet":
                # coffea does not count what it reads from these.
                del merged["metrics"]["bytesread"]
        return merged


def make_task(run: Run, call: ProcessingCall, plan: Plan, session: str) -> Task:
    """Return what workers need for all work items of a run."""
    template = plan.template
    has_stages = template is not None and template.may_have_handles
    return Task(
        call=call,
        template=replace(template, stages=(), guard=None) if template is not None else None,
        stage=stage_name(call),
        schema_settings=schema_settings(call.arguments["schema"]),
        store=run.cache.store if run.cache is not None else None,
        session="" if plan.not_kept else session,
        named_files=plan.named_files,
        io_retries=run.io_retries,
        cwd=str(Path.cwd()),
        sys_path=tuple(sys.path),
        inline=run.workers.inline,
        collect=run.collect,
        has_stages=has_stages,
        stage_options=stage_options(template.stages) if template is not None else {},
        versions=run.versions,
        verification=run.cache.verification if run.cache is not None else NEVER,
        reading=reading_of(call, versions=run.versions) if has_stages else "",
        identities={name: i.digest for name, i in plan.identities.items()} if has_stages else {},
        files=read_files(template.files) if template is not None else {},
        modules=sources(user_modules()) if run.workers.may_be_elsewhere else {},
        lake=lake.told({item.filename for item in plan.items}),
    )


def expect(report: Report, items: Iterable[Any], skipped: Mapping[tuple[str, str], Skipped]) -> None:
    """Enter into the report what the result should hold."""
    for item in items:
        dataset = report.datasets.get(item.dataset)
        if dataset is None:
            dataset = report.datasets[item.dataset] = DatasetReport(metadata=dict(item.usermeta or {}))
        dataset.files[item.filename] = item.treename
        dataset.events_expected += len(item)
    for (name, filename), (treename, metadata, why) in skipped.items():
        dataset = report.datasets.setdefault(name, DatasetReport(metadata=dict(metadata)))
        dataset.files[filename] = treename
        dataset.failed[filename] = why


def count_events(report: Report, plan: Plan, merging: Merging, unfinished: Set[int]) -> None:
    """Enter into the report what was processed, and the files that the run has not finished."""
    for position in merging.present():
        item = plan.items[position]
        dataset = report.datasets[item.dataset]
        if position in unfinished:
            dataset.unfinished.add(item.filename)
        else:
            dataset.events_processed += len(item)
