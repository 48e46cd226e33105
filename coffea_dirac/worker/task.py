"""What travels to the workers once per run: the call, its template, and where its code comes from.

The worker fingerprints what it really unpickled.  If that differs from what the submitter fingerprinted it forgets the
user's modules and imports them again, those that came with the task first; if it still differs, nothing it computes is
kept or used.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle

from coffea_dirac import codecs
from coffea_dirac.calls import ProcessingCall
from coffea_dirac.errors import CodeMismatchError
from coffea_dirac.fingerprint import Ingredients, describe, diff
from coffea_dirac.fingerprint.packages import counted_version
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.files import settle_files
from coffea_dirac.interfaces import Store, Versions
from coffea_dirac.stages.verifying import NEVER, Verification
from coffea_dirac.worker.modules import SHELF, forget, missing, user_modules

# Methods that do not run for a work item: their bodies enter only if other code names them.
OMITTED_METHODS = ("postprocess",)
_REMEMBERED = 4


@dataclass(frozen=True)
class Task:
    """All that is the same for every work item of a run.

    `template` is what the submitter sees, None if it has no fingerprint; `named_files` are the files that strings in
    the code name; `versions` says how those of installed packages count, `verification` how much of what is found is
    computed again; with `collect` a work item that fails does not keep the next ones from being processed.  For stages:
    `reading` is the digest of how data are read, `identities` are those of the input files by file and tree, `files`
    the contents of `File` objects; `lake` is where logical files are; `modules` are the user's own, by path, for
    workers that do not see them; `memory` is what a process notes for itself.
    """

    call: ProcessingCall
    template: Ingredients | None
    stage: str
    schema_settings: Mapping[tuple[str, str], Mapping[str, Any]]
    store: Store | None
    session: str
    named_files: Mapping[str, str]
    io_retries: int
    cwd: str
    sys_path: tuple[str, ...]
    inline: bool = False
    collect: bool = False
    has_stages: bool = False
    stage_options: Mapping[tuple[str, str], tuple[bool, dict[str, float]]] = field(default_factory=dict)
    versions: Versions = "exact"
    verification: Verification = NEVER
    reading: str = ""
    identities: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    lake: lake.Told = field(default_factory=lake.Told)
    modules: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


def reading_of(call: ProcessingCall, *, versions: Versions = "exact") -> str:
    """Return the digest of how data are read: what a stage sees of a file besides the file itself."""
    roots = {name: part for name, part in _roots(call, versions).items() if name != "processor"}
    return describe(roots, versions=versions).digest


def template_of(
    call: ProcessingCall, sources: Mapping[str, str] | None = None, *, versions: Versions = "exact"
) -> Ingredients:
    """Return what all work items of a call have in common: code, state, schema, options, versions."""
    return describe(_roots(call, versions), omit=OMITTED_METHODS, sources=sources, versions=versions)


def _roots(call: ProcessingCall, versions: Versions) -> dict[str, Any]:
    import awkward
    import coffea
    import uproot

    return {
        "processor": call.processor,
        "schema": call.arguments["schema"],
        "options": call.options(),
        "versions": {m.__name__: counted_version(m.__version__, versions) for m in (awkward, coffea, uproot)},
    }


def schema_settings(schema: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the plain attributes of coffea's schema classes, which users set and workers therefore need."""
    found = {}
    for base in getattr(schema, "__mro__", ()):
        if base.__module__.startswith("coffea.nanoevents.schemas"):
            plain = {k: v for k, v in vars(base).items() if not k.startswith("__") and isinstance(v, _PLAIN)}
            found[base.__module__, base.__qualname__] = plain
    return found


_PLAIN = (bool, int, float, str, list, tuple, dict, set, frozenset, type(None))


def _settle_schemas(task: Task) -> None:
    for (module, name), settings in task.schema_settings.items():
        kind = getattr(importlib.import_module(module), name)
        for attribute, value in settings.items():
            if vars(kind).get(attribute) != value:
                setattr(kind, attribute, value)


