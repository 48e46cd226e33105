"""What runs at a worker: unpickle once, check the code, process work items, keep their results in packs.

Nothing here knows of dask: `run_bundle` is a plain function of values, called by a dask task or directly.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
from coffea.processor import ProcessorABC

from coffea_dirac import codecs, packs
from coffea_dirac.calls import ProcessingCall, item_metadata
from coffea_dirac.discovery import RecordingMetadata, Window, digest_path, recording
from coffea_dirac.errors import CodecError, CodeMismatchError, StoreError
from coffea_dirac.fingerprint import describe
from coffea_dirac.interfaces import Discovered, Json, Record, Row, Store
from coffea_dirac.reading import Reader, is_known

PACK_SECONDS = 0.3
RETRY_PAUSE_S = 0.5
# Failures to open that another attempt cannot mend.
_FINAL_OS_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
OMITTED_METHODS = ("postprocess",)


@dataclass(frozen=True)
class Task:
    """All that is the same for every work item of a run.

    `named_files` are the files that strings in the code name; `digest` is the template as the submitter sees it.
    """

    call: ProcessingCall
    digest: str
    stage: str
    sources: Mapping[str, str]
    modules: Mapping[str, str]
    store: Store | None
    session: str
    named_files: Mapping[str, str]
    io_retries: int
    cwd: str
    sys_path: tuple[str, ...]
    inline: bool = False


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
    written: tuple[str, ...] = ()
    skipped: str = ""
    error: BaseException | None = None
    where: str = ""


def template_of(call: ProcessingCall, sources: Mapping[str, str] | None = None) -> Any:
    """Return the ingredients of what all work items of a call have in common: code, state, schema, options, versions."""
    import awkward
    import coffea
    import uproot

    roots = {
        "processor": call.processor,
        "schema": call.arguments["schema"],
        "options": call.options(),
        "versions": {m.__name__: m.__version__ for m in (awkward, coffea, uproot)},
    }
    return describe(roots, omit=OMITTED_METHODS, sources=sources)


class _Tasks:
    """The tasks this process has unpickled and checked, by the digest of their bytes; a few, the newest last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Task] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, blob: bytes) -> Task:
        name = hashlib.sha256(blob).hexdigest()
        with self._lock:
            if name not in self._known:
                self._known[name] = _checked(blob)
                while len(self._known) > 4:
                    self._known.popitem(last=False)
            self._known.move_to_end(name)
            return self._known[name]


_tasks = _Tasks()


def pack_task(task: Task) -> bytes:
    """Return the bytes that travel to the workers: where to import from, then the task."""
    head = pickle.dumps((task.cwd, task.sys_path, dict(task.modules)))
    return len(head).to_bytes(8, "little") + head + cloudpickle.dumps(task)


def _checked(blob: bytes) -> Task:
    size = int.from_bytes(blob[:8], "little")
    cwd, sys_path, modules = pickle.loads(blob[8 : 8 + size])  # noqa: S301 - from the submitter, as every dask task
    _import_from(cwd, sys_path)
    body = blob[8 + size :]
    task: Task = cloudpickle.loads(body)
    if not task.digest or _digest(task) == task.digest:
        return task
    # This process may have imported the user's modules before they were edited: forget them once and look again.
    for name in modules:
        if name != "__main__":
            sys.modules.pop(name, None)
    task = cloudpickle.loads(body)
    found = template_of(task.call, task.sources)
    if found.digest != task.digest:
        raise CodeMismatchError(_mismatch(task, found))
    return task


def _digest(task: Task) -> str:
    return str(template_of(task.call, task.sources).digest)


def _import_from(cwd: str, sys_path: Sequence[str]) -> None:
    for entry in reversed([cwd, *sys_path]):
        if entry and entry not in sys.path and os.path.exists(entry):  # noqa: PTH110
            sys.path.insert(0, entry)


def _mismatch(task: Task, found: Any) -> str:
    other = [
        f"{name} (here {found.modules.get(name, 'absent')[:12]}, there {digest[:12]})"
        for name, digest in task.modules.items()
        if found.modules.get(name) != digest
    ]
    return (
        f"the worker {os.getpid()} has other code than the submitter for {task.stage}: "
        f"template {found.digest[:12]} here, {task.digest[:12]} there; modules that differ: {', '.join(other) or 'none'}. "
        "Probably a module was changed while the run went on, patched in the submitter's process only, or another version "
        "is installed at the worker. Its results are neither kept nor used: restart the workers, or make both the same."
    )


