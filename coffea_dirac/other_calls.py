"""Calls of the executor that are no processing: reading file metadata, and functions of unknown layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coffea_dirac.calls import Call
from coffea_dirac.failures import attempt, chain, innermost
from coffea_dirac.messages import read_error
from coffea_dirac.plan import THREADS, Run
from coffea_dirac.progress import progress


def read_metadata(
    run: Run, call: Call, items: Sequence[Any], accumulator: Any, skipped: dict[tuple[str, str], str]
) -> Any:
    """Return `accumulator` with the metadata of files: read at the workers if there are any, else by threads here."""
    from coffea.processor import accumulate

    def note(item: Any, error: BaseException) -> None:
        if any(isinstance(e, call.skipbadfiles) for e in chain(error)) and not call.use_result_type:
            skipped[item.dataset, item.filename] = f"{type(innermost(error)).__name__}: {innermost(error)}"
            return
        if isinstance(error, Exception):
            raise read_error(item, error) from error
        raise error

    with progress(run.desc, run.unit, len(items), show=run.status) as advance:
        for item, result, error in _map(run, call.function, sorted(items, key=lambda i: (i.dataset, i.filename))):
            advance(1)
            if error is not None:
                note(item, error)
            else:
                skipped.pop((item.dataset, item.filename), None)
                accumulator = accumulate([result], accumulator)
    return accumulator


def _map(
    run: Run, function: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[tuple[Any, Any, BaseException | None]]:
    if run.workers.are_up:
        rest = iter(enumerate(items))
        for position, result, error in run.workers.each(
            attempt, (function, run.io_retries), lambda _slots: next(((i, item) for i, item in rest), None)
        ):
            yield items[position], result, error
        return
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = (pool.submit(attempt, (function, run.io_retries), i, item) for i, item in enumerate(items))
        for job in list(jobs):
            position, result, error = job.result()
            yield items[position], result, error


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
    rest = iter(enumerate(items))
    with progress(run.desc, run.unit, len(items), show=run.status) as advance:
        for position, result, error in run.workers.each(
            attempt, (call.function, run.io_retries), lambda _slots: next(((i, item) for i, item in rest), None)
        ):
            advance(1)
            if error is None:
                results[position] = result
            elif not any(isinstance(e, call.skipbadfiles) for e in chain(error)) or call.use_result_type:
                raise error
    return accumulate([results[i] for i in sorted(results)], accumulator)
