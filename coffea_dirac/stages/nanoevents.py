"""Events that were opened elsewhere, or arrays of them, as arguments of stages: which data they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from coffea_dirac.fingerprint import describe
from coffea_dirac.inputs.identity import FileIdentity, Reading, read_identity
from coffea_dirac.interfaces import Versions
from coffea_dirac.stages.sources import ItemSource, factory_of


class Finder:
    """Finds which data an array of events is, or was taken out of.

    Parameters
    ----------
    identify : callable
        (file, tree) -> the identity of the file.
    versions : "exact" or "minor"
        How versions of installed packages count.
    """

    def __init__(self, identify: Callable[[str, str], FileIdentity], *, versions: Versions = "exact") -> None:
        self._identify, self._versions = identify, versions

    def source(self, value: Any, *, with_metadata: bool = True) -> ItemSource | None:
        """Return `value` as data if it is all that a ``NanoEventsFactory`` made of a file, unchanged; else None.

        Parameters
        ----------
        with_metadata : bool
            Whether its metadata are a part of what it is; not where it is noted which of them are read.
        """
        factory = factory_of(value)
        if factory is None or getattr(factory, "_mode", "") != "virtual" or len(value) != len(factory):
            return None
        content, origin = _content(value, factory._partition_key, with_metadata=with_metadata), self.origin(factory)
        if content is None or not origin:
            return None
        schema = describe({"schema": type(factory._schema)}, versions=self._versions).digest
        text = "\0".join(("events 1", origin, schema, content))
        source = ItemSource(hashlib.sha256(text.encode()).hexdigest(), lambda: value)
        source.take(value)
        return source

    def origin(self, factory: Any) -> str:
        """Return what identifies the file and the entries of a factory's events, empty if these are not of a file."""
        from coffea.nanoevents.util import key_to_tuple

        uuid, tree, entries = key_to_tuple(factory._partition_key)
        path = getattr(getattr(factory._mapping, "_fileopener", None), "_uuid_pfnmap", {}).get(uuid)
        if path is None:
            return ""
        return "\0".join((self._identify(path, tree.partition(";")[0].strip("/")).digest, tree, entries))


def _content(value: Any, prefix: str, *, with_metadata: bool) -> str | None:
    """Return what tells the columns and their places in the file; None if anything is not as it came from there."""
    import awkward as ak

    form, _, buffers = ak.to_buffers(value)
    described = form.to_dict()
    if not with_metadata:
        described["parameters"] = {n: v for n, v in (described.get("parameters") or {}).items() if n != "metadata"}
    keys: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(buffers):
        key = getattr(buffers[name], "buffer_key", None)
        if key is None or not key.startswith(prefix):
            return None
        node, _, attribute = name.partition("-")
        keys.setdefault(node, []).append((attribute, key.removeprefix(prefix)))
    text = json.dumps(_without_order(described, keys), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_order(form: Any, keys: dict[str, list[tuple[str, str]]]) -> Any:
    """Return a form with fields by name, whose order follows the hash seed, and buffers by where they come from."""
    if isinstance(form, list):
        return [_without_order(item, keys) for item in form]
    if not isinstance(form, dict):
        return form
    found = {name: _without_order(part, keys) for name, part in form.items() if name not in ("form_key", "fields")}
    found["buffers"] = keys.get(form.get("form_key") or "", [])
    if form.get("fields") is not None:
        found["contents"] = dict(zip(form["fields"], found["contents"], strict=True))
    return found


class Identities:
    """Identities of files, each read once in the life of this object."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], FileIdentity] = {}

    def __call__(self, path: str, tree: str) -> FileIdentity:
        """Return the identity of a file; errors as for `read_identity`."""
        found = self._known.get((path, tree))
        if found is None:
            kind = "parquet" if path.endswith((".parquet", ".parq")) else "root"
            found = self._known[path, tree] = read_identity(path, tree, Reading(kind))
        return found
