"""A stage is run: on values in place of handles, in a window that notes what it reads, and it must change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from coffea_dirac.context import let
from coffea_dirac.errors import StageError
from coffea_dirac.inputs.discovery import Window, recording
from coffea_dirac.inputs.files import File
from coffea_dirac.inputs.metadata import RecordingMetadata
from coffea_dirac.inputs.paths import digest_path
from coffea_dirac.interfaces import Discovered
from coffea_dirac.stages.calls import LOOKED_AT
from coffea_dirac.stages.handles import ACTIVE, CALLED, RUNNING, Handle, filled, replaced
from coffea_dirac.stages.mutation import Snapshot


class Execution(NamedTuple):
    """What a stage returned, and what is known of how.

    `inputs` is what it read itself; `problem`, why that cannot be checked later, empty if it can; `written`, the files
    that it wrote.
    """

    value: Any
    inputs: frozenset[Discovered]
    problem: str
    written: frozenset[str]
    seconds: float


def execute(
    handle: Handle, value_of: Callable[[Any], Any], *, ignored: list[str], named_files: Mapping[str, str]
) -> Execution:
    """Run the stage of a handle.

    Parameters
    ----------
    value_of : callable
        Part of an argument -> what stands there when the stage runs.
    ignored : list of str
        Files and folders whose reading does not count.
    named_files : mapping
        The files that its strings name, with digests.

    Raises
    ------
    StageError
        It changes what it is given or reads, or something has changed that since the call.
    """
    if (name := _changed(handle)) is not None:
        raise StageError(
            f"stage {handle.stage.name}: {name} was changed after the call, before the result was pulled: pass a copy, "
            "or change it before the call; a function keeps what it has by a default, as in lambda pt, up=up: up * pt"
        )
    started = time.perf_counter()
    arguments = {name: filled(value, value_of) for name, value in handle.arguments.values.items()}
    # What came as a value is compared by its digest.
    metadata = handle._graph.metadata
    snapshot = Snapshot(arguments, apart={id(metadata), *(id(value) for _, value, _ in handle.arguments.changeable)})
    window = Window(ignored, _reaching(handle))
    value = _called(handle, arguments, window)
    seconds = time.perf_counter() - started
    if (name := snapshot.first_change()) is not None:
        raise _changes(handle, f"its argument {name}")
    if isinstance(metadata, RecordingMetadata) and not metadata.is_untouched:
        raise _changes(handle, "the metadata of the work item")
    if (name := _changed(handle, has_run=True)) is not None:
        raise _changes(handle, name)
    problem = _problem(window, named_files)
    return Execution(value, frozenset(window.inputs()), problem, frozenset(window.written), seconds)


def _reaching(handle: Handle) -> Callable[[str], bool]:
    stage, templates = handle.stage, handle._graph.templates
    # The instance of a method belongs to its template; any other object may bring code along.
    values = list(handle.arguments.values.values())[1 if stage.is_method else 0 :]
    if all(map(_is_plain, values)):
        return lambda name: templates.reaches(handle.template, name)
    return lambda name: True


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | dict):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    kind = type(value)
    return kind in (Handle, File, str, bytes, int, float, bool, type(None), slice) or hasattr(kind, "is_whole")


def _called(handle: Handle, arguments: Mapping[str, Any], window: Window) -> Any:
    stage = handle.stage
    bound, running = stage.bind(arguments), (*RUNNING.get(), stage)
    try:
        with let(ACTIVE, None), let(RUNNING, running), let(CALLED, handle.fingerprint), recording(window):
            # Returned as they are, all of them are read.
            return replaced(stage.function(*bound.args, **bound.kwargs), RecordingMetadata.copy, RecordingMetadata)
    except Exception as error:
        if isinstance(error, ValueError) and "read-only" in str(error):
            raise _changes(handle, "an array among its arguments") from error
        error.add_note(f"in stage {stage.name}")
        raise


def _changed(handle: Handle, *, has_run: bool = False) -> str | None:
    """Return what is not as it was when the stage was called, None if all is."""
    graph, arguments = handle._graph, handle.arguments
    where = graph.templates.changed(handle.stage, arguments.values, handle.template, has_run=has_run)
    if where is not None:
        return f"{'its instance' if handle.stage.is_method else 'what it reads'} ({where})"
    for name, value, digest in arguments.changeable:
        if has_run and isinstance(value, LOOKED_AT):
            # What a function remembers of its own run is no change.
            continue
        if graph.digest(handle.stage, name, value) != digest:
            return f"its argument {name}" if not isinstance(value, LOOKED_AT) else f"what its argument {name} uses"
    return None


def _changes(handle: Handle, what: str) -> StageError:
    return StageError(
        f"stage {handle.stage.name} changes {what}: others use the same. Work on a copy of it (copy.deepcopy, "
        "numpy.array, ak.copy), and return that"
    )


def _problem(window: Window, named_files: Mapping[str, str]) -> str:
    """Enter the named files into what was read; return why that cannot be checked later, empty if it can."""
    problem = window.unchecked
    for name, digest in named_files.items():
        if name not in window.written:
            window.files.setdefault(name, digest)
    for name, digest in window.files.copy().items():
        if name in window.written:
            continue
        if digest_path(name) != digest:
            problem = problem or f"{name} changed while it was read"
        if digest.startswith("unreadable"):
            problem = problem or f"{name} cannot be read again for a check ({digest}): pass it as File({name!r})"
    return problem
