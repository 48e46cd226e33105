"""Stores: the contract, and what only a local directory has."""

from __future__ import annotations

import errno
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from coffea_dirac.errors import ConfigurationError, StoreError
from coffea_dirac.interfaces import Blob
from coffea_dirac.stores import LocalStore, open_store
from coffea_dirac.testing import StoreTests


class TestLocalStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "not" / "there" / "yet")


def test_nothing_is_made_before_the_first_blob(tmp_path: Path) -> None:
    store = open_store(tmp_path / "stages")
    assert list(store.list()) == []
    assert store.read("v1/x") is None
    store.delete("v1/x")
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "FILE://{}"])
def test_paths_and_file_urls_open_the_same_store(tmp_path: Path, form: str) -> None:
    assert open_store(form.format(tmp_path)) == LocalStore(tmp_path)


def test_a_path_object_and_a_store_are_places_too(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert open_store(store) is store
    assert open_store(store.url) == store


def test_a_relative_path_and_a_tilde_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("stages").url == f"file://{tmp_path}/stages"
    assert open_store("~/stages").url == f"file://{tmp_path}/stages"


@pytest.mark.parametrize(
    "place",
    ["gsiftp://store.example.org//jdoe", "srm://x.example.org/y", "file://stages", "", b"x", 3, None],
)
def test_a_place_without_a_store_is_refused_with_what_works(place: object) -> None:
    with pytest.raises(ConfigurationError, match="directory"):
        open_store(place)  # type: ignore[arg-type]


def test_what_switches_the_cache_off_elsewhere_is_no_directory() -> None:
    with pytest.raises(ConfigurationError, match=r"cache=None, for that directory './off'"):
        open_store("off")
    assert open_store("./off").url.endswith("/off")


@pytest.mark.parametrize(
    ("place", "meant"),
    [
        (Path("root://store.example.org//jdoe/x"), "'root://store.example.org/jdoe/x'"),
        ("https//store.example.org/x", "'https://store.example.org/x'"),
        ("s3:bucket/x", "'s3://bucket/x'"),
        (Path("file:///data/x"), "'file:///data/x'"),
        ("rucio:/user.jdoe:stages", "'rucio://user.jdoe:stages'"),
    ],
)
def test_a_url_that_has_lost_a_slash_is_no_directory(place: str | Path, meant: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_store(place)
    assert meant in str(raised.value)
    assert f"'./{place}'" in str(raised.value)
    assert open_store(f"./{place}").url.startswith("file:///")


def test_directories_may_be_called_nearly_like_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("root", "root/x", "files", "s3-stages", "http", "a:b"):
        assert open_store(name).url == f"file://{tmp_path}/{name}"


def test_a_file_in_place_of_the_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "stages").write_text("notes")
    store = LocalStore(tmp_path / "stages")
    for act in (store.list, lambda: store.read("v1/x"), lambda: store.create("v1/x", b"")):
        with pytest.raises(StoreError, match=rf"(?s){tmp_path}.*is a file: name a directory"):
            act()
    assert (tmp_path / "stages").read_text() == "notes"


WRITE_AS_NOBODY = """
import os, sys
from coffea_dirac.errors import StoreError
from coffea_dirac.stores import open_store
if os.geteuid() == 0:
    os.setuid(65534)  # the superuser may write everywhere
try:
    open_store(sys.argv[1]).create("v1/x", b"")
except StoreError as error:
    print(error)
"""


def test_a_directory_of_somebody_else_is_explained() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", WRITE_AS_NOBODY, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=True)
        Path(folder).chmod(0o700)
    assert "permission" in done.stdout
    assert folder in done.stdout


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EIO, "another directory"),
    ],
)
def test_what_the_system_refuses_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StoreError, match=words) as raised:
        LocalStore(tmp_path).create("v1/x", b"content")
    assert str(tmp_path / "v1/x") in str(raised.value)
    assert list(LocalStore(tmp_path).list()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_explained_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0")
    (tmp_path / ".x.0.part").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="disk is full: free some space"):
        LocalStore(tmp_path).create("x", bytes(1 << 20))
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_a_blob_still_appears_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    store = LocalStore(tmp_path)
    store.create("v1/x", b"first")
    with pytest.raises(StoreError, match="already a blob"):
        store.create("v1/x", b"second")
    assert store.read("v1/x") == b"first"
    assert [path.name for path in (tmp_path / "v1").iterdir()] == ["x"]


def test_files_still_being_written_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / ".x.0123.part").write_bytes(b"half")
    (tmp_path / "v1" / "y").write_bytes(b"whole")
    assert [(blob.name, blob.size_bytes) for blob in LocalStore(tmp_path).list()] == [("v1/y", 5)]


def test_what_vanishes_during_a_list_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.create("v1/a", b"1")
    store.create("v1/b", b"2")
    real = os.scandir

    def scan_then_delete(folder: Path) -> list[os.DirEntry[str]]:
        entries = list(real(folder))
        (tmp_path / "v1" / "a").unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", scan_then_delete)
    assert [blob.name for blob in store.list()] == ["v1/b"]


def _create_for_ever(path: str) -> None:
    store, number = LocalStore(path), 0
    while True:
        store.create(f"v1/p/{number}.pack", bytes(300_000))
        number += 1


def test_a_killed_writer_leaves_whole_blobs_only(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_stores; test_stores._create_for_ever({str(tmp_path)!r})"
    store = LocalStore(tmp_path)
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        deadline = time.monotonic() + 60
        while len(store.list()) < 20 and time.monotonic() < deadline:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
    found = store.list()
    assert len(found) >= 20
    assert {blob.size_bytes for blob in found} == {300_000}


def _race(path: str, barrier: object, results: object) -> None:
    store = LocalStore(path)
    for number in range(50):
        barrier.wait(timeout=60)  # type: ignore[attr-defined]
        try:
            store.create(f"v1/{number}", str(os.getpid()).encode() * 1000)
            results.put((number, os.getpid()))  # type: ignore[attr-defined]
        except StoreError:
            pass


def test_of_processes_that_race_for_a_name_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), barrier, results)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=120)
        assert racer.exitcode == 0
    won = [results.get(timeout=10) for _ in range(50)]
    assert sorted(number for number, _ in won) == list(range(50))
    store = LocalStore(tmp_path)
    assert all(store.read(f"v1/{number}") == str(winner).encode() * 1000 for number, winner in won)
    assert all(isinstance(blob, Blob) for blob in store.list())


def test_a_blob_is_made_while_another_process_sweeps_empty_folders(tmp_path: Path) -> None:
    script = "import sys; from coffea_dirac.stores import LocalStore\nwhile True: LocalStore(sys.argv[1]).sweep(1e9)"
    sweeper = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        store = LocalStore(tmp_path)
        deadline = time.monotonic() + 3
        n = 0
        while time.monotonic() < deadline:
            store.create(f"v1/s/{n % 7}/p/{n}", b"x")
            assert store.read(f"v1/s/{n % 7}/p/{n}") == b"x"
            store.delete(f"v1/s/{n % 7}/p/{n}")
            n += 1
        assert sweeper.poll() is None
    finally:
        sweeper.kill()
        sweeper.wait(10)
    assert n > 100
