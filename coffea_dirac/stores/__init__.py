"""Stores: where blobs are kept.  `open_store` makes one from what a user writes.

Each store is one file that knows one foreign library; `coffea_dirac.interfaces.Store` says what all of them can do and
`coffea_dirac.testing.StoreTests` checks it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Store
from coffea_dirac.stores.local import LocalStore
from coffea_dirac.stores.remote import RemoteStore

__all__ = ["LocalStore", "RemoteStore", "copies_of", "open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# What people and catalogues write -> what the protocol is called here.
_REMOTE = {
    "root": "root",
    "roots": "root",
    "xroot": "root",
    "xroots": "root",
    "https": "https",
    "davs": "https",
    "http": "http",
    "dav": "http",
    "s3": "s3",
}
# A scheme that is known and no URL: "root:/host/x" is what pathlib makes of one.
_NEARLY = re.compile(rf"({'|'.join([*_REMOTE, 'rucio', 'file'])})(:/?|/{{2,}})(?!/)", re.IGNORECASE)
_NEEDS = {"root": ("XRootD", "xrootd"), "s3": ("s3fs", "s3")}


def open_store(place: str | os.PathLike[str] | Store) -> Store:
    """Return the store at a path or URL; a store is returned as it is.  Nothing is touched before its first use.

    Parameters
    ----------
    place : str or path-like or Store
        A directory (``~`` is understood, it need not exist yet), a ``file://`` URL, or a directory of a storage
        element: ``root://``, ``https://`` (or ``davs://``: WebDAV) and ``s3://bucket/prefix``; or a cache that was
        published as a dataset, ``rucio://scope:name``, to be read only.

    Raises
    ------
    ConfigurationError
        If no store belongs to `place`, or the package that reaches it is not installed.

    Examples
    --------
    >>> open_store("file:///tmp/stages").url
    'file:///tmp/stages'
    >>> open_store(open_store("/tmp/stages")).url
    'file:///tmp/stages'
    >>> open_store("davs://store.example.org:2880/jdoe/stages/").url
    'https://store.example.org:2880/jdoe/stages'
    """
    if not isinstance(place, str | os.PathLike):
        if isinstance(place, Store):
            return place
        raise ConfigurationError(
            f"{place!r} is not a store: give a directory or a URL, for example open_store('stages')"
        )
    text = os.fspath(place)
    if not isinstance(text, str) or not text:
        raise ConfigurationError(
            f"{place!r} names no place for a store: give a directory, for example open_store('stages')"
        )
    if text.lower() == "off":
        raise ConfigurationError(
            f"{text!r} would be a directory here: for no cache write cache=None, for that directory './{text}'"
        )
    scheme = _SCHEME.match(text)
    if scheme is None:
        if nearly := _NEARLY.match(text):
            url = f"{nearly[1]}://{'/' * (nearly[1].lower() == 'file')}{text[nearly.end() :]}"
            raise ConfigurationError(
                f"{text!r} would be a directory here, and is probably a URL that lost a part, as in a pathlib.Path: "
                f"write it as text, {url!r}; for that directory './{text}'"
            )
        return LocalStore(text)
    rest = text[scheme.end() :]
    if scheme[1].lower() in _REMOTE:
        return _remote_store(_REMOTE[scheme[1].lower()], rest)
    if scheme[1].lower() == "rucio":
        return _published_store(rest)
    path = rest.removeprefix("localhost")
    if scheme[1].lower() == "file" and path.startswith("/"):
        return LocalStore(path)
    raise ConfigurationError(
        f"there is no store for {text!r}: what works is a directory that all workers share ('stages', "
        "'file:///data/jdoe/stages') or one of a storage element (root://, https://, davs://, s3://)"
    )


def _remote_store(scheme: str, rest: str) -> RemoteStore:
    parts = urlsplit(f"{scheme}://{rest}")
    if parts.username or parts.query or parts.fragment:
        raise ConfigurationError(
            f"the URL of a store is shown and kept, so it has no user, password or query: {scheme}://{parts.hostname}"
            "..., with a token in BEARER_TOKEN or BEARER_TOKEN_FILE, a proxy in X509_USER_PROXY, S3 keys in AWS_PROFILE"
        )
    try:
        parts.port  # noqa: B018 - looked at when it is asked for
    except ValueError as error:
        raise ConfigurationError(f"'{scheme}://{rest}' has no port that can be: {error}; 1094 is usual") from None
    if not parts.hostname or not parts.path.strip("/"):
        example = "s3://bucket/jdoe/stages" if scheme == "s3" else f"{scheme}://store.example.org//jdoe/stages"
        raise ConfigurationError(f"'{scheme}://{rest}' does not name a folder of a storage: write {example!r}")
    module, extra = _NEEDS.get(scheme, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise ConfigurationError(f"{scheme}:// needs one more package: pip install 'coffea_dirac[{extra}]'")
    path = parts.path.rstrip("/")
    return RemoteStore(f"{scheme}://{parts.netloc}{'//' + path.lstrip('/') if scheme == 'root' else path}")


def _published_store(did: str) -> Store:
    scope, _, name = did.partition(":")
    if not scope or not name:
        raise ConfigurationError(f"'rucio://{did}' names no dataset: write 'rucio://user.jdoe:ttbar-cache'")
    if importlib.util.find_spec("rucio") is None:
        raise ConfigurationError("rucio:// needs one more package: pip install 'coffea_dirac[rucio,xrootd]'")
    from coffea_dirac.stores.published import PublishedStore

    return PublishedStore(f"rucio://{did}")


def copies_of(store: Store) -> Store | None:
    """Return where index blobs of a store far away are kept on this machine; None if the store is near.

    Examples
    --------
    >>> copies_of(open_store("stages")) is None
    True
    """
    if isinstance(store, LocalStore) or "://" not in store.url:
        return None
    import platformdirs

    name = hashlib.sha256(store.url.encode()).hexdigest()[:32]
    return LocalStore(Path(platformdirs.user_cache_dir("coffea_dirac")) / "indexes" / name)
