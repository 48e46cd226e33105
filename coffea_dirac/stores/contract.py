"""What every store does, as checks that need nothing but a store: for tests, and for ``coffea-dirac doctor STORE``."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Store

_CONTENT = bytes(range(256)) * 40
_RANGES = ((0, None), (0, 0), (0, 10), (5, 10), (300, 10240), (10, 5), (-7, None), (-7, -2), (-(1 << 40), None))
_NO_NAMES = ("", "/", "/etc/passwd", "../x", "v1/../../x", "v1//x", "v1/x/", "a b", "a\n", "a\0", ".x", "ä")
Check = Callable[[Store], None]


def it_is_a_store(store: Store) -> None:
    """All four verbs, and a URL."""
    _same(isinstance(store, Store), True)
    _same("://" in store.url, True)


def an_absent_store_is_empty(store: Store) -> None:
    """Nobody has to make it first."""
    _same(list(store.list()), [])
    _same(list(store.list("v1/s/")), [])


def a_missing_blob_is_none(store: Store) -> None:
    """So is a folder."""
    _same(store.read("v1/nothing"), None)
    store.create("v1/s/one", b"1")
    _same(store.read("v1/nothing"), None)
    _same(store.read("v1/nothing", 0, 5), None)
    _same(store.read("v1/s"), None)
    _same(store.read("v1/s", 0, 5), None)


def what_was_created_is_read(store: Store) -> None:
    """All of it."""
    store.create("v1/s/a/p/w-0.pack", _CONTENT)
    _same(store.read("v1/s/a/p/w-0.pack"), _CONTENT)


def an_empty_blob_is_not_a_missing_one(store: Store) -> None:
    """No bytes are bytes too."""
    store.create("v1/empty", b"")
    _same(store.read("v1/empty"), b"")
    _same(store.read("v1/empty", -10), b"")


def ranges_are_those_of_a_slice(store: Store) -> None:
    """From the end too."""
    store.create("v1/blob", _CONTENT)
    for start, stop in _RANGES:
        _same(store.read("v1/blob", start, stop), _CONTENT[start:stop])


def reading_past_the_end_returns_what_there_is(store: Store) -> None:
    """As a slice does."""
    store.create("v1/blob", _CONTENT)
    _same(store.read("v1/blob", 10000, 1 << 60), _CONTENT[10000:])
    _same(store.read("v1/blob", 1 << 40, 1 << 41), b"")


def a_name_is_created_once(store: Store) -> None:
    """Nothing is overwritten."""
    store.create("v1/blob", b"first")
    _refused(lambda: store.create("v1/blob", b"second"), "creating a blob a second time")
    _same(store.read("v1/blob"), b"first")


def a_list_is_sorted_and_complete(store: Store) -> None:
    """With sizes."""
    names = ["v1/s/b/p/x.pack", "v1/s/a/start.json", "v1/s/a/p/y.pack", "v1/s/a-b/p/z.pack", "v1/s/a/p/x.pack"]
    for name in names:
        store.create(name, name.encode())
    _same([blob.name for blob in store.list()], sorted(names))
    _same([blob.size_bytes for blob in store.list()], [len(name) for name in sorted(names)])


def a_list_is_cut_by_prefix(store: Store) -> None:
    """Also in the middle of a name."""
    for name in ("v1/s/a/p/w-0.pack", "v1/s/a/p/w-1.pack", "v1/s/a/p/w1-0.pack", "v1/s/ab/p/w-0.pack", "v2/s/a"):
        store.create(name, b"")
    of_w = ["v1/s/a/p/w-0.pack", "v1/s/a/p/w-1.pack"]
    _same([blob.name for blob in store.list("v1/s/a/p/w-")], of_w)
    _same([blob.name for blob in store.list("v1/s/a/")], [*of_w, "v1/s/a/p/w1-0.pack"])
    _same(len(store.list("v1/s/a")), 4)
    _same(list(store.list("v3/")), [])


def a_list_says_when_a_blob_was_made(store: Store) -> None:
    """Clocks of servers may differ by some minutes."""
    store.create("v1/blob", b"now")
    _same(abs(store.list()[0].modified_s - time.time()) < 600, True)


def a_deleted_blob_is_gone(store: Store) -> None:
    """And no other."""
    store.create("v1/a", b"1")
    store.create("v1/b", b"2")
    store.delete("v1/a")
    _same(store.read("v1/a"), None)
    _same([blob.name for blob in store.list()], ["v1/b"])


def deleting_what_is_missing_is_no_error(store: Store) -> None:
    """Two may tidy up at once."""
    store.delete("v1/nothing")
    store.create("v1/a", b"1")
    store.delete("v1/nothing")
    _same(store.read("v1/a"), b"1")


def names_that_are_none_are_refused(store: Store) -> None:
    """Nothing outside of the store can be named."""
    for name in _NO_NAMES:
        _refused(lambda name=name: store.create(name, b""), f"creating {name!r}")  # type: ignore[misc]
        _refused(lambda name=name: store.read(name), f"reading {name!r}")  # type: ignore[misc]
        _refused(lambda name=name: store.delete(name), f"deleting {name!r}")  # type: ignore[misc]


def a_store_that_was_pickled_is_the_same_store(store: Store) -> None:
    """Workers get it so."""
    store.create("v1/blob", b"content")
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
    _same(again.url, store.url)
    _same(again.read("v1/blob"), b"content")


def many_writers_and_readers_see_whole_blobs_only(store: Store) -> None:
    """Nobody sees a blob that is still being written."""
    names = [f"v1/s/a/p/w{i}-0.pack" for i in range(40)]

    def read_all() -> bool:
        return all(store.read(blob.name) == _CONTENT for blob in store.list("v1/"))

    with ThreadPoolExecutor(8) as pool:
        written = [pool.submit(store.create, name, _CONTENT) for name in names]
        seen = [pool.submit(read_all) for _ in range(20)]
        _same([future.result(timeout=60) for future in written], [None] * len(written))
        _same([future.result(timeout=60) for future in seen], [True] * len(seen))
    _same([blob.name for blob in store.list("v1/")], sorted(names))


CHECKS: tuple[Check, ...] = (
    it_is_a_store,
    an_absent_store_is_empty,
    a_missing_blob_is_none,
    what_was_created_is_read,
    an_empty_blob_is_not_a_missing_one,
    ranges_are_those_of_a_slice,
    reading_past_the_end_returns_what_there_is,
    a_name_is_created_once,
    a_list_is_sorted_and_complete,
    a_list_is_cut_by_prefix,
    a_list_says_when_a_blob_was_made,
    a_deleted_blob_is_gone,
    deleting_what_is_missing_is_no_error,
    names_that_are_none_are_refused,
    a_store_that_was_pickled_is_the_same_store,
    many_writers_and_readers_see_whole_blobs_only,
)
"""Each takes an empty store of its own and raises AssertionError where that does something else."""


def _same(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AssertionError(f"{_short(found)} where it should be {_short(wanted)}")


def _refused(step: Callable[[], object], what: str) -> None:
    try:
        step()
    except StoreError:
        return
    raise AssertionError(f"{what} is not refused")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
