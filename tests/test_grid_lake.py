"""A data lake in a box, with a grid and by itself: real servers, datasets that are read, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from scenario import write_nano

from coffea_dirac.errors import ConfigurationError
from coffea_dirac.grid import lake

SITE_A = "LCG.Box-A.uk"


@pytest.mark.long
@pytest.mark.needs("diracx", "rucio", "xrootd")
@pytest.mark.timeout(900)
def test_a_grid_with_a_lake_has_datasets_at_its_sites_and_leaves_no_process(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "coffea_dirac", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)

    where = ["--directory", str(tmp_path / "grid")]
    refused = command("grid", "up", "--dataset", f"mc:none={tmp_path}/none*.root", *where)
    assert (refused.returncode, "with files that exist" in refused.stderr) == (2, True)
    path = write_nano(tmp_path / "own.root")
    done = command(
        "grid", "up", "--json", "--site", f"{SITE_A}:1", "--lake", "--dataset", f"mc:own={tmp_path}/o*.root", *where
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads(command("grid", "status", "--json", *where).stdout) == found
    assert found["datasets"] == ["mc:own"]
    site = lake.rse_of(SITE_A)
    assert {rse: facts["site"] for rse, facts in found["storages"].items()} == {site: SITE_A, lake.TOKENS_RSE: ""}
    environment = {**os.environ, **found["environment"], "XDG_CACHE_HOME": str(tmp_path / "home")}
    # From each storage, by name, and a cache on the one that wants a token.
    script = (
        "import sys, uproot, coffea_dirac; from coffea_dirac.inputs import lake; one = sys.argv[1]\n"
        "found = coffea_dirac.resolve('mc:own', weights={one: 2}); (name,) = found['mc:own']['files']\n"
        "with uproot.open({name: 'Events'}) as tree: print(tree.num_entries, *lake.rses_read(name))"
    )
    for rse in found["storages"]:
        line = [sys.executable, "-c", script, rse]
        said = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert said.stdout.split() == ["100", rse], said.stderr
    line = [sys.executable, "-m", "coffea_dirac", "doctor", f"{found['storages'][lake.TOKENS_RSE]['url']}/stages"]
    assert subprocess.run(line, env=environment, capture_output=True, timeout=120, check=False).returncode == 0
    assert path.exists()
    processes = [psutil.Process(pid) for pid in found["pids"].values()]
    place = Path(environment["X509_CERT_DIR"]).parents[1]
    assert place.exists()
    assert command("grid", "down", *where).returncode == 0
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not (tmp_path / "grid").exists()
    assert not place.exists()


@pytest.mark.needs("rucio", "xrootd")
def test_a_lake_ends_if_what_holds_it_is_killed(tmp_path: Path) -> None:
    lake.begin(tmp_path / "lake", [SITE_A], {}, end_with=os.getpid())
    found = lake.wait(tmp_path / "lake")
    processes = [psutil.Process(pid) for pid in found["pids"].values()]
    place = Path(found["environment"]["X509_CERT_DIR"]).parents[1]
    processes[0].kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert lake.status(tmp_path / "lake") == {}
    assert lake.down(tmp_path / "lake") == []
    assert not place.exists()


def test_a_lake_that_cannot_be_is_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COFFEA_DIRAC_RUCIO_PYTHON", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError) as raised:
        lake.begin(tmp_path / "lake", [SITE_A], {})
    assert "sudo apt-get install xrootd-server" in str(raised.value)
    assert "scripts/set-up .venv-rucio" in str(raised.value)
    assert not (tmp_path / "lake").exists()
