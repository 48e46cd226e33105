"""The errors a run ends with: what happened, why probably, and the corrected call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coffea_dirac.errors import InputError, ProcessingError

if TYPE_CHECKING:
    from coffea_dirac.calls import ProcessingCall
    from coffea_dirac.work import Receipt


def read_error(item: Any, error: Exception) -> InputError:
    """Return the error for a file whose metadata cannot be read."""
    return InputError(
        f"cannot read tree {item.treename!r} of {item.filename} (dataset {item.dataset!r}): {_first(error)}. "
        f"{_advice(error)} "
        "Nothing has been processed; Runner(skipbadfiles=True) leaves unreadable files out and names them."
    )


def stale_plan(item: Any, planned: int, found: int) -> InputError:
    """Return the error for work items that were planned for another version of a file."""
    return InputError(
        f"{item.filename} has {found} entries in {item.treename!r}, but its work items were planned for {planned}. "
        "Probably the "
        "file was replaced after coffea had read its metadata: plan again with Runner(..., metadata_cache={})."
    )


def processing_error(item: Any, call: ProcessingCall, receipt: Receipt) -> ProcessingError | InputError:
    """Return the error for a work item that failed, with the call that runs it again in this process."""
    error = receipt.error
    assert error is not None, "asked for a failed item only"
    entries = f"entries {item.entrystart} to {item.entrystop}"
    place = f"{item.filename}, tree {item.treename!r}, {entries} (dataset {item.dataset!r})"
    cause = _origin(error)
    again = (
        "To run it again in this process: processor.Runner(executor=DiracExecutor(inline=True, cache=None), "
        f"schema={getattr(call.arguments['schema'], '__name__', call.arguments['schema'])})([{_item_call(item)}], "
        "processor)"
    )
    what = f"{type(cause).__name__}: {_first(cause)}"
    if str(error).startswith("Failed to open file"):
        found: ProcessingError | InputError = InputError(f"cannot open {place}: {what}. {_advice(cause)} {again}")
    else:
        at = f"\n  at {receipt.where}" if receipt.where else ""
        found = ProcessingError(f"{what}{at}\n  in {place}. All other results so far are kept.\n{again}")
    for note in getattr(error, "__notes__", ()):
        found.add_note(f"At the worker:\n{note}")
    found.__cause__ = error
    return found


def _item_call(item: Any) -> str:
    return (
        f"processor.executor.WorkItem({item.dataset!r}, {item.filename!r}, {item.treename!r}, {item.entrystart}, "
        f"{item.entrystop}, {item.fileuuid!r}, {item.usermeta!r})"
    )


def _origin(error: BaseException) -> BaseException:
    """Return the user's own exception behind coffea's "Failed processing file"."""
    wrapped = str(error).startswith(("Failed processing file", "Failed to open file", "Failed creating nanoevents"))
    return error.__cause__ if wrapped and error.__cause__ is not None else error


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "; ".join(lines[:3]).rstrip(".") if lines else type(error).__name__


def _advice(error: BaseException) -> str:
    text = f"{type(error).__name__} {error}"
    if isinstance(error, FileNotFoundError):
        return "The file is missing here: correct its name in the fileset."
    if isinstance(error, PermissionError):
        return "The file may not be read: correct its permissions."
    if isinstance(error, KeyError) or "KeyInFileError" in text:
        return "The file has no such tree: give its name as Runner(...)(fileset, processor, treename=...)."
    if isinstance(error, OSError) and error.errno is not None:
        return "The file could not be read, also not at a second attempt: it may be truncated, or its storage is down."
    return "The file is truncated, damaged or not a ROOT file: replace it, or take it out of the fileset."
