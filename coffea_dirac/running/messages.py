"""The errors a run ends with: what happened, why probably, and the corrected call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coffea_dirac.errors import (
    CoffeaDiracError,
    CredentialError,
    InputError,
    NoReplicaError,
    ProcessingError,
    VerificationError,
)
from coffea_dirac.redact import without_secrets

if TYPE_CHECKING:
    from coffea_dirac.calls import ProcessingCall
    from coffea_dirac.running.call import Lost
    from coffea_dirac.stages.resources import Resources
    from coffea_dirac.worker.shelf import Receipt


def read_error(item: Any, error: Exception) -> InputError:
    """Return the error for a file whose metadata cannot be read."""
    text = (
        f"cannot read tree {item.treename!r} of {without_secrets(str(item.filename))} (dataset {item.dataset!r}): "
        f"{_first(error)}. {_advice(error)} "
        "Nothing has been processed; Runner(skipbadfiles=True) leaves unreadable files out and names them."
    )
    return InputError.like(error, without_secrets(text))


def stale_plan(item: Any, planned: int, found: int) -> InputError:
    """Return the error for work items that were planned for another version of a file."""
    return InputError(
        f"{without_secrets(item.filename)} has {found} entries in {item.treename!r}, but its work items were planned "
        f"for {planned}. Probably the file was replaced after coffea had read its metadata: plan again with "
        "Runner(..., metadata_cache={})."
    )


def processing_error(item: Any, call: ProcessingCall, receipt: Receipt) -> CoffeaDiracError:
    """Return the error for a work item that failed, with the call that runs it again in this process."""
    error = receipt.error
    assert error is not None, "asked for a failed item only"
    if isinstance(error, VerificationError):
        return error
    place, again = _place(item), _again(item, call)
    cause = _origin(error)
    what = f"{type(cause).__name__}: {_first(cause)}"
    if _said(error).startswith("Failed to open file"):
        text = f"cannot open {place}: {what}. {_advice(cause)} {again}"
        found: CoffeaDiracError = InputError.like(cause, without_secrets(text))
    else:
        at = f"\n  at {receipt.where}" if receipt.where else ""
        text = f"{what}{at}\n  in {place}. All other results so far are kept.\n{again}"
        found = ProcessingError(without_secrets(text))
    for note in getattr(error, "__notes__", ()):
        found.add_note(without_secrets(f"At the worker:\n{note}"))
    found.__cause__ = error
    return found


def processing_errors(errors: Sequence[CoffeaDiracError], partial_output: Any) -> ProcessingError:
    """Return the error for a run whose other work items are all done."""
    listed = "\n".join(f"{n}. {error}" for n, error in enumerate(errors, 1))
    count = "1 work item" if len(errors) == 1 else f"{len(errors)} work items"
    found = ProcessingError(
        f"{count} failed; all others are done and kept. What they merge to is this error's partial_output.\n{listed}"
    )
    found.partial_output = partial_output
    found.__cause__ = errors[0]
    return found


def doubtful_error(item: Any, receipt: Receipt) -> str:
    """Return what went wrong with a work item at a worker that may be to blame for it."""
    assert receipt.error is not None, "asked for a failed item only"
    cause = _origin(receipt.error)
    at = f" at {receipt.site}" if receipt.site else ""
    return without_secrets(f"{_place(item)} failed{at} with {type(cause).__name__}: {_first(cause)}")


def bad_worker(worker: str, why: str) -> str:
    """Return what is told of a worker that gets no more work."""
    return (
        f"the worker {worker} gets no more work: {why}, and succeeded at another worker. Probably its node is broken."
    )


def worker_error(item: Any, call: ProcessingCall, deaths: int, lost: Lost) -> ProcessingError:
    """Return the error for a work item under which workers die."""
    used = ""
    if lost.memory:
        used = f" The last one used {_gib(lost.memory)} when it was last heard of"
        used += f", of {_gib(lost.memory_limit)} that it may use." if lost.memory_limit else "."
    return ProcessingError(
        f"{deaths} workers died while they processed {_place(item)}, the last time with nothing beside it.{used} "
        "Probably it needs more memory than a worker has (a smaller chunksize, or fewer workers: "
        "DiracExecutor(workers=1)), or a library crashes on it. All other results so far are kept.\n"
        f"{_again(item, call)}"
    )


def blocked_error(stages: str, resources: Resources, n_items: int) -> ProcessingError:
    """Return the error for work items that wait for a worker with resources, where there is none."""
    pairs = " ".join(f"{name}={amount:g}" for name, amount in resources)
    return ProcessingError(
        f"no worker has what a stage needs: {stages}; {n_items} work items wait for it. All else is done and kept. "
        f'Start a worker with it: dask worker ADDRESS --resources "{pairs}", or, if all workers of a cluster have it, '
        f"LocalCluster(resources={dict(resources)}); at sites, give the cluster a group of workers that has it, where "
        f"DIRAC has a tag for it: DiracCluster(groups=[..., WorkerGroup('gpu', sites=[...], tags=['GPU'], "
        f"resources={dict(resources)})]); or run in this process, whatever it has: DiracExecutor(inline=True)."
    )


def merge_error(error: BaseException) -> ProcessingError:
    """Return the error for results that cannot be added."""
    cause = _origin(error)
    found = ProcessingError(
        f"the results of two work items cannot be added: {type(cause).__name__}: {_first(cause)}. Probably process() "
        "returns other keys, types or axes for some of them. All results are kept: once they can be added, nothing but "
        "the work items with other results is computed again."
    )
    for note in getattr(error, "__notes__", ()):
        found.add_note(without_secrets(f"At the worker:\n{note}"))
    found.__cause__ = error
    return found


def resume_line(n_left: int, n_items: int) -> str:
    """Return what to tell somebody who has interrupted a run.

    Examples
    --------
    >>> print(resume_line(3, 10))
    Interrupted: 7 of 10 work items are done; run the same again to go on with the rest. What is done, merged, is \
    the exception's partial_output.
    """
    return (
        f"Interrupted: {n_items - min(n_left, n_items)} of {n_items} work items are done; run the same again to go on "
        "with the rest. What is done, merged, is the exception's partial_output."
    )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"


def _place(item: Any) -> str:
    entries = f"entries {item.entrystart} to {item.entrystop}"
    return f"{without_secrets(item.filename)}, tree {item.treename!r}, {entries} (dataset {item.dataset!r})"


def _again(item: Any, call: ProcessingCall) -> str:
    schema = getattr(call.arguments["schema"], "__name__", call.arguments["schema"])
    # Not "processor": where this is pasted, that is coffea's module.
    processor = getattr(call.processor, "__name__", f"{type(call.processor).__name__}(...)")
    return (
        "To run it again in this process: processor.Runner(executor=DiracExecutor(inline=True, cache=None), "
        f"schema={schema})([{_item_call(item)}], {processor})"
    )


def _item_call(item: Any) -> str:
    return (
        f"processor.executor.WorkItem({item.dataset!r}, {without_secrets(item.filename)!r}, {item.treename!r}, "
        f"{item.entrystart}, {item.entrystop}, {item.fileuuid!r}, {item.usermeta!r})"
    )


def _origin(error: BaseException) -> BaseException:
    """Return the user's own exception behind coffea's "Failed processing file"."""
    wrapped = _said(error).startswith(("Failed processing file", "Failed to open file", "Failed creating nanoevents"))
    return error.__cause__ if wrapped and error.__cause__ is not None else error


def _said(error: BaseException) -> str:
    """Return an exception's text; the user's own may fail to make one."""
    try:
        return str(error)
    except Exception as why:  # noqa: BLE001 - whatever it raises, the place of the first error is told
        return f"its text cannot be had: str() of it raises {type(why).__name__}"


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in _said(error).strip().splitlines() if line.strip()]
    return "; ".join(lines[:3]).rstrip(".") if lines else type(error).__name__


def _advice(error: BaseException) -> str:
    text = f"{type(error).__name__} {_said(error)}"
    if isinstance(error, NoReplicaError):
        return "All replicas were tried: repair one of them, or take the file out of the fileset."
    if isinstance(error, CredentialError):
        return "Nothing is known to be wrong with the file."
    if isinstance(error, FileNotFoundError):
        return "The file is missing here: correct its name in the fileset."
    if isinstance(error, PermissionError):
        return "The file may not be read: correct its permissions."
    if isinstance(error, KeyError) or "KeyInFileError" in text:
        return "The file has no such tree: give its name as Runner(...)(fileset, processor, treename=...)."
    if isinstance(error, OSError) and error.errno is not None:
        return "The file could not be read, also not at a second attempt: it may be truncated, or its storage is down."
    return "The file is truncated, damaged or not a ROOT file: replace it, or take it out of the fileset."
