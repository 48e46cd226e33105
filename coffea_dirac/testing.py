"""The contract of a store as a test class: subclass it, say how to make an empty store, and run pytest.

Needs pytest, which is not among the dependencies of the package.
"""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Store

_CONTENT = bytes(range(256)) * 40


class StoreTests:
    """What every `coffea_dirac.interfaces.Store` does.

    A subclass has a fixture ``store`` that returns a new, empty store for each test.

    Examples
    --------
    >>> class TestLocalStore(StoreTests):
    ...     @pytest.fixture
    ...     def store(self, tmp_path):
    ...         return LocalStore(tmp_path / "stages")
    """

    def test_it_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert "://" in store.url

    def test_an_absent_store_is_empty(self, store: Store) -> None:
        assert list(store.list()) == []
        assert list(store.list("v1/s/")) == []

    def test_a_missing_blob_is_none(self, store: Store) -> None:
        assert store.read("v1/nothing") is None
        store.create("v1/s/one", b"1")
        assert store.read("v1/nothing") is None
        assert store.read("v1/s") is None

    def test_what_was_created_is_read(self, store: Store) -> None:
        store.create("v1/s/a/p/w-0.pack", _CONTENT)
        assert store.read("v1/s/a/p/w-0.pack") == _CONTENT

    def test_an_empty_blob_is_not_a_missing_one(self, store: Store) -> None:
        store.create("v1/empty", b"")
        assert store.read("v1/empty") == b""
        assert store.read("v1/empty", -10) == b""

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, None), (0, 0), (0, 10), (5, 10), (300, 10240), (10, 5), (-7, None), (-7, -2), (-(1 << 40), None)],
    )
    def test_ranges_are_those_of_a_slice(self, store: Store, start: int, stop: int | None) -> None:
        store.create("v1/blob", _CONTENT)
        assert store.read("v1/blob", start, stop) == _CONTENT[start:stop]

    def test_reading_past_the_end_returns_what_there_is(self, store: Store) -> None:
        store.create("v1/blob", _CONTENT)
        assert store.read("v1/blob", 10000, 1 << 60) == _CONTENT[10000:]
        assert store.read("v1/blob", 1 << 40, 1 << 41) == b""

    def test_a_name_is_created_once(self, store: Store) -> None:
        store.create("v1/blob", b"first")
        with pytest.raises(StoreError):
            store.create("v1/blob", b"second")
        assert store.read("v1/blob") == b"first"

    def test_a_list_is_sorted_and_complete(self, store: Store) -> None:
        names = ["v1/s/b/p/x.pack", "v1/s/a/start.json", "v1/s/a/p/y.pack", "v1/s/a-b/p/z.pack", "v1/s/a/p/x.pack"]
        for name in names:
            store.create(name, name.encode())
        assert [blob.name for blob in store.list()] == sorted(names)
        assert [blob.size_bytes for blob in store.list()] == [len(name) for name in sorted(names)]

    def test_a_list_is_cut_by_prefix(self, store: Store) -> None:
        for name in ("v1/s/a/p/w-0.pack", "v1/s/a/p/w-1.pack", "v1/s/a/p/w1-0.pack", "v1/s/ab/p/w-0.pack", "v2/s/a"):
            store.create(name, b"")
        assert [blob.name for blob in store.list("v1/s/a/p/w-")] == ["v1/s/a/p/w-0.pack", "v1/s/a/p/w-1.pack"]
        assert [blob.name for blob in store.list("v1/s/a/")] == [
            "v1/s/a/p/w-0.pack",
            "v1/s/a/p/w-1.pack",
            "v1/s/a/p/w1-0.pack",
        ]
        assert len(store.list("v1/s/a")) == 4
        assert list(store.list("v3/")) == []

    def test_a_list_says_when_a_blob_was_made(self, store: Store) -> None:
        store.create("v1/blob", b"now")
        # Clocks of servers may differ by some minutes.
        assert abs(store.list()[0].modified_s - time.time()) < 600

    def test_a_deleted_blob_is_gone(self, store: Store) -> None:
        store.create("v1/a", b"1")
        store.create("v1/b", b"2")
        store.delete("v1/a")
        assert store.read("v1/a") is None
        assert [blob.name for blob in store.list()] == ["v1/b"]

    def test_deleting_what_is_missing_is_no_error(self, store: Store) -> None:
        store.delete("v1/nothing")
        store.create("v1/a", b"1")
        store.delete("v1/nothing")
        assert store.read("v1/a") == b"1"

    @pytest.mark.parametrize(
        "name", ["", "/", "/etc/passwd", "../x", "v1/../../x", "v1//x", "v1/x/", "a b", "a\n", "a\0", ".x", "ä"]
    )
    def test_names_that_are_none_are_refused(self, store: Store, name: str) -> None:
        with pytest.raises(StoreError):
            store.create(name, b"")
        with pytest.raises(StoreError):
            store.read(name)
        with pytest.raises(StoreError):
            store.delete(name)

    def test_a_store_that_was_pickled_is_the_same_store(self, store: Store) -> None:
        store.create("v1/blob", b"content")
        again = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
        assert again.url == store.url
        assert again.read("v1/blob") == b"content"

    def test_many_writers_and_readers_see_whole_blobs_only(self, store: Store) -> None:
        names = [f"v1/s/a/p/w{i}-0.pack" for i in range(40)]

        def read_all() -> bool:
            return all(store.read(blob.name) == _CONTENT for blob in store.list("v1/"))

        with ThreadPoolExecutor(8) as pool:
            written = [pool.submit(store.create, name, _CONTENT) for name in names]
            seen = [pool.submit(read_all) for _ in range(20)]
            assert all(future.result(timeout=60) is None for future in written)
            assert all(future.result(timeout=60) for future in seen)
        assert [blob.name for blob in store.list("v1/")] == sorted(names)
