"""What a user names, in any of the forms that coffea knows, as dids with what is known of each file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import LogicalFile

_PREFIX = "lfn://"
_PLACES = ("lfn", "pfn")


class Wanted(NamedTuple):
    """What is wanted of one dataset: its dids, with what each of their files maps to, and URLs of replicas if any."""

    dids: dict[str, Any]
    urls: dict[str, Any]
    metadata: dict[str, Any]
    other: dict[str, Any]

    def by_lfn(self, dataset: str, files: Sequence[LogicalFile]) -> dict[str, Any]:
        """Return what each logical file maps to, of files that are given by the URL of a replica.

        Raises
        ------
        ConfigurationError
            A URL is none of a replica of these files.
        """
        by_pfn = {replica.pfn: file.lfn for file in files for replica in file.replicas}
        # A replica elsewhere, of which the catalog does not know any more, ends with the file's name as a rule.
        by_name = {file.lfn.partition(":")[2].rpartition("/")[2]: file.lfn for file in files}
        found = {}
        for url, value in self.urls.items():
            lfn = by_pfn.get(url) or by_name.get(url.rpartition("/")[2])
            if lfn is None:
                raise ConfigurationError(
                    f"{url} of {dataset!r} is no replica of a file of {', '.join(self.dids)}: correct the dataset's did"
                )
            found[_PREFIX + lfn] = value
        return found


def wanted(what: Any) -> dict[str, Wanted]:
    """Return what is wanted of each dataset.

    Examples
    --------
    >>> wanted("mc:ttbar")["mc:ttbar"].dids
    {'mc:ttbar': None}
    """
    if hasattr(what, "selected_datasets"):
        what = _discovered(what)
    elif hasattr(what, "model_dump"):
        what = what.model_dump()
    if isinstance(what, str):
        what = {what: what}
    elif isinstance(what, Sequence) and all(isinstance(did, str) for did in what):
        what = {did: did for did in what}
    if not isinstance(what, Mapping) or not what:
        raise ConfigurationError(f"{what!r} names no dataset: write resolve('user.jdoe:ttbar') or a mapping to dids")
    return {str(dataset): _wanted(str(dataset), spec) for dataset, spec in what.items()}


def _discovered(discovery: Any) -> dict[str, Any]:
    """Return the datasets that were selected in coffea's DataDiscoveryCLI, which knows Rucio's scope of CMS only."""
    metadata = discovery.selected_datasets_metadata
    return {
        name: {"files": f"cms:{name}", "metadata": dict(known or {})}
        for name, known in zip(
            discovery.selected_datasets, metadata or [{}] * len(discovery.selected_datasets), strict=True
        )
    }


def _wanted(dataset: str, spec: Any) -> Wanted:
    of_dataset = dict(spec) if isinstance(spec, Mapping) and "files" in spec else {"files": spec}
    files, metadata = of_dataset.pop("files"), dict(of_dataset.pop("metadata", None) or {})
    did = of_dataset.pop("did", None)
    if isinstance(files, Mapping) and set(files) == {"root"}:
        files = files["root"]
    values = {files: None} if isinstance(files, str) else files
    if isinstance(values, Collection) and not isinstance(values, Mapping) and all(isinstance(v, str) for v in values):
        values = dict.fromkeys(values)
    if not values or not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise ConfigurationError(f"{dataset!r} has files that are no dids: {files!r}")
    dids, urls = {}, {}
    for name, value in values.items():
        lfn = value.get("lfn") if isinstance(value, Mapping) else None
        kept = (
            {k: v for k, v in value.items() if k not in _PLACES and v is not None}
            if isinstance(value, Mapping)
            else value
        )
        place = lfn or name.removeprefix(_PREFIX)
        if "://" in place or (":" not in place and did):
            urls[name] = kept
        else:
            dids[place] = kept
    if urls and not did:
        raise ConfigurationError(
            f"{dataset!r} has the file {next(iter(urls))}, which is no did. Say which dataset it is of: "
            f"{{{dataset!r}: {{'files': ..., 'did': 'scope:name'}}}}"
        )
    other = {key: value for key, value in of_dataset.items() if value is not None}
    return Wanted({did: None} if urls else dids, urls, metadata, other)
