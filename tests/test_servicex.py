"""Files that ServiceX has delivered run and are found again by their request, from an object store or from a folder.

There is no ServiceX here: a server of this test signs URLs and looks at the signatures, as its object store does.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np
import pytest
from scenario import Result, Scenario, write_nano

from coffea_dirac.catalogs.servicex import servicex_fileset
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.inputs.storages import storage_of

ONE, OTHER = "a1" * 32, "b2" * 32
"""Hashes of two requests."""


class ObjectStore:
    """A server that gives what lies in a folder to those whose URL was signed for reading, and only then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.seen = folder, 0, list[str]()
        self.signatures = set[str]()

    def url(self, name: str) -> str:
        """Return a URL with a new signature."""
        signature = hashlib.sha256(f"{name} {len(self.signatures)}".encode()).hexdigest()
        self.signatures.add(signature)
        return f"http://127.0.0.1:{self.port}/{name}?X-Amz-Expires=3600&X-Amz-Signature={signature}"

    def n_reads(self) -> int:
        return self.seen.count("GET")


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            store.seen.append(self.command)
            signature = urllib.parse.parse_qs(parts.query).get("X-Amz-Signature", [""])[0]
            if self.command != "GET" or signature not in store.signatures or self.headers.get("Authorization"):
                # A URL is signed for one method, and nobody else's credential is wanted.
                self._answer(403, b"")
                return
            data = (store.folder / parts.path.lstrip("/")).read_bytes()
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            if not wanted:
                self._answer(200, data)
                return
            first, last = (int(text) if text else None for text in wanted.split("-"))
            part = data[first : None if last is None else last + 1]
            self._answer(206, part, f"bytes {first}-{(first or 0) + len(part) - 1}/{len(data)}")

        do_HEAD = do_GET

        def _answer(self, status: int, body: bytes, part: str = "") -> None:
            self.send_response(status)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        store.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield store
        server.shutdown()
        thread.join(10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    (tmp_path / "objects" / "request-1").mkdir(parents=True)
    with object_store(tmp_path / "objects") as found:
        yield found


def run(scenario: Scenario, delivered: dict[str, list[str]], request: str = ONE, **options: Any) -> Result:
    """Run the analysis of files that were delivered, in a new process."""
    metadata = {"ttbar": {"xsec": 2.5}}
    make = (
        "from coffea_dirac.catalogs.servicex import servicex_fileset; "
        f"fileset = servicex_fileset({delivered!r}, {dict.fromkeys(delivered, request)!r}, metadata={metadata!r}); "
        "executor = DiracExecutor(**{'cache': 'cache', 'inline': True, 'status': False, **options})"
    )
    return scenario.run(make=make, env={"XDG_CACHE_HOME": str(scenario.folder / "home")}, **options)


@pytest.mark.parametrize("where", [{"inline": True}, {"inline": False, "workers": 1}], ids=["inline", "workers"])
def test_another_signature_or_place_is_the_same_file_and_another_request_is_not(
    tmp_path: Path, store: ObjectStore, where: dict[str, Any]
) -> None:
    scenario = Scenario(tmp_path)
    data = (tmp_path / "one.root").read_bytes()
    (store.folder / "request-1" / "nano_1.root").write_bytes(data)
    cold = run(scenario, {"ttbar": [store.url("request-1/nano_1.root")]}, **where)
    assert (cold.error, cold.misses, cold.out["n"]) == (None, 2, 100)
    n_reads = store.n_reads()
    assert n_reads > 0
    signed_again = run(scenario, {"ttbar": [store.url("request-1/nano_1.root")]}, **where)
    assert (signed_again.out, signed_again.misses) == (cold.out, 0)
    assert store.n_reads() == n_reads, "what is kept is not opened again"
    # Delivered again: another bucket, or this machine's disk, where it may even have been written anew.
    (store.folder / "request-2").mkdir()
    write_nano(store.folder / "request-2" / "nano_1.root", seed=1)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "nano_1.root").write_bytes(data)
    for place in (store.url("request-2/nano_1.root"), str(tmp_path / "downloads" / "nano_1.root")):
        again = run(scenario, {"ttbar": [place]}, **where)
        assert (again.out, again.misses) == (cold.out, 0), place
    other = run(scenario, {"ttbar": [store.url("request-1/nano_1.root")]}, OTHER, **where)
    assert (other.error, other.out, other.misses) == (None, cold.out, 2)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert not any(signature.encode() in kept for signature in store.signatures)


def test_a_token_of_ours_does_not_go_with_a_signed_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARER_TOKEN", "a.token.of-ours")

    def sent(url: str) -> dict[str, str]:
        return storage_of(url)[0].client_kwargs["headers"]

    assert sent("https://store.example.org/a.root") == {"Authorization": "Bearer a.token.of-ours"}
    assert sent("https://store.example.org/a.root?X-Amz-Signature=0123") == {}
    assert sent("https://store.example.org/b.root") == {"Authorization": "Bearer a.token.of-ours"}


