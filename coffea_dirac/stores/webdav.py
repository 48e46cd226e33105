"""How a WebDAV server does the four verbs: an XRootD, dCache, StoRM, EOS or Apache door for https.

What servers do with ranges is not always what the standard says (XRootD 5.5 ignores those that count from the end), so
only ranges that lie inside a file are asked for.
"""

from __future__ import annotations

import os
import posixpath
import re
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

import urllib3

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Blob
from coffea_dirac.stores.remote import DEADLINE_S, PassingError
from coffea_dirac.tokens import bearer_token, trouble

_AT_ONCE = 16
_MOST_REDIRECTS = 5
_PASSING = frozenset((408, 423, 425, 429, 500, 502, 503, 504))
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
_PROPERTIES = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"
)
_DAV = "{DAV:}"
Names: TypeAlias = list[str]
Folder: TypeAlias = tuple[list[Blob], Names]


class WebdavWire:
    """Files below a collection of a WebDAV server."""

    def __init__(self, url: str) -> None:
        self._url, self._path = url, urlsplit(url).path
        self._is_encrypted = url.startswith("https:")
        self._taken: dict[str, set[str]] = {}
        self._pool = urllib3.PoolManager(
            maxsize=_AT_ONCE,
            timeout=urllib3.Timeout(connect=DEADLINE_S / 2, read=DEADLINE_S),
            # What is tried again, and how often, is decided in one place.
            retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=_MOST_REDIRECTS),
            ssl_context=_tls() if self._is_encrypted else None,
        )

    def list(self, prefix: str) -> Iterator[Blob]:
        """Yield the blobs below the folder of `prefix`, one request for each folder and many of them at once."""
        folders = [prefix.rpartition("/")[0]]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while folders:
                deeper: Names = []
                for found, inner in pool.map(self._entries, folders):
                    yield from found
                    deeper += inner
                folders = deeper

    def _entries(self, folder: str) -> Folder:
        """Return the blobs and the folders in a folder."""
        answer = self._request("PROPFIND", folder, {"Depth": "1"}, _PROPERTIES)
        if answer.status == 404:
            return [], []
        blobs, inner = [], []
        for path, facts in _properties(answer.data):
            name = posixpath.relpath(path, self._path)
            if name == (folder or "."):
                if not _is_folder(facts):
                    return [], []
            elif _is_folder(facts):
                inner.append(name)
            elif not posixpath.basename(name).startswith("."):
                blobs.append(Blob(name, int(facts.findtext(f"{_DAV}getcontentlength") or 0), _modified_s(facts)))
        return blobs, inner

    def _size(self, name: str) -> int | None:
        """Return the size of a file, None if there is none of that name."""
        answer = self._request("PROPFIND", name, {"Depth": "0"}, _PROPERTIES)
        if answer.status == 404:
            return None
        for _, facts in _properties(answer.data):
            return None if _is_folder(facts) else int(facts.findtext(f"{_DAV}getcontentlength") or 0)
        return None

    def read(self, name: str, start: int, stop: int | None) -> bytes | None:
        """Return a slice of a file: with one request if it lies inside, else its size is asked for first."""
        if stop is not None and 0 <= start < stop and (inside := self._part(name, start, stop)) is not None:
            return inside
        size = self._size(name)
        if size is None:
            return None
        first, last, _ = slice(start, stop).indices(size)
        if first >= last:
            return b""
        found = self._part(name, first, last)
        if found is None:
            raise PassingError(f"the server does not send bytes {first} to {last} of {size}")
        return found

    def _part(self, name: str, first: int, last: int) -> bytes | None:
        """Return bytes of a file if the server sends exactly these; whether there is such a file is not said."""
        try:
            answer = self._request("GET", name, {"Range": f"bytes={first}-{last - 1}", "Accept-Encoding": "identity"})
        except _BrokenError:
            # What an XRootD server does with a range that goes beyond the end.
            return None
        if answer.status == 206:
            sent = _RANGE.match(answer.headers.get("Content-Range", ""))
            is_right = sent is not None and (int(sent[1]), int(sent[2])) == (first, last - 1)
            return answer.data if is_right and len(answer.data) == last - first else None
        # A server without ranges sends all; a listing of a folder has a type of its own.
        is_whole = answer.status == 200 and first == 0 and len(answer.data) == last
        return answer.data if is_whole and "html" not in answer.headers.get("Content-Type", "") else None

    def create(self, name: str, data: bytes) -> None:
        """Write a file of a new name.

        Not all servers know conditions, and XRootD's ends the connection with each answer that there is no such file:
        to ask for each name would take longer than to write it.  So a folder is asked once what is in it, and again
        after a failure.  Names are unique in any case.
        """
        folder = name.rpartition("/")[0]
        taken = self._taken.get(folder)
        if taken is None:
            taken = self._taken[folder] = {blob.name for blob in self._entries(folder)[0]}
        if name in taken:
            raise FileExistsError(name)
        try:
            self._put(name, data)
        except PassingError:
            self._taken.pop(folder, None)
            raise
        taken.add(name)

    def _put(self, name: str, data: bytes) -> None:
        condition = {"If-None-Match": "*", "Content-Type": "application/octet-stream"}
        answer = self._request("PUT", name, condition, data)
        if answer.status in (404, 409):
            self._make_folders(name)
            answer = self._request("PUT", name, condition, data)
        if answer.status == 412:
            raise FileExistsError(name)
        _check(answer, self._is_encrypted)

    def _make_folders(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for n in range(len(parts) + 1):
            # One that is there already is 405.
            self._request("MKCOL", "/".join(parts[:n]))

    def delete(self, name: str) -> None:
        """Remove a file."""
        self._taken.get(name.rpartition("/")[0], set()).discard(name)
        answer = self._request("DELETE", name)
        if answer.status != 404:
            _check(answer, self._is_encrypted)

    def _request(self, verb: str, name: str, headers: Mapping[str, str] = {}, body: bytes | None = None) -> Any:
        # Over an open line everybody could read a token.
        token = bearer_token() if self._is_encrypted else None
        headers = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
        url = f"{self._url}/{quote(name)}".rstrip("/")
        try:
            answer = self._pool.request(verb, url, headers=headers, body=body, redirect=True)
        except urllib3.exceptions.ProtocolError as error:
            raise _BrokenError(_reason(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise PassingError(_reason(error)) from error
        if answer.status in _PASSING or answer.status in (401, 403):
            _check(answer, self._is_encrypted)
        return answer


class _BrokenError(PassingError):
    """The server has broken off in the middle of its answer."""


def _check(answer: Any, is_encrypted: bool) -> None:
    """Raise what an answer means if it is none of success."""
    if answer.status < 300:
        return
    text = f"the server says {answer.status} {answer.reason or ''}".rstrip()
    if answer.status in _PASSING:
        after = answer.headers.get("Retry-After", "")
        raise PassingError(text, float(after) if after.isdigit() else None)
    if answer.status in (401, 403):
        why = trouble(bearer_token()) if is_encrypted else "tokens are sent to https:// only"
        raise StoreError(f"{text}. {(why or 'ask for the right to read and create files there').capitalize()}.")
    raise StoreError(f"{text}.")


def _properties(xml: bytes) -> Iterator[tuple[str, Any]]:
    """Yield path and properties of each resource in the answer to PROPFIND."""
    try:
        tree = ET.fromstring(xml)  # noqa: S314 - expat limits what entities may grow to
    except ET.ParseError as error:
        raise StoreError(f"the server does not speak WebDAV ({error}): name another door of the storage.") from error
    for response in tree.iter(f"{_DAV}response"):
        path = unquote(urlsplit(response.findtext(f"{_DAV}href") or "").path).rstrip("/")
        for part in response.iter(f"{_DAV}propstat"):
            found = part.find(f"{_DAV}prop")
            if found is not None and " 200" in (part.findtext(f"{_DAV}status") or " 200"):
                yield path, found
                break


def _is_folder(facts: Any) -> bool:
    return facts.find(f"{_DAV}resourcetype/{_DAV}collection") is not None


def _modified_s(facts: Any) -> float:
    try:
        return parsedate_to_datetime(facts.findtext(f"{_DAV}getlastmodified") or "").timestamp()
    except ValueError:
        return 0.0


def _reason(error: Exception) -> str:
    """Return what went wrong without the pool's own words and the URL in them."""
    inner = getattr(error, "reason", None) or error
    return str(inner).rpartition(">: ")[2] or type(inner).__name__


def _tls() -> ssl.SSLContext:
    """Return whom to trust (the system's and the grid's authorities) and what to show (this user's proxy, if any)."""
    context = ssl.create_default_context()
    grid = os.environ.get("X509_CERT_DIR")
    if grid:
        context.load_verify_locations(capath=grid)
    proxy = os.environ.get("X509_USER_PROXY")
    if proxy and os.path.exists(proxy):  # noqa: PTH110
        context.load_cert_chain(proxy)
    return context