def run_bundle(blob: bytes, name: str, items: Sequence[tuple[int, Any, str]]) -> list[Receipt]:
    """Process the work items of one bundle in order and return a receipt for each that was reached.

    Parameters
    ----------
    blob : bytes
        What `pack_task` made.
    name : str
        The bundle's name, unique in the session: packs carry it, so that a second attempt finds what the first one kept.
    items : sequence of (position, WorkItem, key)
        An empty key means that the result is not to be kept.
    """
    task = _tasks.get(blob)
    shelf = _Shelf(task, name)
    receipts: list[Receipt] = []
    with Reader(task.call) as reader:
        for position, item, key in items:
            receipt = shelf.find(position, key) or _process(task, shelf, reader, position, item, key)
            receipts.append(receipt)
            if receipt.error is not None:
                break
    return shelf.close(receipts)


class _Shelf:
    """Where a bundle's results go: packs of `PACK_SECONDS` of work each, or nowhere once the store has failed."""

    def __init__(self, task: Task, name: str) -> None:
        self._task, self._name = task, name
        self._rows: dict[str, Row] = {}
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
        return Receipt(position, row=row, seconds=float(row.info.get("seconds", 0.0))) if row else None

    def keep(self, record: Record) -> None:
        if self._writer is None:
            return
        self._writer.add(record)
        if time.monotonic() - self._opened > PACK_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            return
        try:
            self._rows.update({row.key: row for row in self._writer.close()})
        except StoreError as error:
            self.problem, self._writer = str(error), None
        self._opened = time.monotonic()

    def close(self, receipts: list[Receipt]) -> list[Receipt]:
        """Return the receipts with rows instead of payloads wherever the store took the record."""
        self._flush()
        return [self._placed(r) for r in receipts]

    def _placed(self, receipt: Receipt) -> Receipt:
        if receipt.payload is None or not receipt.where:
            return receipt
        key = receipt.where
        changes: dict[str, Any] = {"where": ""}
        if key in self._rows:
            changes |= {"row": self._rows[key], "payload": None}
        elif self.problem:
            changes["not_kept"] = self.problem
        return Receipt(**{**_as_dict(receipt), **changes})


def _as_dict(receipt: Receipt) -> dict[str, Any]:
    return {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}


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
        return Receipt(position, error=error if task.inline else _portable(error), where=where)
    seconds = time.perf_counter() - started
    metrics = dict(result.get("metrics", {}))
    return _receipt(task, shelf, position, key, result["out"], window, seconds, metrics)


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


def with_retries(step: Callable[[], Any], io_retries: int, reset: Callable[[], None] = lambda: None) -> Any:
    """Return what `step` returns, with further attempts, after a `reset`, after errors of reading that may pass."""
    for n in range(io_retries):
        try:
            return step()
        except Exception as error:
            if not is_io_error(error):
                raise
            reset()
            time.sleep(RETRY_PAUSE_S * 2**n)
    return step()


def attempt(shared: tuple[Callable[[Any], Any], int], position: int, item: Any) -> tuple[int, Any, BaseException | None]:
    """Return (position, result, None), or (position, None, error) if the function of `shared` failed for `item`."""
    function, io_retries = shared
    try:
        return position, with_retries(lambda: function(item), io_retries), None
    except Exception as error:  # noqa: BLE001 - handed to the submitter, which raises it or skips the file
        return position, None, _portable(error)


def _receipt(
    task: Task, shelf: _Shelf, position: int, key: str, out: Any, window: Window, seconds: float, metrics: dict[str, Any]
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
        "seconds": round(seconds, 6),
        "entries": int(metrics.get("entries", 0)),
        "columns": sorted(metrics.get("columns", ())),
    }
    shelf.keep(Record(key, payload.data, payload.codec, inputs, info=info))
    return Receipt(position, payload=(payload.codec, payload.data), where=key, **common)


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


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and all it came from, outermost first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def innermost(error: BaseException) -> BaseException:
    """Return what started a chain of exceptions."""
    return chain(error)[-1]


def is_io_error(error: BaseException) -> bool:
    """Whether another attempt at reading could succeed."""
    links = chain(error)
    return any(isinstance(e, OSError) for e in links) and not any(isinstance(e, _FINAL_OS_ERRORS) for e in links)


def user_line(error: BaseException) -> str:
    """Return the last line of the user's own code in a traceback as ``file:line in function: text``."""
    from coffea_dirac.discovery import package_roots

    for link in reversed(chain(error)):
        for frame in reversed(traceback.extract_tb(link.__traceback__)):
            if not os.path.realpath(frame.filename).startswith(package_roots()):
                return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
    return ""


def _portable(error: BaseException) -> BaseException:
    """Return an exception that survives the way to the submitter, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    for link in chain(error):
        link.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, a moment old
    except Exception:  # noqa: BLE001 - any failure to pickle means the same
        plain = RuntimeError(f"{type(innermost(error)).__name__}: {innermost(error)}")
        plain.__notes__ = list(error.__notes__)
        return plain
    return error
