"""A file whose stat is the same is not read again; one that could have changed unseen is."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_dirac.fingerprint import digest_file
from coffea_dirac.inputs import contents
from coffea_dirac.inputs.contents import ContentMemo, settled_stat

pytestmark = pytest.mark.core


def settled(path: Path) -> Path:
    end = time.monotonic() + 5
    while settled_stat(path) is None:
        assert time.monotonic() < end
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, as they are."""
    found: list[str] = []

    def read(path: Any) -> str:
        found.append(Path(path).name)
        return digest_file(path)

    monkeypatch.setattr(contents, "digest_file", read)
    return found


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text("one")
    memo = ContentMemo()
    first = memo.digest(settled(path))
    assert memo.digest(str(path)) == memo.digest(path) == first
    assert reads == ["a.json"]
    path.write_text("two")
    assert memo.digest(path) == digest_file(path) != first


def test_a_file_just_written_is_read_each_time(tmp_path: Path, reads: list[str]) -> None:
    path, memo = tmp_path / "a.json", ContentMemo()
    path.write_text("one")
    os.utime(path, (time.time() + 3600,) * 2)
    for _ in range(3):
        assert memo.digest(path) == digest_file(path)
    assert len(reads) == 3


def test_other_content_with_the_same_size_and_modification_time_is_seen(tmp_path: Path) -> None:
    path, memo = tmp_path / "a.json", ContentMemo()
    path.write_text("one")
    os.utime(path, (1, 1))
    memo.digest(settled(path))
    path.write_text("two")
    os.utime(path, (1, 1))
    assert memo.digest(path) == digest_file(path)


def test_another_file_moved_into_place_is_seen(tmp_path: Path) -> None:
    path, other, memo = tmp_path / "a.json", tmp_path / "b.json", ContentMemo()
    path.write_text("one")
    other.write_text("two")
    memo.digest(settled(path))
    settled(other).rename(path)
    assert memo.digest(path) == digest_file(path)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, memo = tmp_path / "a.json", ContentMemo()
    path.write_text("one")
    settled(path)

    def read_and_write(name: Any) -> str:
        digest = digest_file(name)
        path.write_text("two")
        settled(path)
        return digest

    monkeypatch.setattr(contents, "digest_file", read_and_write)
    memo.digest(path)
    monkeypatch.undo()
    assert memo.digest(settled(path)) == digest_file(path)


def test_times_in_whole_seconds_are_trusted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("one")
    real = os.stat(path)
    second = real.st_ctime_ns // 10**9 * 10**9

    class Coarse:
        st_size, st_ino, st_dev, st_mtime_ns, st_ctime_ns = real.st_size, real.st_ino, real.st_dev, second, second

    monkeypatch.setattr(contents.os, "stat", lambda _: Coarse)
    monkeypatch.setattr(contents.time, "time_ns", lambda: second + 1_900_000_000)
    assert settled_stat(path) is None
    monkeypatch.setattr(contents.time, "time_ns", lambda: second + 2_600_000_000)
    assert settled_stat(path) is not None


def test_the_memo_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "AT_MOST", 4)
    memo = ContentMemo()
    for i in range(9):
        (tmp_path / str(i)).write_text(str(i))
        memo.digest(settled(tmp_path / str(i)))
        assert 0 < len(memo._known) <= 4


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ContentMemo().digest(tmp_path / "missing")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "look", "touch"]), max_size=12))
def test_whatever_happens_the_digest_is_that_of_the_content(tmp_path_factory: Any, steps: list[str]) -> None:
    path, memo = tmp_path_factory.mktemp("files") / "a.json", ContentMemo()
    path.write_text("zero")
    for step in steps:
        if step == "touch":
            os.utime(path, (1, 1))
        elif step != "look":
            path.write_text(step)
        assert memo.digest(path) == digest_file(path)
