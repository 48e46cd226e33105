"""What runs at a worker: process the work items of a bundle, keep their results in packs.

Nothing here knows of dask: `run_bundle` is a plain function of values, called by a dask task or directly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.environment import environment
from coffea_dirac.errors import CodecError, StageError, chain
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.discovery import Window
from coffea_dirac.inputs.paths import digest_path
from coffea_dirac.interfaces import Discovered, Json, Record, Row
from coffea_dirac.stages.handles import HANDLE_PLACES, Handle, replaced
from coffea_dirac.stages.resources import Blocked, Grant
from coffea_dirac.worker.failures import innermost, told, user_line, with_retries
from coffea_dirac.worker.item import Item, facts
from coffea_dirac.worker.reading import Reader
from coffea_dirac.worker.sealed import is_wanted
from coffea_dirac.worker.shelf import Receipt, Shelf
from coffea_dirac.worker.task import TASKS, Task


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
    shelf = Shelf(task, name, None if task.inline else grant, rows)
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


def _process(task: Task, shelf: Shelf, reader: Reader, position: int, item: Any, key: str) -> Receipt:
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
    return _receipt(task, shelf, position, item, key, result, work, seconds)


def _site() -> str:
    """Return where this is by DIRAC's name, if it has one."""
    return os.environ.get("DIRACSITE", "")


def _receipt(
    task: Task,
    shelf: Shelf,
    position: int,
    item: Any,
    key: str,
    result: dict[str, Any],
    work: Item,
    seconds: float,
) -> Receipt:
    out, metrics = result["out"], result["metrics"]
    site, payload, why = _site(), None, ""
    try:
        payload = codecs.encode(out)
    except CodecError as error:
        if error.type_name == f"{Handle.__module__}.{Handle.__qualname__}":
            # Nothing would ever pull it there.
            lost = StageError(f"process() returns a handle where it cannot be pulled: {error.path}. {HANDLE_PLACES}")
            return Receipt(position, error=lost, **work.told())
        why = str(error)
    # Not before: what a result still reads is read when it is encoded, and metadata in its arrays count then.
    inputs, written, problem = _all_inputs(task, work.window)
    common: dict[str, Any] = {"seconds": seconds, "metrics": metrics, "written": written, "site": site, **work.told()}
    if payload is None:
        value = replaced(out, lambda payload: codecs.decode(*payload), codecs.Payload)
        return Receipt(position, value=value, not_kept=why, **common)
    if problem or not key:
        return Receipt(position, payload=(payload.codec, payload.data), not_kept=problem, **common)
    info: dict[str, Json] = {
        "stage": task.stage,
        **facts(item),
        "seconds": round(seconds, 6),
        "created_s": round(time.time(), 3),
        "environment": environment(),
        "entries": int(metrics.get("entries", 0)),
        "columns": sorted(metrics.get("columns", ())),
        **({"site": site} if site else {}),
        **({"rses": rses} if (rses := lake.rses_read(item.filename)) else {}),
        # Whoever finds the record of a worker that did not live to tell has to tell this too.
        **({"notes": list(notes)} if (notes := common["notes"]) else {}),
    }
    shelf.keep(Record(key, payload.data, payload.codec, inputs, info=info))
    return Receipt(position, payload=(payload.codec, payload.data), key=key, **common)


def _all_inputs(task: Task, window: Window) -> tuple[tuple[Discovered, ...], tuple[str, ...], str]:
    """Return the inputs of a work item: what its window saw and the files that its code names."""
    problem = window.unchecked
    for name, digest in task.named_files.items():
        if name not in window.written:
            window.files.setdefault(name, digest)
    for name, digest in window.files.copy().items():
        if name not in window.written and digest_path(name) != digest:
            problem = problem or f"{name} changed while it was read"
        if digest.startswith("unreadable"):
            problem = problem or f"{name} cannot be read again for a check ({digest}): pass it as File({name!r})"
    return window.inputs(), tuple(sorted(window.written)), problem