def test_files_of_this_machine_are_read_where_they_lie(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    cold = run(scenario, {"ttbar": [str(tmp_path / "one.root")]})
    assert (cold.error, cold.misses, cold.out["n"]) == (None, 2, 100)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one.root").rename(tmp_path / "elsewhere" / "one.root")
    warm = run(scenario, {"ttbar": ["elsewhere/one.root"]})
    assert (warm.out, warm.misses) == (cold.out, 0)


def test_parquet_files_run_likewise(tmp_path: Path, store: ObjectStore) -> None:
    scenario = Scenario(tmp_path)
    scenario.write(
        "analysis.py",
        "import awkward as ak\nfrom coffea import processor\n\n"
        "class Analysis(processor.ProcessorABC):\n"
        "    def process(self, events):\n        return {'n': len(events), 'x': float(ak.sum(events.x))}\n"
        "    def postprocess(self, accumulator):\n        return accumulator\n",
    )
    ak.to_parquet(ak.Array({"x": np.arange(20.0)}), store.folder / "request-1" / "a.parquet")
    options = {"runner": {"format": "parquet", "chunksize": 100}}
    before = "from coffea.nanoevents import BaseSchema"

    def once(request: str) -> Result:
        delivered = {"ttbar": [store.url("request-1/a.parquet")]}
        make = (
            f"{before}; from coffea_dirac.catalogs.servicex import servicex_fileset; runner['schema'] = BaseSchema; "
            f"fileset = servicex_fileset({delivered!r}, {{'ttbar': {request!r}}}); "
            "executor = DiracExecutor(cache='cache', inline=True, status=False)"
        )
        return scenario.run(make=make, env={"XDG_CACHE_HOME": str(tmp_path / "home")}, **options)

    cold = once(ONE)
    assert (cold.error, cold.out, cold.misses) == (None, {"n": 20, "x": 190.0}, 1)
    n_reads = store.n_reads()
    assert (once(ONE).misses, store.n_reads()) == (0, n_reads)
    assert once(OTHER).misses == 1


def test_a_signature_that_is_not_taken_is_named_and_not_told(tmp_path: Path, store: ObjectStore) -> None:
    scenario = Scenario(tmp_path)
    (store.folder / "request-1" / "nano_1.root").write_bytes((tmp_path / "one.root").read_bytes())
    url = store.url("request-1/nano_1.root")
    store.signatures.clear()
    result = run(scenario, {"ttbar": [url]})
    assert result.error is not None
    assert "no replica of lfn://servicex:a1a1a1a1a1a1a1a1/nano_1.root can be read; ServiceX: 403" in result.error[1]
    assert url.rpartition("=")[2] not in json.dumps(result.error) + result.stderr


def test_the_request_is_found_by_the_files_that_it_has_brought() -> None:
    def results(request: str, *places: str) -> Any:
        return SimpleNamespace(hash=request, title="ttbar", file_list=[], signed_url_list=list(places))

    url = "https://store.example.org/{}/a.root?X-Amz-Signature={}"
    remembered = [results(OTHER, url.format("r1", "1")), results(ONE, url.format("r2", "2"))]
    found = servicex_fileset({"ttbar": [url.format("r2", "3")]}, remembered)
    assert found["ttbar"]["files"] == ["lfn://servicex:a1a1a1a1a1a1a1a1/a.root"]
    request = SimpleNamespace(compute_hash=lambda: OTHER)
    found = servicex_fileset({"ttbar": [url.format("r2", "3")]}, {"ttbar": request}, treename="Events")
    assert found["ttbar"]["files"] == {"lfn://servicex:b2b2b2b2b2b2b2b2/a.root": "Events"}


@pytest.mark.parametrize(
    ("files", "requests", "words"),
    [
        (["/d/a.root"], {}, "which request has made the files of 'ttbar'"),
        (["/d/a.root"], {"ttbar": "short"}, "which request has made"),
        (["/d/a.root"], [SimpleNamespace(hash=ONE, file_list=["/d/b.root"])], "which request has made"),
        (["/d/a.root"], {"ttbar": SimpleNamespace(hash=ONE, file_list=["/d/b.root"])}, "which request has made"),
        (["/d/a.root", "/e/a.root"], {"ttbar": ONE}, "two files with the name 'a.root'"),
        ([], {"ttbar": ONE}, "has no files"),
    ],
)
def test_what_cannot_be_told_apart_is_an_error(files: list[str], requests: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        servicex_fileset({"ttbar": files}, requests)
    with pytest.raises(ConfigurationError, match=r"give what servicex\.deliver"):
        servicex_fileset([], requests)  # type: ignore[arg-type]