class Tasks:
    """The tasks this process has unpickled and checked, by the digest of their bytes; a few, the newest last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Task] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, blob: bytes) -> Task:
        """Return the task that `pack_task` made `blob` of.

        Raises
        ------
        CodeMismatchError
            This process has other code than the submitter.
        """
        name = hashlib.sha256(blob).hexdigest()
        with self._lock:
            if name not in self._known:
                self._known[name] = _checked(blob)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(name)
            return self._known[name]


TASKS = Tasks()
"""Those of this process."""


def pack_task(task: Task) -> bytes:
    """Return the bytes that travel to the workers: where to import from, then the task."""
    modules = tuple(user_modules())
    head = pickle.dumps((task.cwd, task.sys_path, modules, task.modules, task.stage))
    body: bytes = cloudpickle.dumps(replace(task, modules={}))
    return len(head).to_bytes(8, "little") + head + body


def _checked(blob: bytes) -> Task:
    size = int.from_bytes(blob[:8], "little")
    cwd, sys_path, modules, files, stage = pickle.loads(blob[8 : 8 + size])  # noqa: S301 - from the submitter
    _import_from(cwd, sys_path)
    SHELF.place(files)
    body = blob[8 + size :]
    try:
        return _opened(body)
    except (CodeMismatchError, ModuleNotFoundError, AttributeError):
        # This process may have imported the user's modules before they were edited, or found others by their names:
        # forget them once and look again.
        forget(modules)
        SHELF.place(files, first=True)
    try:
        return _opened(body)
    except ModuleNotFoundError as error:
        raise CodeMismatchError(missing(error, stage)) from error


def _opened(body: bytes) -> Task:
    """Return the task, if it means here what it meant to the submitter."""
    task: Task = cloudpickle.loads(body)
    _settle_schemas(task)
    settle_files(task.files)
    lake.take(task.lake)
    codecs.offer(task.call.processor)
    if (expected := task.template) is not None:
        found = template_of(task.call, expected.sources, versions=task.versions)
        if found.digest != expected.digest:
            raise CodeMismatchError(_mismatch(task.stage, expected, found))
        _settle_stages(task, found.stages)
    return task


def stage_options(stages: Iterable[Any]) -> dict[tuple[str, str], tuple[bool, dict[str, float]]]:
    """Return what is no part of a fingerprint: whether a stage is kept, and what it needs of a worker."""
    return {(s.function.__module__, s.function.__qualname__): (s.keep, s.resources) for s in stages}


def _settle_stages(task: Task, stages: Iterable[Any]) -> None:
    """Take over such options: this process may have imported the stages before they were edited."""
    for stage in stages:
        name = stage.function.__module__, stage.function.__qualname__
        stage.keep, stage.resources = task.stage_options.get(name, (stage.keep, stage.resources))


def _import_from(cwd: str, sys_path: Sequence[str]) -> None:
    for entry in reversed([cwd, *sys_path]):
        if entry and entry not in sys.path and os.path.exists(entry):  # noqa: PTH110
            sys.path.insert(0, entry)


def _mismatch(stage: str, expected: Ingredients, found: Ingredients) -> str:
    modules = [
        f"{name} (here {found.modules.get(name, 'absent')[:12]}, there {digest[:12]})"
        for name, digest in expected.modules.items()
        if found.modules.get(name) != digest
    ]
    changes = "; ".join(change.text for change in diff(expected.tree, found.tree)[:3])
    return (
        f"the worker {os.getpid()} has other code than the submitter for {stage}: template "
        f"{found.digest[:12]} here, {expected.digest[:12]} there; modules that differ: "
        f"{', '.join(modules) if modules else 'none'}; seen from the submitter: {changes}. Probably a module was "
        "changed while the run went on, patched in the submitter's process only, or another version is installed at "
        "the worker. Its results are neither kept nor used: restart "
        "the workers, or make both the same."
    )
