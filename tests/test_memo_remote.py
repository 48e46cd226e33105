"""Of files on servers only stamps are asked for; what cannot be trusted is read each time."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import fsspec
import pytest
from scenario import Scenario, write_nano

from coffea_dirac.inputs.identity import FileIdentity, Reading
from coffea_dirac.inputs.memo import IdentityMemo
from coffea_dirac.inputs.stamps import _remote_stamp, stamps

pytestmark = pytest.mark.core


def identify(place: Path, *urls: str) -> list[FileIdentity | Exception]:
    memo = IdentityMemo()
    memo.attach(place)
    return list(memo.identify_all([(url, "Events") for url in urls], Reading()).values())


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves files with ranges, and counts."""

    folder: Path
    requests: Counter[str]
    validators: dict[str, str]

    def do_HEAD(self) -> None:
        self.send(head=True)

    def do_GET(self) -> None:
        self.send(head=False)

    def send(self, *, head: bool) -> None:
        self.requests[self.command] += 1
        data = (self.folder / self.path.lstrip("/").partition("?")[0]).read_bytes()
        start, stop, status = 0, len(data), 200
        if (wanted := self.headers.get("Range")) and "," not in wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(int(last) + 1 if last else len(data), len(data)), 206
        self.send_response(status)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        for header, value in type(self).validators.items():
            self.send_header(header, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if not head:
            self.wfile.write(data[start:stop])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Counting", (Handler,), {"folder": tmp_path, "requests": Counter(), "validators": {"ETag": '"one"'}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join(10)


def test_remote_files_are_asked_for_their_stamps_only(tmp_path: Path, served: tuple[str, type[Handler]]) -> None:
    url, handler = served
    names = [f"{url}/{write_nano(tmp_path / f'{i}.root', seed=i).name}" for i in range(3)]
    place = tmp_path / "files.sqlite3"
    first = identify(place, *names)
    assert all(isinstance(found, FileIdentity) for found in first), first
    handler.requests.clear()
    assert identify(place, *names) == first
    assert handler.requests == {"HEAD": 3}
    handler.validators = {"ETag": '"two"'}
    identify(place, *names)
    assert handler.requests["GET"] > 0


def test_no_url_with_its_secrets_is_written_down(tmp_path: Path, served: tuple[str, type[Handler]]) -> None:
    url, _ = served
    write_nano(tmp_path / "one.root")
    place = tmp_path / "files.sqlite3"
    identify(place, f"{url}/one.root?token=CANARY")
    assert place.exists()
    assert b"CANARY" not in place.read_bytes()


@pytest.mark.parametrize(
    ("validators", "is_remembered"),
    [
        ({}, False),
        ({"ETag": '"strong"'}, True),
        ({"ETag": 'W/"weak"'}, False),
        ({"ETag": 'W/"weak"', "Last-Modified": formatdate(1e9, usegmt=True)}, True),
        ({"Last-Modified": formatdate(1e9, usegmt=True)}, True),
        ({"Last-Modified": formatdate(4e9, usegmt=True)}, False),
        ({"ETag": '"of a second that may not be over"', "Last-Modified": formatdate(4e9, usegmt=True)}, False),
        ({"Last-Modified": "yesterday"}, False),
    ],
)
def test_a_remote_file_is_remembered_if_its_server_tells_when_it_changes(
    tmp_path: Path, served: tuple[str, type[Handler]], validators: dict[str, str], is_remembered: bool
) -> None:
    url, handler = served
    (tmp_path / "one.root").write_bytes(b"data")
    handler.validators = validators
    assert bool(stamps([f"{url}/one.root"])) == is_remembered


def test_a_session_asks_once_for_each_remote_file(tmp_path: Path, served: tuple[str, type[Handler]]) -> None:
    url, handler = served
    scenario = Scenario(tmp_path)
    fileset: Any = {"ttbar": {"files": [f"{url}/one.root", f"{url}/two.root"], "metadata": {"xsec": 2.5, "unread": 1}}}
    first = scenario.run(fileset=fileset)
    handler.requests.clear()
    second = scenario.run(fileset=fileset)
    assert (second.misses, second.out) == (0, first.out)
    assert handler.requests == {"HEAD": 2}
    write_nano(tmp_path / "two.root", seed=7)
    handler.validators = {"ETag": '"two"'}
    third = scenario.run(fileset=fileset, compare=True)
    assert third.misses > 0
    assert third.out == pytest.approx(third.plain, rel=1e-12)


def test_stamps_are_handed_on_once_only(tmp_path: Path, served: tuple[str, type[Handler]]) -> None:
    url, handler = served
    wanted = [(f"{url}/{write_nano(tmp_path / 'one.root').name}", "Events")]
    memo = IdentityMemo()
    memo.identify_all(wanted, Reading(), hand_on=True)
    for asked in (0, 1, 2):
        handler.requests.clear()
        memo.identify_all(wanted, Reading())
        assert handler.requests["HEAD"] == min(asked, 1)


def test_a_listing_that_a_file_system_keeps_hides_no_change() -> None:
    class Listing(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "listing"
        tag = "one"

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            return self.dircache.setdefault(path, [{"name": path, "size": 1, "ETag": type(self).tag}])[0]

        def invalidate_cache(self, path: str | None = None) -> None:
            self.dircache.pop(path, None)

    fsspec.register_implementation("listing", Listing, clobber=True)
    # Not by `stamps`: fsspec has other instances for other threads, mostly.
    before = _remote_stamp("listing://one.root")
    Listing.tag = "two"
    assert before
    assert _remote_stamp("listing://one.root") != before
    assert _remote_stamp("unknown://one.root") is None


def test_a_file_read_through_a_copy_is_not_remembered(tmp_path: Path, served: tuple[str, type[Handler]]) -> None:
    url, _ = served
    (tmp_path / "one.root").write_bytes(b"data")
    assert stamps([f"{url}/one.root"])
    assert stamps([f"simplecache::{url}/one.root"]) == {}


def test_a_server_that_never_answers_holds_up_neither_the_others_nor_the_end(
    tmp_path: Path, served: tuple[str, type[Handler]]
) -> None:
    url, _ = served
    (tmp_path / "one.root").write_bytes(b"data")
    script = (
        "import sys, time; from coffea_dirac.inputs import stamps\n"
        "stamps.REMOTE_DEADLINE_S = 2\n"
        "print(sorted(stamps.stamps(sys.argv[1:])))"
    )
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        dead = [f"http://127.0.0.1:{silent.getsockname()[1]}/{i}.root" for i in range(40)]
        command = [sys.executable, "-c", script, *dead, f"{url}/one.root"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str([f"{url}/one.root"]), done.stderr
