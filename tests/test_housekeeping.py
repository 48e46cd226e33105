"""A cache stays within its quota; what goes is what was not used for longest, and never what may be needed now."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore
from scenario import Scenario

from coffea_dirac import StageCache, packs
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.housekeeping import contents, drop, remove, size_bytes, too_old
from coffea_dirac.interfaces import Record, Row, Store
from coffea_dirac.stores import open_store

pytestmark = pytest.mark.core
DAY = 86400.0


def session(store: Store, sizes: list[int], *, tag: str, used: list[Row] = [], close: bool = True) -> list[Row]:  # noqa: B006
    """Keep records of these sizes, one in each pack, and say which earlier ones were used."""
    index = packs.Index(store)
    name = index.open_session()
    rows: list[Row] = []
    for n, size in enumerate(sizes):
        writer = packs.PackWriter(store, name, f"w{n}")
        writer.add(Record(f"{tag}{n}".encode().hex().ljust(64, "0"), bytes(size), "bytes", info={"stage": tag}))
        rows += writer.close()
    if close:
        index.close_session(name, rows, used=used)
    return rows


def keys(store: Store) -> set[str]:
    index = packs.Index(store)
    index.refresh()
    return {row.key for row in index}


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_bytes(s) for s in ("1kB", "2 MiB", "3GB", "7", 12)] == [1000, 2 << 20, 3 * 10**9, 7, 12]
    for wrong in ("much", "-3 GB", "", None, "3 XB"):
        with pytest.raises(ConfigurationError, match="is no size"):
            size_bytes(wrong)  # type: ignore[arg-type]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = session(store, [10_000, 10_000], tag="first")
    second = session(store, [10_000], tag="second")
    third = session(store, [], tag="third", used=[first[1]])
    assert third == []
    found = contents(store)
    going = too_old(found, found.size_bytes // 2)
    assert going[0] == first[0].pack
    remove(store, found, going[:2])
    assert keys(store) == {first[1].key}
    assert second[0].pack in going


def test_a_session_that_may_still_run_is_let_be_and_a_dead_one_is_not(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = session(store, [1000], tag="open", close=False)
    assert too_old(contents(store), 0) == []
    found = contents(store, now_s=time.time() + 8 * DAY)
    assert too_old(found, 0) == [rows[0].pack]
    remove(store, found, [rows[0].pack])
    assert store.list("v1/") == []


def blobs_of(store: Store, end: str) -> int:
    return sum(blob.name.endswith(end) for blob in store.list("v1/"))


def test_past_sessions_become_one_that_tells_the_same(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = [row for n in range(20) for row in session(store, [100, 100], tag=f"kept{n:02}")]
    for n in range(20):
        session(store, [], tag=f"idle{n}", used=rows[: 2 * n])
    alive = session(store, [100], tag="open", close=False)
    found, known = contents(store), keys(store)
    size = sum(blob.size_bytes for blob in store.list("v1/"))
    freed = remove(store, found, [])
    left = contents(store)
    assert freed == size - sum(blob.size_bytes for blob in store.list("v1/"))
    assert (blobs_of(store, ".idx"), blobs_of(store, "close.json"), blobs_of(store, "start.json")) == (1, 1, 2)
    assert left.used_s == pytest.approx(found.used_s, abs=2e-6)
    assert (left.open_sessions, left.referenced, keys(store)) == (found.open_sessions, found.referenced, known)
    assert alive[0].key in known
    assert all(isinstance(payload, bytes) for payload in packs.read(store, list(rows)).values())
    # A second time, with what came meanwhile.
    later = session(store, [100], tag="later", used=rows[:1])
    remove(store, contents(store), [rows[3].pack])
    assert keys(store) == known - {rows[3].key} | {later[0].key}
    assert contents(store).used_s[rows[0].pack] > left.used_s[rows[0].pack]
    assert (blobs_of(store, ".idx"), blobs_of(store, "close.json")) == (1, 1)


def test_a_store_that_has_been_tidied_is_let_be(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for n in range(3):
        session(store, [100], tag=f"kept{n}")
    remove(store, contents(store), [])
    before = store.list("v1/")
    assert remove(store, contents(store), []) == 0
    assert store.list("v1/") == before


class Dying:
    """A store whose writer dies at the nth change."""

    url = "dying://"

    def __init__(self, inner: Store, changes: int) -> None:
        self.inner, self.left = inner, changes
        self.list, self.read = inner.list, inner.read

    def _change(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def create(self, name: str, data: bytes) -> None:
        self._change()
        self.inner.create(name, data)

    def delete(self, name: str) -> None:
        self._change()
        self.inner.delete(name)


def test_tidying_that_is_killed_at_any_moment_loses_nothing() -> None:
    for changes in range(30):
        store = MemoryStore()
        rows = [row for n in range(4) for row in session(store, [100], tag=f"kept{n}")]
        dying = Dying(store, changes)
        try:
            remove(dying, contents(dying), [rows[0].pack])
        except KeyboardInterrupt:
            pass
        expected = {row.key for row in (rows[1:] if changes else rows)}
        assert keys(store) == expected
        assert contents(store).used_s.keys() == {row.pack for row in (rows[1:] if changes else rows)}
        index = packs.Index(store)
        index.refresh()
        assert index.problems == []
        remove(store, contents(store, now_s=time.time() + 8 * DAY), [])
        assert keys(store) == expected
        assert blobs_of(store, ".idx") == 1
    assert dying.left >= 0, "the last one was not killed"


class Shifting(MemoryStore):
    """A store that another process changes between a listing and the reads that follow."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def list(self, prefix: str = "") -> list[Any]:
        found = super().list(prefix)
        if self.change is not None:
            change, self.change = self.change, None
            change(self)
        return found


