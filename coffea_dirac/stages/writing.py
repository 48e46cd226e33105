"""``cache.write``: files as artefacts of a stage, and the fileset that the next Runner takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from coffea_dirac.errors import ConfigurationError, StageError
from coffea_dirac.inputs.discovery import made, unrecorded
from coffea_dirac.inputs.filesets import Fileset
from coffea_dirac.inputs.metadata import RecordingMetadata
from coffea_dirac.redact import without_secrets
from coffea_dirac.stages.handles import ACTIVE, CALLED, RUNNING, Handle
from coffea_dirac.stages.skims import write_file
from coffea_dirac.stages.stage import Stage

_FORMATS = ("parquet", "root")
# What coffea puts into the metadata of every work item.
_OF_ITEMS = ("dataset", "filename", "treename", "entrystart", "entrystop", "fileuuid")
_INSIDE = "inside of a stage: give it the handle of that stage, in process()"
_OUTSIDE = (
    "outside of a run: call it in process() under DiracExecutor or cache.wrap(processor), or in `with StageCache(...)`"
)


def written(array: Any, folder: str, format: str, treename: str, source: str) -> str:
    """Write a file whose name tells all that it was made of; return its path."""
    fingerprint = CALLED.get()
    path = f"{folder}{fingerprint[:24]}.{format}"
    with unrecorded():
        write_file(array, path, format=format, treename=treename, fingerprint=fingerprint)
    # A hit checks that the file is there, with this content.
    made(path)
    return path


def fileset(path: str, treename: str, dataset: str, metadata: dict[str, Any]) -> Fileset:
    """Return the fileset of one file."""
    return Fileset({dataset: {"files": {path: treename}, "metadata": metadata}})


# Their code is this package's, which no fingerprint covers: the version does.
_WRITTEN = Stage(written, version=1, writes=True)
_WRITTEN.name = "write"
_FILESET = Stage(fileset, version=1, keep=False, is_told=False)


def write(array: Any, folder: str | os.PathLike[str], *, format: str, treename: str, dataset: str | None) -> Handle:
    """Do what `StageCache.write` says."""
    graph, name = ACTIVE.get(), os.fspath(folder)
    if graph is None:
        raise StageError(f"cache.write() is called {_INSIDE if RUNNING.get() else _OUTSIDE}")
    if format not in _FORMATS:
        raise ConfigurationError(f'format is {format!r}: cache.write(array, "skims/", format="parquet") or "root"')
    if "://" in name:
        raise ConfigurationError(
            f"cache.write() writes into a directory, not to {without_secrets(name)!r}: give a path that this machine "
            "and all workers have"
        )
    own, metadata = _of_item(graph.metadata)
    # Other data is another file, also where nothing else tells: two work items may have the same, or nothing, to write.
    where = {"folder": name.rstrip("/") + "/", "format": format, "treename": treename, "source": graph.identity}
    path = graph.call(_WRITTEN, {"array": array, **where})
    arguments = {"path": path, "treename": treename, "dataset": dataset or own, "metadata": metadata}
    handle = graph.call(_FILESET, arguments)
    graph.wanted.append(handle)
    return handle


def _of_item(metadata: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Return the dataset of a work item, and what the fileset says of it."""
    if metadata is None:
        return "events", {}
    of_user = metadata.of_user(_OF_ITEMS) if isinstance(metadata, RecordingMetadata) else {}
    if of_user.get("version") == "latest":
        # Of the schema: coffea's Runner adds it.
        del of_user["version"]
    return str(metadata.get("dataset", "events")), of_user
