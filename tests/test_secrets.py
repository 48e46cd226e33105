"""Secrets in the environment, in options and in URLs appear in nothing that is kept, printed or listed."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario import Scenario
from test_memo_remote import Handler

from coffea_dirac.fingerprint import describe, diff
from coffea_dirac.redact import is_secret_name, tree_without_secrets

pytestmark = pytest.mark.core

CANARY = re.compile(rb"CANARY-?\w*")
SCRIPT = """
import json, logging, os, sys, warnings
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for noisy in ("fsspec", "aiohttp", "asyncio", "urllib3", "numba", "matplotlib", "distributed", "fsspec.http"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
warnings.simplefilter("always")
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor
NanoAODSchema.warn_missing_crossrefs = False
import analysis
url, kind, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
secret = os.environ["SECRET_TOKEN"]
file = f"{url}/one.root?token={secret}" if kind != "missing" else f"{url}/gone.root?token={secret}"
file = file.replace("http://", f"http://jdoe:{secret}@") if kind == "user" else file
options = {} if kind == "user" else {"headers": {"Authorization": f"Bearer {secret}"}}
executor = DiracExecutor(cache="cache", status=True, **({"workers": workers} if workers else {"inline": True}))
run = processor.Runner(executor=executor, chunksize=50, schema=NanoAODSchema, skipbadfiles=kind == "skip")
fileset = {"ttbar": {"files": {file: "Events"}, "metadata": {"xsec": 2.5}}}
if kind == "skip":
    fileset["ttbar"]["files"][f"{url}/gone.root?token={secret}"] = "Events"
analyst = analysis.Analysis()
analyst.fails = kind == "fails"
try:
    out = run(fileset, analyst, treename="Events", uproot_options=options)
    print("OUT", out["n"])
except Exception as error:
    print("ERROR", type(error).__name__)
    print(error)
    if kind != "fails":
        print(repr(error))
print(repr(executor), repr(executor.cache), repr(executor.report.outcomes if executor.report else None))
print(executor.report)
from rich.console import Console
Console().print(executor.report)
print("DONE", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    found = Scenario(tmp_path)
    found.edit(
        "analysis.py",
        "        jets = events.Jet[",
        "        assert not self.fails, 'no luck'\n        jets = events.Jet[",
    )
    found.write("script.py", SCRIPT)
    return found


class Polite(Handler):
    """Says that a file is missing instead of going away."""

    def send(self, *, head: bool) -> None:
        if not (self.folder / self.path.lstrip("/").partition("?")[0]).exists():
            self.send_error(404)
        else:
            super().send(head=head)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    handler = type("Serving", (Polite,), {"folder": tmp_path, "requests": Counter(), "validators": {"ETag": "one"}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def scan(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".root":
            for found in CANARY.findall(path.read_bytes()):
                yield str(path), found


@pytest.mark.parametrize("workers", [0, 1], ids=["inline", "workers"])
@pytest.mark.parametrize("kind", ["sound", "user", "missing", "skip", "fails"])
def test_no_secret_is_kept_printed_or_listed(scenario: Scenario, url: str, kind: str, workers: int) -> None:
    temporary = scenario.folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "script.py", url, kind, str(workers)],
        cwd=scenario.folder,
        env={**os.environ, "SECRET_TOKEN": "CANARY-4711", "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(100, process.kill)
    watchdog.start()
    said = ""
    while not said.endswith("DONE\n") and (line := process.stdout.readline()):
        said += line
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listed = [" ".join(p.cmdline()) for p in family]
    on_disk = [*scan(scenario.folder / "cache"), *scan(temporary)]
    process.communicate("\n", timeout=60)
    watchdog.cancel()
    assert said.endswith("DONE\n"), said[-2000:]
    assert ("OUT" in said) == (kind in ("sound", "user", "skip")), said[-2000:]
    assert len(listed) > 1 or not workers or "ERROR" in said
    assert CANARY.findall(said.encode()) == [], said
    assert [text for text in listed if "CANARY" in text] == []
    assert on_disk == []


ATTRIBUTES = """
    def __init__(self):
        self.token = os.environ["SECRET_TOKEN"]
        self.login = {"password": "CANARY-1", "accessToken": "CANARY-2", "ca": [os.environ["SECRET_TOKEN"]]}
        self.host = "https://jdoe:CANARY-3@store.example.org/x?token=CANARY-4"
        self.headers = {"Accept": "*/*", "Authorization": "Bearer CANARY-5"}

    def process(self, events, api_key="CANARY-6"):
        self.token, self.login, self.host, self.headers, helper.PASSWORD
"""


def put_secrets(scenario: Scenario, statement: str) -> None:
    scenario.write("helper.py", (scenario.folder / "helper.py").read_text() + "PASSWORD = 'CANARY-7'\n")
    scenario.edit("analysis.py", "import json", "import json, os")
    scenario.edit("analysis.py", "    def process(self, events):", ATTRIBUTES)
    scenario.edit("analysis.py", "assert not self.fails, 'no luck'", statement)


def test_secrets_that_a_processor_holds_are_neither_kept_nor_told(scenario: Scenario) -> None:
    put_secrets(scenario, "cut = 30")
    first = scenario.run(env={"SECRET_TOKEN": "CANARY-4711"})
    assert (first.error, first.misses) == (None, 4)
    for name, old, new in [
        ("analysis.py", '-1"', '-11"'),
        ("analysis.py", '-4"', '-44"'),
        ("helper.py", "-7'", "-77'"),
    ]:
        scenario.edit(name, f"CANARY{old}", f"CANARY{new}")
        again = scenario.run(env={"SECRET_TOKEN": "CANARY-4711"})
        assert again.misses == 4, "a secret is a value like any other"
        assert "CANARY" not in str(again)
    other = scenario.run(env={"SECRET_TOKEN": "CANARY-0815"})
    assert other.misses == 4
    assert "hidden" in str(other.reasons)
    assert "CANARY" not in str(other)
    assert [*scan(scenario.folder / "cache")] == []


def test_a_worker_that_dies_tells_no_secret(scenario: Scenario) -> None:
    put_secrets(scenario, "events.metadata['entrystart'] or os.kill(os.getpid(), 9)")
    temporary = scenario.folder / "tmp"
    temporary.mkdir()
    result = scenario.run(
        make="executor = DiracExecutor(cache='cache', workers=1, status=False)",
        fileset={"ttbar": {"files": ["one.root"], "metadata": {"xsec": 2.5}}},
        env={"SECRET_TOKEN": "CANARY-4711", "TMPDIR": str(temporary)},
    )
    assert result.error is not None
    assert "died" in result.error[1]
    assert "CANARY" not in str(result)
    assert [*scan(scenario.folder / "cache"), *scan(temporary)] == []


def test_names_of_secrets_are_told_from_names_of_other_things() -> None:
    secret = ["token", "API_KEY", "accessToken", "x509_credential", "my_password", "private_key", "Cookie"]
    other = ["tokenizer", "passing", "key", "bypass", "monkey", "jet_pt", "secretary", ""]
    assert [n for n in secret + other if is_secret_name(n)] == secret


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=12).map(lambda t: f"str {json.dumps(t)}"), st.just("-> class A")),
        lambda part: st.one_of(
            st.lists(part, max_size=3),
            st.dictionaries(st.sampled_from(["token", "cut", "login", "url"]), part, max_size=3),
        ),
        max_leaves=8,
    ),
    st.text(min_size=6, max_size=12),
)
def test_hiding_is_the_same_each_time_and_leaves_nothing_of_a_named_secret(part: object, secret: str) -> None:
    tree = {"a": part, "names": {"token": f"str {json.dumps(secret)}", "again": f"str {json.dumps(secret)}"}}
    hidden = tree_without_secrets(tree, {})
    assert tree_without_secrets(hidden, {}) == hidden
    assert hidden["names"]["again"] == hidden["names"]["token"] != tree["names"]["token"]
    assert tree_without_secrets(tree, {}) == hidden


def test_what_holds_no_secret_is_left_as_it_is() -> None:
    tree = describe({"cut": 30, "names": ["token count", "x?y"], "f": test_the_scan_finds_a_secret_that_is_there}).tree
    assert tree_without_secrets(tree, {})["roots"]["cut"] == "int 30"
    assert diff(tree, describe({"cut": 25, "names": ["token count", "x?y"], "f": len}).tree)


def test_the_scan_finds_a_secret_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"token=CANARY-4711")
    assert [found for _, found in scan(tmp_path)] == [b"CANARY-4711"]