@pytest.mark.parametrize("n_changes", [1, 5])
def test_an_index_that_is_read_while_it_is_tidied_is_whole(n_changes: int) -> None:
    def change(store: Shifting) -> None:
        nonlocal n_changes
        if n_changes:
            n_changes -= 1
            session(store, [100], tag=f"more{n_changes}")
            remove(store, contents(store), [])
            store.change = change

    store = Shifting(None)
    rows = [row for n in range(4) for row in session(store, [100], tag=f"kept{n}")]
    store.change = change
    index = packs.Index(store)
    index.refresh()
    assert index.problems == []
    assert {row.key for row in rows} <= {row.key for row in index}


def test_a_pack_that_goes_while_the_index_is_read_is_a_miss() -> None:
    store = Shifting(None)
    rows = session(store, [100, 100], tag="open", close=False)
    store.change = lambda store: store.delete(rows[0].pack)
    index = packs.Index(store)
    index.refresh()
    assert (index.problems, [row.key for row in index]) == ([], [rows[1].key])


def test_folders_and_unfinished_files_of_old_sessions_are_swept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = session(store, [100], tag="first")
    session(store, [100], tag="second")
    folder = (tmp_path / rows[0].pack).parent
    old, young = folder / f".b-0.pack.{'a' * 16}.part", folder.parent / f".b-1.pack.{'b' * 16}.part"
    for part, age_s in ((old, 8 * DAY), (young, 60.0)):
        part.write_bytes(b"torn")
        os.utime(part, (time.time() - age_s,) * 2)
    remove(store, contents(store), [rows[0].pack])
    assert not folder.exists()
    assert young.exists()
    assert not any(p.is_dir() and not any(p.iterdir()) for p in tmp_path.rglob("*"))


@given(
    st.lists(st.lists(st.integers(0, 4000), max_size=4), min_size=1, max_size=6),
    st.integers(0, 12_000),
    st.integers(0, 10_000),
)
def test_the_quota_is_kept_and_no_more_goes_than_has_to(sizes: list[list[int]], quota: int, seed: int) -> None:
    store = MemoryStore()
    rows: list[Row] = []
    for n, these in enumerate(sizes):
        used = [row for i, row in enumerate(rows) if (seed >> i) % 2]
        rows += session(store, these, tag=f"s{n}", used=used)
    found = contents(store)
    going = too_old(found, quota)
    sizes_of = {name: blob.size_bytes for name, blob in found.packs.items()}
    left = found.size_bytes - sum(sizes_of[name] for name in going)
    assert left <= quota or set(going) == set(found.packs)
    if going:
        assert found.size_bytes > quota
        assert left + sizes_of[going[-1]] > 0.9 * quota
    stays = [found.used_s[name] for name in found.packs if name not in going]
    assert all(found.used_s[name] <= min(stays, default=float("inf")) for name in going)
    remove(store, found, going)
    assert keys(store) == {row.key for row in rows if row.pack not in going}


