"""Storages that are slow, overloaded, dead, or refuse: deadlines, retries, the rest of a dead one, and words."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_http import Faults, faulty_server
from s3_server import S3Server

from coffea_dirac.errors import ConfigurationError, StoreError
from coffea_dirac.grid import certificates
from coffea_dirac.grid.server import free_port
from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.stores import open_store, remote


@pytest.fixture
def faults() -> Iterator[Faults]:
    with faulty_server() as faults:
        yield faults


@pytest.fixture(autouse=True)
def _nothing_known_of_hosts(monkeypatch: pytest.MonkeyPatch, keys: certificates.Pki) -> None:
    monkeypatch.setattr(remote, "_hosts", {})


def _timed(step: Callable[[], object]) -> float:
    begin = time.monotonic()
    step()
    return time.monotonic() - begin


def _fails(step: Callable[[], object], words: str) -> float:
    def check() -> None:
        with pytest.raises(StoreError, match=words):
            step()

    return _timed(check)


def test_an_overloaded_server_is_asked_again_when_it_says(faults: Faults) -> None:
    store = open_store(f"http://127.0.0.1:{faults.port}/stages")
    faults.blobs["/stages/v1/x"] = b"content"
    faults.answers = [(503, {"Retry_After": "1"}), (429, {})]
    assert _timed(lambda: store.read("v1/x", 0, 7)) >= 1
    assert len(faults.seen) == 3
    assert not faults.answers


def test_a_server_that_stays_overloaded_is_given_up_in_time_and_then_left_alone(faults: Faults) -> None:
    store = open_store(f"http://127.0.0.1:{faults.port}/stages")
    faults.answers = [(503, {})] * 100
    assert (
        _fails(lambda: store.read("v1/x"), "cannot read http.*503.*whether the storage is up") < remote.DEADLINE_S + 2
    )
    assert len(faults.seen) == remote.ATTEMPTS
    again = pickle.loads(pickle.dumps(store))
    other = open_store(f"http://127.0.0.1:{faults.port}/other")
    for act in (lambda: again.read("v1/x"), lambda: other.create("v1/y", b""), store.list):
        assert _fails(act, "it has just failed .*503.*it is asked again in") < 0.5
    assert len(faults.seen) == remote.ATTEMPTS


def test_a_server_that_is_back_is_used_again(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_REST_S", 0.0)
    store = open_store(f"http://127.0.0.1:{faults.port}/stages")
    faults.answers = [(503, {})] * remote.ATTEMPTS
    _fails(lambda: store.read("v1/x"), "503")
    store.create("v1/x", b"content")
    assert store.read("v1/x") == b"content"


def test_a_server_asks_for_more_patience_than_there_is(faults: Faults) -> None:
    store = open_store(f"http://127.0.0.1:{faults.port}/stages")
    faults.answers = [(503, {"Retry_After": "3600"})] * 2
    assert _fails(lambda: store.read("v1/x"), "503") < 2


def test_a_blob_whose_creation_was_not_answered_is_there_once(faults: Faults) -> None:
    store = open_store(f"http://127.0.0.1:{faults.port}/stages")
    faults.lost = ["PUT"]
    store.create("v1/x", b"content")
    assert [verb for verb, _, _ in faults.seen].count("PUT") == 1
    assert faults.blobs == {"/stages/v1/x": b"content"}
    faults.blobs["/stages/v2/y"] = b"of somebody else"
    with pytest.raises(StoreError, match="already a blob"):
        store.create("v2/y", b"content")


def test_a_folder_is_asked_once_what_is_in_it(faults: Faults) -> None:
    store = open_store(f"http://127.0.0.1:{faults.port}/stages")
    for n in range(5):
        store.create(f"v1/p/{n}", b"content")
    with pytest.raises(StoreError, match="already a blob"):
        store.create("v1/p/3", b"other")
    verbs = [verb for verb, _, _ in faults.seen]
    assert (verbs.count("PROPFIND"), verbs.count("PUT")) == (1, 5)
    store.delete("v1/p/3")
    store.create("v1/p/3", b"other")
    assert store.read("v1/p/3") == b"other"


@pytest.mark.parametrize("scheme", ["http", pytest.param("root", marks=pytest.mark.needs("xrootd"))])
def test_a_dead_storage_costs_seconds_once(scheme: str) -> None:
    store = open_store(f"{scheme}://127.0.0.1:{free_port()}//stages")
    assert _fails(lambda: store.read("v1/x"), f"cannot read {scheme}://") < 2 * remote.DEADLINE_S
    assert _timed(lambda: [_fails(store.list, "asked again") for _ in range(100)]) < 1


@pytest.mark.parametrize("scheme", ["http", pytest.param("root", marks=pytest.mark.needs("xrootd"))])
def test_a_storage_that_never_answers_costs_a_deadline_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as deaf:
        store = open_store(f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}//stages")
        assert _fails(lambda: store.read("v1/x"), f"cannot read {scheme}://") < 3 * remote.DEADLINE_S
        assert _timed(lambda: _fails(store.list, "asked again")) < 1


@pytest.mark.long
@pytest.mark.needs("xrootd")
def test_a_frozen_xrootd_server_is_given_up_and_used_again_when_it_is_back(
    xrootd: XRootDServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_REST_S", 0.0)
    store = open_store(f"{xrootd.root}/{os.getpid()}-frozen")
    store.create("v1/x", b"content")
    xrootd.signal(signal.SIGSTOP)
    try:
        assert _fails(lambda: store.read("v1/x"), "cannot read root://") < 4 * remote.DEADLINE_S
    finally:
        xrootd.signal(signal.SIGCONT)
    assert store.read("v1/x") == b"content"


KILLED = """
import os, sys
from XRootD.client import File
from XRootD.client.flags import OpenFlags
from coffea_dirac.stores import xrootd
from coffea_dirac.stores import open_store
real = xrootd.client.File.write
def write_then_die(self, piece, at=0, **options):
    real(self, piece[:1000], at, **options)
    os._exit(9)
