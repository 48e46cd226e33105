"""Catalogs: who knows where the replicas of logical files are.  `open_catalog` makes one from what a user writes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coffea_dirac.catalogs.listing import ListingCatalog
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Catalog

__all__ = ["ListingCatalog", "open_catalog"]


def open_catalog(
    place: str | os.PathLike[str] | Mapping[str, Any] | Catalog = "rucio",
    *,
    account: str | None = None,
    rse_expression: str | None = None,
    schemes: Sequence[str] = ("root", "roots", "https", "davs"),
    **options: Any,
) -> Catalog:
    """Return the catalog at a place; a catalog is returned as it is.  Nothing is asked before its first use.

    Parameters
    ----------
    place : str, path-like, mapping or Catalog
        ``"rucio"`` for the server of your ``rucio.cfg``, ``"https://rucio.example.org"`` for another one; a JSON file
        that `ListingCatalog.save` wrote, or a dictionary ``{did: {file did: {"size_bytes": .., "adler32": ..,
        "replicas": {rse: pfn}}}}``.
    account : str, optional
        Your account; by default what your ``rucio.cfg`` or ``RUCIO_ACCOUNT`` says.
    rse_expression : str, optional
        Which storages to consider, in Rucio's language: ``"country=UK"``, ``"qos=fast|SITE_A_DISK"``.
    schemes : sequence of str
        Which protocols workers can read by.
    **options
        What else `coffea_dirac.catalogs.rucio.RucioCatalog` takes: how to log in.

    Raises
    ------
    ConfigurationError
        If there is no such catalog, or Rucio's client is not installed.

    Examples
    --------
    >>> catalog = open_catalog({"mc:ttbar": {"mc:a.root": {"replicas": {"UK": "root://uk.example.org//a.root"}}}})
    >>> [file.lfn for file in catalog.locate(["mc:ttbar"])["mc:ttbar"]]
    ['mc:a.root']
    """
    if isinstance(place, Mapping):
        return ListingCatalog.of(place)
    if not isinstance(place, str | os.PathLike):
        if isinstance(place, Catalog):
            return place
        raise ConfigurationError(
            f"{place!r} is no catalog: write open_catalog('rucio') or open_catalog('snapshot.json')"
        )
    text = os.fspath(place)
    scheme = urlsplit(text).scheme
    if text != "rucio" and scheme not in ("http", "https"):
        if Path(text).is_file():
            return ListingCatalog.load(text)
        raise ConfigurationError(
            f"there is no catalog {text!r}: write 'rucio', its https:// URL, or an existing JSON file"
        )
    if importlib.util.find_spec("rucio") is None:
        raise ConfigurationError("Rucio needs one more package: pip install 'coffea_dirac[rucio]'")
    from coffea_dirac.catalogs.rucio import RucioCatalog

    url = None if text == "rucio" else text.rstrip("/")
    return RucioCatalog(url, account, rse_expression=rse_expression, schemes=tuple(schemes), **options)
