"""One work item at a worker: its events, the user's processor with its stages, what it read and what it cost."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from coffea_dirac.calls import added_metadata, item_metadata
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.discovery import Window
from coffea_dirac.inputs.paths import files_named
from coffea_dirac.interfaces import Json, Outcome
from coffea_dirac.redact import without_secrets
from coffea_dirac.stages.keeper import Keeper
from coffea_dirac.stages.reevaluation import evaluator_of
from coffea_dirac.stages.resources import Blocked, Grant
from coffea_dirac.stages.staged import ItemPlace, StagedProcessor, source_identity
from coffea_dirac.stages.templates import Templates
from coffea_dirac.worker.reading import Opened, Reader, checked, failed, is_known
from coffea_dirac.worker.task import Task

_NEEDS_DATA = object()
_LOCK = threading.Lock()


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
        damaged = lake.claims(self._item.filename)
        return {
            "outcomes": tuple(self.outcomes),
            "notes": notes,
            "verified": tuple(self.verified),
            "damaged": damaged,
        }

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
        try:
            return lake.survive(self._item.filename, self.attempt, self._reader.close)
        except SystemExit as error:
            # An error as any other: what user code calls shall end neither a worker nor the submitter.
            raise RuntimeError(failed("Failed processing file", self._item, error)) from error

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

        # Schemas write into what they are given.
        opened = self._reader.open(self._item, dict(self._metadata))
        processor.columns = opened.columns
        return self._measured(processor, opened, lambda: process(opened.events))

    def _without_data(self) -> dict[str, Any] | None:
        """Do without opening the file, if all that is needed of it is kept; None if ``process`` wants data."""
        processor, opened = self._processor(), list[Opened]()

        def open_now() -> Any:
            opened.append(self._reader.open(self._item, dict(self._metadata)))
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
            facts(item),
            ignored,
            self._can_run,
            added_metadata(task.call.arguments.get("schema")),
        )
        processor = StagedProcessor(
            task.call.processor,
            self.window,
            place,
            _templates(task),
            self._keeper,
            self._note,
            evaluator=evaluator_of(task.verification),
            is_encoded=True,
        )
        self._attempts.append(processor)
        self.verified = processor.verified
        return processor

    def _can_run(self, wanted: Mapping[str, float]) -> bool:
        return self._grant is None or self._grant.allows(wanted)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def facts(item: Any) -> dict[str, Json]:
    """Return what a record says of the work item it came from."""
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
    return [*lake.read_here(item.filename), *([url.removeprefix("file://")] if url else [])]