xrootd.client.File.write = write_then_die
open_store(sys.argv[1]).create("v1/torn", bytes(100_000))
"""


@pytest.mark.needs("xrootd")
def test_what_a_killed_writer_began_is_not_there(xrootd: XRootDServer) -> None:
    place = f"{xrootd.root}/{os.getpid()}-torn"
    store = open_store(place)
    store.create("v1/whole", b"content")
    assert subprocess.run([sys.executable, "-c", KILLED, place], timeout=60, check=False).returncode == 9
    assert [blob.name for blob in store.list()] == ["v1/whole"]


@pytest.mark.needs("xrootd")
@pytest.mark.parametrize("scheme", ["root", "http"])
@pytest.mark.parametrize("why", ["expired", "missing", "no right"])
def test_a_token_that_does_not_suffice_is_named(
    xrootd_with_tokens: XRootDServer, keys: certificates.Pki, why: str, scheme: str, tmp_path: Path
) -> None:
    tokens = {
        "expired": keys.token(exp=1_700_000_000),
        "missing": "",
        "no right": keys.token("storage.read:/elsewhere"),
    }
    words = {
        "expired": "token expired at 2023-11-14",
        "missing": "there is no token: set BEARER_TOKEN",
        "no right": "right to read and create",
    }
    # In a process of its own: XRootD's client stays logged in for the life of a process.
    script = "import sys; from coffea_dirac.stores import open_store\ntry: open_store(sys.argv[1]).read('v1/x')\nexcept Exception as e: print(type(e).__name__, e)"
    place = f"{getattr(xrootd_with_tokens, scheme)}/denied"
    environment = {**os.environ, "BEARER_TOKEN": tokens[why], "XDG_RUNTIME_DIR": str(tmp_path)}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, place], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("StoreError cannot read")
    assert words[why].lower() in done.stdout.lower(), done.stdout + done.stderr
    assert time.monotonic() - begin < 30
    assert not tokens[why] or tokens[why] not in done.stdout + done.stderr


@pytest.mark.needs("xrootd")
@pytest.mark.parametrize("scheme", ["root", "http"])
@pytest.mark.parametrize("how", ["BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"])
def test_tokens_are_found_where_wlcg_says(
    xrootd_with_tokens: XRootDServer, keys: certificates.Pki, how: str, scheme: str, tmp_path: Path
) -> None:
    file = tmp_path / f"bt_u{os.geteuid()}"
    file.write_text(keys.token() + "\n")
    file.chmod(0o600)
    values = {"BEARER_TOKEN": keys.token(), "BEARER_TOKEN_FILE": str(file), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k not in values} | {how: values[how]}
    script = "import sys; from coffea_dirac.stores import open_store; s = open_store(sys.argv[1]); s.create('v1/x', b'1'); print(s.read('v1/x'))"
    place = f"{getattr(xrootd_with_tokens, scheme)}/found-{how}-{scheme}-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-c", script, place], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "b'1'\n", done.stderr


def test_no_token_goes_over_an_open_line(
    faults: Faults, keys: certificates.Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", keys.token())
    open_store(f"http://127.0.0.1:{faults.port}/stages").create("v1/x", b"1")
    assert faults.seen
    assert not any("Authorization" in headers for _, _, headers in faults.seen)


@pytest.mark.needs("s3")
def test_a_bucket_that_is_missing_and_keys_that_are_wrong_are_named(s3: S3Server) -> None:
    with pytest.raises(StoreError, match=r"cannot write s3://nowhere/x/v1/x: NoSuchBucket.*Make the bucket first"):
        open_store("s3://nowhere/x").create("v1/x", b"")


@pytest.mark.parametrize(
    "place",
    [
        "root://jdoe:word@store.example.org//x",
        "https://store.example.org/x?authz=word",
        "https://store.example.org",
        "s3://bucket",
        "root://",
        "root://store.example.org:99999//x",
        "https://store.example.org:port/x",
    ],
)
def test_a_url_with_a_secret_or_without_a_folder_is_refused(place: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_store(place)
    assert "word" not in str(raised.value).replace("password", "")


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("roots://h:1094/a/b/", "root://h:1094//a/b"),
        ("davs://h/a", "https://h/a"),
        ("dav://h/a", "http://h/a"),
        ("S3://bucket/a/", "s3://bucket/a"),
    ],
)
def test_urls_are_written_in_one_way(place: str, url: str) -> None:
    assert open_store(place).url == url


@pytest.mark.needs("xrootd")
def test_the_logs_of_a_store_have_no_token(
    xrootd_with_tokens: XRootDServer, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = open_store(f"{xrootd_with_tokens.http}/{os.getpid()}-logs")
    store.create("v1/x", b"1")
    assert store.read("v1/x") == b"1"
    assert caplog.records
    assert token not in caplog.text + repr(store) + repr(pickle.dumps(store))
