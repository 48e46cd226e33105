"""Arrays as files that coffea reads: columns named as NanoAOD names them, in parquet or in a TTree."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from coffea_dirac.errors import StageError

_NAMESPACE = uuid.UUID("5f1c9a44-6a0e-4d0b-9a55-0d3f1f0a7c11")


def write_file(array: Any, path: str, *, format: str, treename: str, fingerprint: str) -> None:
    """Write an array of records, or a dict of columns, as the file `path`, all of it or nothing.

    Parameters
    ----------
    format : "parquet" or "root"
        What kind of file.
    treename : str
        The name of the tree in it.
    fingerprint : str
        What the file is identified by.

    Raises
    ------
    StageError
        A column cannot be written; the message names it.
    """
    groups = dict(_groups(array))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Beside it first: another process may be writing the same.
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        _WRITERS[format](groups, partial, treename, uuid.uuid5(_NAMESPACE, fingerprint))
        os.replace(partial, path)  # noqa: PTH105 - both are texts
    finally:
        Path(partial).unlink(missing_ok=True)


def _groups(array: Any) -> Iterator[tuple[str, Any]]:
    """Yield columns by name: flat or jagged numbers, and records of such as dicts."""
    import awkward as ak

    fields = list(array) if isinstance(array, Mapping) else ak.fields(array)
    if not fields:
        raise StageError(
            f"cache.write() takes an array of records or a dict of arrays, not {type(array).__name__}: "
            'cache.write({"pt": pt}, "skims/")'
        )
    for name in fields:
        column = array[name]
        inner = [field for field in ak.fields(column) if not _is_made_by_schema(column, field)]
        if not inner:
            yield name, _numbers(name, column)
        else:
            yield name, {field: _numbers(f"{name}.{field}", column[field]) for field in inner}


def _is_made_by_schema(column: Any, field: str) -> bool:
    """Whether a field is one of the cross-references that NanoEvents makes of others; it is made again when read."""
    return field.endswith("IdxG") and column.layout.purelist_parameter("__record__") is not None


def _numbers(name: str, column: Any) -> Any:
    import awkward as ak

    given = ak.Array(column)
    plain = ak.to_packed(ak.without_parameters(given))
    kind = str(plain.type.content)
    words = kind.removeprefix("var * ").split(" ")
    is_text = given.layout.purelist_parameter("__array__") in ("string", "bytestring")
    if is_text or len(words) > 1 or not words[0].startswith(("int", "uint", "float", "bool")):
        what = "texts" if is_text else kind
        raise StageError(
            f"cache.write() cannot write the column {name}: it holds {what}. Columns are numbers, or lists of numbers, "
            "for each event; fill what is missing by ak.fill_none, and leave out what is neither"
        )
    return plain


def _inner(group: Any) -> dict[str, Any]:
    """Return the columns of a group by the names of its fields, of a single column by no name."""
    return group if isinstance(group, dict) else {"": group}


def _jagged(column: Any) -> bool:
    return bool(column.ndim > 1)


def _columns(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns by their names in NanoAOD, with a counter for each group of lists."""
    import awkward as ak
    import numpy as np

    found: dict[str, Any] = {}
    for name, group in groups.items():
        inner = _inner(group)
        lists = [column for column in inner.values() if _jagged(column)]
        if lists and f"n{name}" not in groups:
            found[f"n{name}"] = ak.values_astype(ak.num(lists[0]), np.int32)
        found.update({f"{name}_{field}" if field else name: column for field, column in inner.items()})
    return found


def _write_parquet(groups: Mapping[str, Any], path: str, treename: str, identity: uuid.UUID) -> None:
    import awkward as ak
    from pyarrow import parquet

    table = ak.to_arrow_table(ak.zip(_columns(groups), depth_limit=1), list_to32=True, extensionarray=False)
    # What coffea asks of a parquet file besides its columns.
    parquet.write_table(table.replace_schema_metadata({"uuid": str(identity), "object_path": treename}), path)


def _write_root(groups: Mapping[str, Any], path: str, treename: str, identity: uuid.UUID) -> None:
    import awkward as ak
    import uproot

    columns: dict[str, Any] = {}
    # Lists bring their own.
    counters = {f"n{name}" for name, group in groups.items() if any(map(_jagged, _inner(group).values()))}
    for name, group in groups.items():
        if name in counters:
            continue
        inner = _inner(group)
        lists = {field: column for field, column in inner.items() if _jagged(column)}
        columns.update({f"{name}_{field}" if field else name: c for field, c in inner.items() if field not in lists})
        if lists:
            columns[name] = ak.zip(lists) if "" not in lists else lists[""]
    types = {name: ak.type(c).content if _jagged(c) else c.type.content for name, c in columns.items()}
    with uproot.recreate(path, uuid_function=lambda: identity) as file:
        tree = file.mktree(treename, types, counter_name=lambda name: f"n{name}", field_name=_field_name)
        tree.extend(columns)


def _field_name(outer: str, inner: str) -> str:
    return f"{outer}_{inner}" if outer else inner


_WRITERS: Mapping[str, Callable[[Mapping[str, Any], str, str, uuid.UUID], None]] = {
    "parquet": _write_parquet,
    "root": _write_root,
}
