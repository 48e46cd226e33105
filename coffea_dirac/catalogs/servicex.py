"""Files that ServiceX has delivered, as a fileset of logical files: the same request is the same data, wherever it is.

ServiceX is not asked for anything here and its client is not imported: what that has returned is enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.inputs import lake
from coffea_dirac.interfaces import LogicalFile, Replica

SCOPE = "servicex"
_RSE = "ServiceX"
_LEAST_DIGITS = 32


def servicex_fileset(
    delivered: Mapping[str, Iterable[str | os.PathLike[str]]],
    requests: Mapping[str, Any] | Iterable[Any],
    *,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    treename: str | None = None,
) -> dict[str, Any]:
    """Return a fileset of files that ServiceX has delivered, whose results are found again after another delivery.

    A file is its request and its name: another signature of its URL, another object store or a copy on this machine
    is the same file, and what another request has made is another one, whatever it is called.

    Parameters
    ----------
    delivered : mapping
        Sample -> paths or URLs of its files, as `servicex.deliver` returns it.
    requests : mapping or iterable
        The `TransformedResults` that ServiceX's client remembers, of which those are taken that have these files; or
        sample -> one of them, a `TransformRequest`, or the hash of the request.
    metadata : mapping, optional
        Sample -> metadata of the dataset.
    treename : str, optional
        The tree in each file, for filesets that need it there.

    Raises
    ------
    ConfigurationError
        A sample has no files, or files of the same name, or it is not known which request has made them.

    Examples
    --------
    >>> delivered = {"ttbar": ["https://store.example.org/ba5e/nano_1.parquet?X-Amz-Signature=0123"]}
    >>> servicex_fileset(delivered, {"ttbar": "c0ffee" * 10})
    {'ttbar': {'files': ['lfn://servicex:c0ffeec0ffeec0ff/nano_1.parquet'], 'metadata': {}}}
    """
    if not isinstance(delivered, Mapping) or not delivered:
        raise ConfigurationError(f"{type(delivered).__name__} is no delivery: give what servicex.deliver(...) returns")
    found: dict[str, Any] = {}
    remembered = requests if isinstance(requests, Mapping) else list(requests)
    for sample, files in delivered.items():
        places = [os.fspath(file) for file in files]
        names = _know(sample, places, _hash_of(sample, places, remembered))
        known = dict.fromkeys(names, treename) if treename is not None else names
        found[sample] = {"files": known, "metadata": dict((metadata or {}).get(sample, {}))}
    return found


def _hash_of(sample: str, places: Sequence[str], requests: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return the hash of the request that has made these files: a wrong one would give results of other data."""
    if isinstance(requests, Mapping):
        request = requests.get(sample)
        fits = [request] if not hasattr(request, "file_list") or _has(request, places) else []
    else:
        fits = [one for one in requests if _has(one, places)]
    found = {text for text in map(_hash, fits) if isinstance(text, str) and len(text) >= _LEAST_DIGITS}
    if len(found) != 1:
        raise ConfigurationError(
            f"it is not known which request has made the files of {sample!r}: give servicex_fileset(delivered, "
            "ServiceXClient().query_cache.cached_queries()), or {sample: hash of its TransformRequest}"
        )
    return found.pop()


def _hash(request: Any) -> Any:
    compute = getattr(request, "compute_hash", None)
    return compute() if callable(compute) else getattr(request, "hash", request)


def _has(results: Any, places: Sequence[str]) -> bool:
    """Whether all of these files are what a request has brought, however their URLs are signed."""
    lists = (getattr(results, "file_list", None), getattr(results, "signed_url_list", None))
    brought = {_unsigned(os.fspath(place)) for some in lists for place in some or ()}
    return bool(places) and brought.issuperset(map(_unsigned, places))


def _unsigned(place: str) -> str:
    return place.partition("?")[0] if "://" in place else os.path.abspath(place)  # noqa: PTH100 - a text stays a text


def _know(sample: str, places: list[str], request: str) -> list[str]:
    files = {}
    for place in places:
        name = _name_of(place)
        lfn = f"{SCOPE}:{request[:16]}/{name}"
        if name == "" or lfn in files:
            raise ConfigurationError(f"{sample!r} has two files with the name {name!r}: they cannot be told apart")
        where = place if "://" in place else _unsigned(place)
        files[lfn] = LogicalFile(lfn, -1, "", (Replica(lfn, _RSE, where),), request)
    if not files:
        raise ConfigurationError(f"{sample!r} has no files: look whether ServiceX has delivered it")
    lake.know(files.values())
    return [lake.PREFIX + lfn for lfn in files]


def _name_of(place: str) -> str:
    """Return what a file is called: the last part of its path, without what signs a URL."""
    path = unquote(urlsplit(place).path) if "://" in place else place
    return path.rpartition("/")[2]
