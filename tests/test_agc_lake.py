"""The ttbar analysis by names of Rucio datasets, at two sites: the near one is read, and the other finds all kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agc_example.generate import generate
from agc_example.inputs import fileset_from
from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer
from coffea_dirac.grid.storage import XRootDServer

pytestmark = [pytest.mark.needs("xrootd"), pytest.mark.needs("rucio"), pytest.mark.long, pytest.mark.timeout(600)]

SAMPLES = [("ttbar", "nominal"), ("wjets", "nominal"), ("single_top_tW", "nominal")]
SCRIPT = """
import hashlib, json, sys, warnings

def main():
    how = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    from agc_example.run import analyse
    from coffea_dirac import DiracExecutor, codecs, open_catalog, resolve
    fileset = how["fileset"]
    if how["url"]:
        fileset = resolve(fileset, catalog=open_catalog(how["url"], **how["login"]))
    executor = DiracExecutor(cache=how["cache"], workers=2, status=False)
    result = analyse(fileset, executor=executor, chunksize=300)
    digest = hashlib.sha256(codecs.encode(result.out).data).hexdigest()
    print("RESULT " + json.dumps([digest, result.report.work_items, sum(result.out["events"].values())]))

if __name__ == "__main__":
    main()
"""


class Lake:
    """The analysis, its data on this machine and at two sites, and a Rucio server that knows of them."""

    def __init__(self, folder: Path, rucio: RucioServer, sites: dict[str, XRootDServer]) -> None:
        self.folder, self.rucio, self.sites = folder, rucio, sites
        self.local = fileset_from(generate(folder / "data", files=2, events=600, enriched=True, samples=SAMPLES))
        files = {name: {Path(f).name: Path(f).read_bytes() for f in one["files"]} for name, one in self.local.items()}
        for site in sites.values():
            for name, data in (pair for some in files.values() for pair in some.items()):
                (site.data / name).write_bytes(data)
                (site.data / name).chmod(0o644)
        places = {f"AGC_{site.upper()}": server.root for site, server in sites.items()}
        for site, server in sites.items():
            rucio.add_rse(f"AGC_{site.upper()}", server.root, site=site)
        rucio.fill(places, files)
        self.by_name = {name: {**one, "files": f"mc:{name}"} for name, one in self.local.items()}

    def run(self, site: str, cache: str, *, by_name: bool = True) -> Any:
        """Return digest of the result, work items found and computed, and events, of a new process at a site."""
        login = {"account": "jdoe", "auth_type": "userpass", "credentials": {"username": "jdoe", "password": PASSWORD}}
        how = {
            "cache": cache,
            "url": self.rucio.url if by_name else "",
            "login": {**login, "ca_cert": str(self.rucio.keys.ca)},
            "fileset": self.by_name if by_name else self.local,
        }
        (self.folder / "script.py").write_text(SCRIPT)
        environment = {**os.environ, "DIRACSITE": f"LCG.{site}.uk", "XDG_CACHE_HOME": str(self.folder / site)}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        command = [sys.executable, "script.py", json.dumps(how)]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        return json.loads(line.removeprefix("RESULT "))

    def n_requests(self) -> dict[str, int]:
        # Files that other tests have read from here are closed some time later.
        asked = re.compile(r"req=(?!close|endsess)")
        logs = {site: server.log.read_text(errors="replace") for site, server in self.sites.items()}
        return {site: len(asked.findall(log)) for site, log in logs.items()}


@pytest.fixture
def a_lake(tmp_path: Path, rucio: RucioServer, xrootd: XRootDServer, other_site: XRootDServer) -> Iterator[Lake]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "root"))
        yield Lake(tmp_path, rucio, {"Near": xrootd, "Far": other_site})


def test_the_analysis_reads_the_near_site_only_and_the_other_site_then_reads_nothing(a_lake: Lake) -> None:
    before = a_lake.n_requests()
    digest, items, events = a_lake.run("Near", "cache")
    after = a_lake.n_requests()
    assert (items["hits"], events) == (0, 2 * 600 * len(SAMPLES))
    assert after["Near"] > before["Near"]
    assert after["Far"] == before["Far"]
    warm, warm_items, _ = a_lake.run("Far", "cache")
    assert (warm, warm_items) == (digest, {"hits": items["misses"], "misses": 0})
    assert a_lake.n_requests() == after
    local, _, _ = a_lake.run("Near", "cache-local", by_name=False)
    assert local == digest