def test_dropping_a_record_keeps_its_neighbours(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    index = packs.Index(store)
    name = index.open_session()
    writer = packs.PackWriter(store, name, "w")
    for i in range(5):
        writer.add(Record(f"{i:064x}", bytes([i]) * 50, "bytes", info={"stage": "s", "n": i}))
    rows = writer.close()
    index.close_session(name, rows)
    drop(store, rows[1:3])
    later = packs.Index(store)
    later.refresh()
    found = packs.read(store, list(later))
    assert {row.key: payload for row, payload in found.items()} == {f"{i:064x}": bytes([i]) * 50 for i in (0, 3, 4)}
    assert {row.info["n"] for row in later} == {0, 3, 4}
    assert later.problems == []


def test_a_run_keeps_its_quota_and_what_it_just_used(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    make = (
        "from coffea_dirac import StageCache\n"
        "        cache = StageCache('cache', quota=options.pop('quota'))\n"
        "        executor = DiracExecutor(cache=cache, inline=True, status=False)"
    )
    scenario.run(make=make, quota="1 GB", runner={"chunksize": 5})
    folder = tmp_path / "cache" / "v1"
    full = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    scenario.edit("helper.py", "30", "20")
    second = scenario.run(make=make, quota=int(full * 1.5), runner={"chunksize": 5}, compare=True)
    assert second.out == pytest.approx(second.plain, rel=1e-12)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= full * 1.5
    third = scenario.run(make=make, quota="1 GB", runner={"chunksize": 5})
    assert (third.misses, third.out) == (0, second.out)


def test_the_environment_sets_the_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert StageCache(tmp_path).quota_bytes == 20 * 10**9
    monkeypatch.setenv("COFFEA_DIRAC_CACHE_QUOTA", "3 GB")
    assert StageCache(tmp_path).quota_bytes == 3 * 10**9
    assert StageCache(tmp_path, quota=None).quota_bytes is None
    monkeypatch.setenv("COFFEA_DIRAC_CACHE_QUOTA", "none")
    assert StageCache(tmp_path).quota_bytes is None
    with pytest.raises(ConfigurationError, match="is no size"):
        StageCache(tmp_path, quota="lots")


def test_a_run_says_that_its_cache_is_too_small(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    make = (
        "from coffea_dirac import StageCache\n"
        "        executor = DiracExecutor(cache=StageCache('cache', quota='1 kB'), inline=True, status=False)"
    )
    result = scenario.run(make=make, compare=True)
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    (warning,) = result.warnings
    assert "too small for this run" in warning
    assert "quota=" in warning


def test_runs_do_not_get_slower_with_the_number_of_past_runs(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    most = 0
    for n in range(150):
        cache = StageCache(tmp_path)
        assert cache.begin()
        cache.keep_records([Record(f"{n:064x}", b"x" * 100, "bytes", info={"stage": "s"})])
        cache.end()
        most = max(most, blobs_of(store, ".idx"))
    assert most <= 65
    assert keys(store) == {f"{n:064x}" for n in range(150)}


CLEANER = """
import sys, time
from coffea_dirac.errors import CoffeaDiracError
from coffea_dirac.housekeeping import contents, remove, too_old
from coffea_dirac.stores import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
while True:
    found = contents(store)
    remove(store, found, too_old(found, found.size_bytes * 2 // 3))
    print("round", flush=True)
"""


def test_runs_go_on_while_two_others_clean_the_same_cache(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.run(runner={"chunksize": 5})
    cleaners = [
        subprocess.Popen(
            [sys.executable, "-c", CLEANER, str(tmp_path / "cache")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(n)},
        )
        for n in range(2)
    ]  # fmt: skip
    try:
        for cleaner in cleaners:
            assert cleaner.stdout is not None
            assert cleaner.stdout.readline() == "ready\n"
        scenario.edit("helper.py", "CUT = 30", "CUT = 31")
        for _ in range(2):
            result = scenario.run(runner={"chunksize": 5}, compare=True)
            assert result.error is None
            assert result.out == pytest.approx(result.plain, rel=1e-12)
        for cleaner in cleaners:
            assert cleaner.poll() is None, cleaner.communicate(timeout=10)
            assert cleaner.stdout is not None
            assert cleaner.stdout.readline() == "round\n"
    finally:
        for cleaner in cleaners:
            cleaner.kill()
            cleaner.communicate(timeout=10)
    index = packs.Index(open_store(tmp_path / "cache"))
    index.refresh()
    assert index.problems == []
