"""Calls of the executor that are no processing: reading file metadata, and functions of unknown layout."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coffea_dirac.calls import Call, MetadataCall
from coffea_dirac.errors import JobServiceError, chain
from coffea_dirac.inputs.identity import FileIdentity
from coffea_dirac.inputs.lake import logical_file
from coffea_dirac.redact import without_secrets
from coffea_dirac.report import Skipped
from coffea_dirac.running.blame import DEATHS
from coffea_dirac.running.call import Call as WorkerCall
from coffea_dirac.running.call import Lost, Source
from coffea_dirac.running.dispatch import Offer
from coffea_dirac.running.messages import read_error
from coffea_dirac.running.plan import Run
from coffea_dirac.running.progress import progress
from coffea_dirac.worker.failures import attempt, innermost

_THREADS = 8


def read_metadata(
    run: Run, call: Call, items: Sequence[Any], accumulator: Any, skipped: dict[tuple[str, str], Skipped]
) -> Any:
    """Return `accumulator` with the metadata of files: what the memo knows, else read by threads here.

    A file that cannot be read is left to coffea's own function, which says what is wrong with it as coffea does.
    """
    from coffea.processor import accumulate

    def note(item: Any, error: BaseException) -> None:
        if any(isinstance(e, call.skipbadfiles) for e in chain(error)) and not call.use_result_type:
            why = without_secrets(f"{type(innermost(error)).__name__}: {innermost(error)}")
            skipped[item.dataset, os.fspath(item.filename)] = Skipped(item.treename, item.metadata or {}, why)
            return
        if isinstance(error, Exception):
            raise read_error(item, error) from error
        raise error

    items = sorted(items, key=lambda i: (str(i.dataset), str(i.filename)))
    with progress(run.desc, run.unit, len(items), show=run.status) as advance:
        known = _known_metadata(run, call, items, advance)
        for item in known:
            skipped.pop((item.dataset, os.fspath(item.filename)), None)
        accumulator = accumulate([type(accumulator)(known.values())], accumulator)
        for item, result, error in _map(run, call.function, [i for i in items if i not in known]):
            advance(1)
            if error is not None:
                note(item, error)
            else:
                accumulator = accumulate([result], accumulator)
    return accumulator


def _known_metadata(run: Run, call: Call, items: Sequence[Any], advance: Callable[[int], None]) -> dict[Any, Any]:
    """Return the metadata of the files that can be identified, as coffea's own function returns it."""
    from coffea.processor.executor import FileMeta

    if not isinstance(call, MetadataCall):
        return {}
    wanted = {(os.fspath(item.filename), item.treename) for item in items}
    answers = run.memo.identify_all(wanted, call.how, advance=advance, hand_on=True)
    known = {}
    for item in items:
        found = answers[os.fspath(item.filename), item.treename]
        if isinstance(found, FileIdentity):
            metadata = {**(item.metadata or {}), "numentries": found.entries, "uuid": found.uuid}
            if found.clusters is not None and call.how.with_clusters:
                metadata["clusters"] = list(found.clusters)
            known[item] = FileMeta(item.dataset, item.filename, item.treename, metadata)
    # Files count once each so far; those of several datasets count for each, those that failed are still to come.
    advance(len(known) - len(wanted))
    return known


def _map(
    run: Run, function: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[tuple[Any, Any, BaseException | None]]:
    # Where logical files are is known here.
    if run.workers.are_up and not any(logical_file(item.filename) for item in items):
        for position, result, error in _at_workers(run, function, items):
            yield items[position], result, error
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = (pool.submit(attempt, (function, run.io_retries), i, item) for i, item in enumerate(items))
        for job in list(jobs):
            position, result, error = job.result()
            yield items[position], result, error


def _at_workers(
    run: Run, function: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[tuple[int, Any, BaseException | None]]:
    """Yield (position, result, error) as they come; an item under which workers die again and again is an error."""
    waiting, deaths = deque(enumerate(items)), Counter[int]()

    def next_call(_: Offer) -> WorkerCall | None:
        return WorkerCall(attempt, waiting.popleft()) if waiting else None

    for call, came, _ in run.workers.each((function, run.io_retries), Source(next_call)):
        if not isinstance(came, Lost):
            yield came
            continue
        position, item = call.arguments
        deaths[position] += came.deaths
        if deaths[position] > DEATHS:
            raise JobServiceError(f"{deaths[position]} workers died while they worked on {item!r}: see their logs.")
        waiting.append((position, item))


def process_plain(run: Run, call: Call, items: Sequence[Any], accumulator: Any) -> Any:
    """Return `accumulator` with the results of a function whose layout is not known: computed, not kept."""
    from coffea.processor import accumulate

    if run.cache is not None:
        run.warn_once(
            "the executor was given a function that is not one of this coffea's Runner: results are computed and not "
            "kept. "
            "Probably another version of coffea is installed than this package knows, or the executor was called by "
            "hand."
        )
    results: dict[int, Any] = {}
    with progress(run.desc, run.unit, len(items), show=run.status) as advance:
        for position, result, error in _at_workers(run, call.function, items):
            advance(1)
            if error is None:
                results[position] = result
            elif not any(isinstance(e, call.skipbadfiles) for e in chain(error)) or call.use_result_type:
                raise error
    return accumulate([results[i] for i in sorted(results)], accumulator)
