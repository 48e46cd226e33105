"""Drills of the data lake: something happens to a replica, a site, Rucio or a token, and what comes of it is written down.

`python tests/long_tests.py A long tests/test_lake_drills.py` writes the table into docs/reference/lake-drills.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uproot
from scenario import write_nano

from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer
from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.testing_jobs import wait_until

pytestmark = [pytest.mark.needs("xrootd"), pytest.mark.long, pytest.mark.timeout(300)]

ANALYSIS = """
import os, time
import awkward as ak
from coffea import processor

class Two(processor.ProcessorABC):
    "Reads something, lets the drill happen, and reads the rest."

    def process(self, events):
        first = int(ak.sum(events.event))
        if os.path.exists("stop-here"):
            os.makedirs("has-opened", exist_ok=True)
            end = time.monotonic() + 60
            while not os.path.exists("go-on"):
                assert time.monotonic() < end, "nobody says how to go on"
                time.sleep(0.01)
        return {"n": len(events), "first": first, "pt": float(ak.sum(events.Jet.pt))}

    def postprocess(self, accumulator):
        return accumulator
"""
SCRIPT = """
import json, sys, time, warnings
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor, open_catalog, resolve
from analysis import Two
warnings.simplefilter("ignore")
how = json.loads(sys.argv[1])
began = time.monotonic()
try:
    catalog = open_catalog(how["catalog"], **how["login"]) if how["login"] else how["catalog"]
    fileset = resolve({"ttbar": "mc:ttbar"}, catalog=catalog, sites={"LCG.A.uk": "SITE_A"}, verify=how["verify"])
    if how["resolved"]:
        open(how["resolved"], "w").close()
        sys.stdin.readline()
        began = time.monotonic()
    where = {"workers": how["workers"]} if how["workers"] else {"inline": True}
    run = processor.Runner(
        executor=DiracExecutor(cache="cache", status=False, **where), schema=NanoAODSchema, savemetrics=False,
        skipbadfiles=how["skip"],
    )
    out, said = run(fileset, Two(), treename="Events"), "; ".join(run.executor.report.notes)
except Exception as error:
    out, said = None, f"{type(error).__name__}: {error}"
print("RESULT " + json.dumps([out, said, time.monotonic() - began]))
"""


class Came(NamedTuple):
    """What came of a drill."""

    out: Any
    said: str
    seconds: float


class Lake:
    """A file at two sites, of which one is near, and an analysis that reads it."""

    def __init__(self, folder: Path, a: XRootDServer, b: XRootDServer, scheme: str = "root") -> None:
        self.folder, self.servers = folder, {"SITE_A": a, "SITE_B": b}
        path = write_nano(folder / "nano.root", events=400)
        # What follows ROOT's own data does not matter, and makes files as long as each other.
        self.data = path.read_bytes().ljust(60_000, b"\0")
        self.other = write_nano(path, events=400, seed=2).read_bytes().ljust(60_000, b"\0")
        path.unlink()
        with open(folder / "analysis.py", "w") as file:
            file.write(ANALYSIS)
        self.pfns = {}
        for rse, server in self.servers.items():
            self.copy(rse).write_bytes(self.data)
            self.copy(rse).chmod(0o644)
            base = server.root if scheme == "root" else server.http
            self.pfns[rse] = f"{base}/nano.root"
        self.how: dict[str, Any] = {"login": {}, "resolved": "", "verify": "size", "skip": False, "workers": 0}
        facts = {"size_bytes": len(self.data), "adler32": f"{zlib.adler32(self.data):08x}", "replicas": self.pfns}
        self.how["catalog"] = {"mc:ttbar": {"mc:nano.root": facts}}

    def add_a_sound_file(self) -> None:
        """Add another file to the dataset, at the site that is far."""
        (self.servers["SITE_B"].data / "other.root").write_bytes(self.other)
        (self.servers["SITE_B"].data / "other.root").chmod(0o644)
        facts = {"size_bytes": len(self.other), "replicas": {"SITE_B": f"{self.servers['SITE_B'].root}/other.root"}}
        self.how["catalog"]["mc:ttbar"]["mc:other.root"] = facts

    def copy(self, rse: str) -> Path:
        return self.servers[rse].data / "nano.root"

    def flip(self, rse: str) -> None:
        """Change a byte where the jets lie, in place."""
        with uproot.open({str(self.copy(rse)): "Events"}) as tree:
            where = tree["Jet_pt"]
            middle = int(where.member("fBasketSeek")[0] + where.basket(0).member("fKeylen") + 50)
        with self.copy(rse).open("r+b") as file:
            file.seek(middle)
            file.write(bytes([self.data[middle] ^ 0xFF]))

    def cut(self, rse: str) -> None:
        os.truncate(self.copy(rse), 2000)

    def run(self, during: Callable[[], None] | None = None, later: Callable[[], None] | None = None) -> Came:
        """Run the analysis in a new process; `during` happens after it has opened the file, `later` after `resolve`."""
        (self.folder / "script.py").write_text(SCRIPT)
        if during is not None:
            (self.folder / "stop-here").touch()
        if later is not None:
            self.how["resolved"] = str(self.folder / "resolved")
        environment = {**os.environ, "DIRACSITE": "LCG.A.uk", "XDG_CACHE_HOME": str(self.folder / "home")}
        command = [sys.executable, "script.py", json.dumps(self.how)]
        with subprocess.Popen(
            command, cwd=self.folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            if later is not None:
                self._wait_for("resolved", process)
                later()
                process.stdin.write("\n")
                process.stdin.flush()
            if during is not None:
                self._wait_for("has-opened", process)
                during()
                (self.folder / "go-on").touch()
            said, _ = process.communicate(timeout=200)
        (line,) = [line for line in said.splitlines() if line.startswith("RESULT ")]
        return Came(*json.loads(line.removeprefix("RESULT ")))

    def _wait_for(self, name: str, process: subprocess.Popen[str]) -> None:
        there = (self.folder / name).exists
        wait_until(lambda: there() or process.poll() is not None, timeout_s=60, what=f"that the analysis is {name}")

    @property
    def truth(self) -> Any:
        """What the analysis returns for the file as it was written."""
        import awkward as ak

        path = self.folder / "truth.root"
        path.write_bytes(self.data)
        with uproot.open({str(path): "Events"}) as tree:
            pt = ak.unflatten(ak.flatten(tree["Jet_pt"].array()), tree["nJet"].array())
            return {"n": 400, "first": int(ak.sum(tree["event"].array())), "pt": float(ak.sum(pt))}


@pytest.fixture
def a_lake(tmp_path: Path, open_folder: Path, keys: Any) -> Iterator[Lake]:
    """Two sites of this drill's own, which may be killed."""
    yield from _with_sites(tmp_path, open_folder)


@pytest.fixture
def a_lake_with_tokens(tmp_path: Path, open_folder: Path, keys: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    monkeypatch.setenv("SSL_CERT_FILE", str(keys.ca))
    monkeypatch.delenv("BEARER_TOKEN", raising=False)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    yield from _with_sites(tmp_path, open_folder, keys)


def _with_sites(folder: Path, open_folder: Path, keys: Any = None) -> Iterator[Lake]:
    sites = [XRootDServer(open_folder / f"{folder.name}-{name}", keys) for name in "ab"]
    try:
        for site in sites:
            site.start()
        yield Lake(folder, *sites, scheme="https" if keys else "root")
    finally:
        for site in sites:
            site.signal(signal.SIGCONT)
            site.stop()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Write down a row of the table."""

    def write(drill: str, when: str, outcome: str, came: Came) -> None:
        row = json.dumps([drill, when, outcome, came.said, round(came.seconds, 1)])
        request.node.user_properties.append(("drill", row))

    return write


def _unlink(lake: Lake) -> None:
    lake.copy("SITE_A").unlink()


def _deny(lake: Lake) -> None:
    lake.copy("SITE_A").chmod(0)


def _kill(lake: Lake) -> None:
    # A server that is stopped twice is stopped.
    lake.servers["SITE_A"].signal(signal.SIGKILL)


def _freeze(lake: Lake) -> None:
    lake.servers["SITE_A"].signal(signal.SIGSTOP)


DEADLINE_S = 25.0
DRILLS: dict[str, tuple[Callable[[Lake], None], float]] = {
    "missing": (_unlink, 5.0),
    "truncated": (lambda lake: lake.cut("SITE_A"), 5.0),
    "bit-flipped": (lambda lake: lake.flip("SITE_A"), 5.0),
    "permission denied": (_deny, 5.0),
    "site down": (_kill, DEADLINE_S),
    "site hangs": (_freeze, DEADLINE_S),
}


@pytest.mark.parametrize("when", ["before", "after the file was opened"])
@pytest.mark.parametrize("drill", DRILLS)
def test_the_nearest_replica_goes_bad_and_the_result_is_the_same(
    a_lake: Lake, drill: str, when: str, note: Callable[..., None]
) -> None:
    happens, most_s = DRILLS[drill]
    if when == "before":
        happens(a_lake)
        came = a_lake.run()
    else:
        came = a_lake.run(during=lambda: happens(a_lake))
    note(f"nearest replica: {drill}", when, "same result", came)
    assert came.out == pytest.approx(a_lake.truth, rel=1e-6), came.said
    assert came.seconds < most_s + 5


AT_WORKERS = [
    ("missing", "before"),
    ("missing", "after the file was opened"),
    ("truncated", "before"),
    ("truncated", "after the file was opened"),
    ("bit-flipped", "after the file was opened"),
    ("site down", "after the file was opened"),
    ("site hangs", "after the file was opened"),
]


@pytest.mark.parametrize(("drill", "when"), AT_WORKERS)
def test_the_nearest_replica_of_workers_goes_bad_and_the_result_is_the_same(
    a_lake: Lake, drill: str, when: str, note: Callable[..., None]
) -> None:
    happens, most_s = DRILLS[drill]
    a_lake.how["workers"] = 2
    if when == "before":
        happens(a_lake)
        came = a_lake.run()
    else:
        came = a_lake.run(during=lambda: happens(a_lake))
    note(f"nearest replica: {drill}", f"{when}, at a worker", "same result", came)
    assert came.out == pytest.approx(a_lake.truth, rel=1e-6), came.said
    assert came.seconds < most_s + 30


def test_all_replicas_of_workers_go_bad_and_each_is_named(a_lake: Lake, note: Callable[..., None]) -> None:
    def happens() -> None:
        a_lake.flip("SITE_A")
        a_lake.copy("SITE_B").unlink()

    a_lake.how["workers"] = 2
    came = a_lake.run(during=happens)
    note("all replicas bad", "after the file was opened, at a worker", "`NoReplicaError`", came)
    assert came.out is None
    assert ": NoReplicaError: no replica of lfn://mc:nano.root can be read" in came.said
    assert "SITE_A: " in came.said
    assert "SITE_B: " in came.said
    assert "All replicas were tried" in came.said


def test_all_replicas_are_bad_and_each_is_named(a_lake: Lake, note: Callable[..., None]) -> None:
    a_lake.flip("SITE_A")
    a_lake.copy("SITE_B").unlink()
    came = a_lake.run()
    note("all replicas bad", "before", "`NoReplicaError`", came)
    assert came.out is None
    assert "no replica of lfn://mc:nano.root can be read" in came.said
    assert "SITE_A: " in came.said
    assert "SITE_B: " in came.said
    a_lake.how["skip"] = True
    a_lake.add_a_sound_file()
    came = a_lake.run()
    note("all replicas bad, `skipbadfiles=True`", "before", "file left out", came)
    assert came.out["n"] == 400, came.said


def test_another_file_of_the_same_size_is_found_by_its_checksum_only(a_lake: Lake, note: Callable[..., None]) -> None:
    a_lake.copy("SITE_A").write_bytes(a_lake.other)
    a_lake.how["verify"] = "adler32"
    came = a_lake.run()
    drill = "nearest replica: another file of the same size"
    note(f'{drill}, `verify="adler32"`', "before", "same result", came)
    assert came.out == pytest.approx(a_lake.truth, rel=1e-6), came.said
    a_lake.how["verify"] = "size"
    for pack in a_lake.folder.glob("cache/**/*"):
        pack.unlink() if pack.is_file() else None
    came = a_lake.run()
    note(f'{drill}, `verify="size"`', "before", "another result: not seen", came)
    assert came.out["pt"] != pytest.approx(a_lake.truth["pt"], rel=1e-6)


@pytest.mark.needs("rucio")
@pytest.mark.parametrize("when", ["at resolve", "later"])
def test_rucio_goes_down(
    a_lake: Lake, open_folder: Path, keys: Any, when: str, note: Callable[..., None], tmp_path: Path
) -> None:
    server = RucioServer(open_folder / f"{tmp_path.name}-rucio", keys)
    server.start()
    try:
        places = {rse: site.root for rse, site in a_lake.servers.items()}
        for rse, place in places.items():
            server.add_rse(rse, place)
        server.fill(places, {"ttbar": {"nano.root": a_lake.data}})
        login = {"account": "jdoe", "auth_type": "userpass", "credentials": {"username": "jdoe", "password": PASSWORD}}
        a_lake.how.update(catalog=server.url, login={**login, "ca_cert": str(keys.ca)})
        if when == "at resolve":
            server.stop()
            came = a_lake.run()
            note("Rucio down", when, "`CatalogError`", came)
            assert came.out is None
            assert "CatalogError" in came.said
            assert "a snapshot works without it" in came.said
            assert came.seconds < 20
        else:
            came = a_lake.run(later=server.stop)
            note("Rucio down", when, "same result", came)
            assert came.out == pytest.approx(a_lake.truth, rel=1e-6), came.said
    finally:
        server.stop()


def test_a_token_expires(a_lake_with_tokens: Lake, keys: Any, tmp_path: Path, note: Callable[..., None]) -> None:
    lake, token, old = a_lake_with_tokens, tmp_path / "token", keys.token(exp=int(time.time()) - 60)
    token.write_text(old)
    came = lake.run()
    note("token expired", "before", "`CredentialError`", came)
    assert came.out is None
    lake.how["skip"] = True
    assert "the token expired at" in lake.run().said, "files are left out that nothing is wrong with"
    lake.how["skip"] = False
    assert "You were refused, and the token expired at" in came.said
    token.write_text(keys.token())
    came = lake.run(during=lambda: token.write_text(old) and None)
    note("token expired", "after the file was opened", "`CredentialError`", came)
    assert came.out is None
    assert "You were refused, and the token expired at" in came.said
    (tmp_path / "has-opened").rmdir()
    (tmp_path / "go-on").unlink()
    token.write_text(keys.token())
    came = lake.run(during=lambda: token.write_text(keys.token()) and None)
    note("token renewed", "after the file was opened", "same result", came)
    assert came.out == pytest.approx(lake.truth, rel=1e-6), came.said
