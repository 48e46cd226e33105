"""A cache on a storage element becomes a dataset of Rucio, and others read it by its name."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenario import Scenario

from coffea_dirac import open_catalog, open_store
from coffea_dirac.errors import ConfigurationError, StoreError
from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer
from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.stores.published import register

pytestmark = [pytest.mark.needs("rucio"), pytest.mark.needs("xrootd")]
DATASET = "user.jdoe:ttbar-cache"


@pytest.fixture
def as_jdoe(rucio: RucioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let `rucio.cfg` say who asks."""
    options = {"rucio_host": rucio.url, "auth_host": rucio.url, "ca_cert": rucio.keys.ca, "auth_type": "userpass"}
    options |= {"account": "jdoe", "username": "jdoe", "password": PASSWORD}
    text = "[client]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
    (tmp_path / "rucio.cfg").write_text(text)
    environment = {"RUCIO_CONFIG": str(tmp_path / "rucio.cfg"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def command(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "coffea_dirac", *arguments, "--json"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_published_cache_is_found_by_its_name_and_never_written(
    tmp_path: Path, rucio: RucioServer, xrootd: XRootDServer, as_jdoe: dict[str, str]
) -> None:
    rucio.add_rse("CACHE_SCRATCHDISK", xrootd.root)
    (tmp_path / "analysis").mkdir()
    scenario = Scenario(tmp_path / "analysis")
    place = f"{xrootd.root}/{tmp_path.name}/stages"
    cold = scenario.run(cache=place)
    assert (cold.error, cold.misses) == (None, 4)
    before = len(rucio.requests())
    options = ["cache", "register", place, "--dataset", DATASET, "--rse", "CACHE_SCRATCHDISK", "--days", "2"]
    first = command(*options)
    assert first["dataset"] == DATASET
    assert first["registered"] == len(open_store(place).list()) > 0
    assert len(rucio.requests()) - before < 10
    assert command(*options[:-1], "3")["registered"] == 0
    (rule,) = rucio.client().list_did_rules(*DATASET.split(":"))
    assert (rule["rse_expression"], rule["account"]) == ("CACHE_SCRATCHDISK", "jdoe")
    until = rucio.client().get_metadata(*DATASET.split(":"))["expired_at"]
    assert abs((until - dt.datetime.now(dt.UTC).replace(tzinfo=None)).total_seconds() - 3 * 86400) < 600
    warm = scenario.run(cache=f"rucio://{DATASET}")
    assert (warm.out, warm.misses, warm.error) == (cold.out, 0, None)
    scenario.edit("helper.py", "CUT = 30", "CUT = 40")
    edited = scenario.run(cache=f"rucio://{DATASET}")
    assert (edited.error, edited.misses) == (None, 4)
    assert edited.out != cold.out
    assert "what is published is only read" in " ".join(edited.warnings + edited.notes)
    assert scenario.run(cache=f"rucio://{DATASET}").misses == 4


def test_what_cannot_be_published_or_opened_is_named(
    tmp_path: Path, rucio: RucioServer, as_jdoe: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match="is no place that others can read"):
        register(open_store(tmp_path), DATASET, "X", catalog=open_catalog("rucio"), lifetime_s=1.0)
    with pytest.raises(ConfigurationError, match="names no dataset"):
        open_store("rucio://user.jdoe")
    store = open_store("rucio://user.jdoe:nothing")
    assert store.list() == []
    assert store.read("v1/a.pack") is None
    with pytest.raises(StoreError, match="is only read"):
        store.create("v1/a.pack", b"a")


def test_a_run_tells_once_which_datasets_it_reads(
    tmp_path: Path, rucio: RucioServer, xrootd: XRootDServer, as_jdoe: dict[str, str]
) -> None:
    (tmp_path / "analysis").mkdir()
    scenario = Scenario(tmp_path / "analysis")
    rucio.add_rse("TRACED", xrootd.root)
    data = {name: (scenario.folder / name).read_bytes() for name in ("one.root", "two.root")}
    for name, content in data.items():
        (xrootd.data / name).write_bytes(content)
        (xrootd.data / name).chmod(0o644)
    rucio.fill({"TRACED": xrootd.root}, {"traced1": {"one.root": data["one.root"]}, "traced2": data})

    def n_traces(options: str = "") -> int:
        before = rucio.requests()
        what = {"ttbar": {"files": "mc:traced1", "metadata": {"xsec": 1.0}}}
        result = scenario.run(
            before="from coffea_dirac.inputs import traces; traces.END_S = 60",
            make="from coffea_dirac import open_catalog, resolve; "
            f"fileset = resolve({what!r}{options}); "
            "executor = DiracExecutor(cache='cache', inline=True, status=False)",
        )
        assert result.error is None
        return sum("/traces/" in line for line in rucio.requests()[len(before) :])

    assert n_traces() == 1
    # A full hit reads nothing.
    assert n_traces() == 0
    scenario.edit("helper.py", "CUT = 30", "CUT = 40")
    assert n_traces(", catalog=open_catalog('rucio', traces=False)") == 0


@pytest.fixture
def bad_site(open_folder: Path, keys: Any) -> Iterator[XRootDServer]:
    """A storage of one RSE: Rucio tells whose a replica is by its URL."""
    site = XRootDServer(open_folder / "bad-site")
    try:
        yield site.start()
    finally:
        site.stop()


def test_a_replica_that_is_proven_damaged_is_declared_suspicious(
    tmp_path: Path, rucio: RucioServer, bad_site: XRootDServer, other_site: XRootDServer, as_jdoe: dict[str, str]
) -> None:
    (tmp_path / "analysis").mkdir()
    scenario = Scenario(tmp_path / "analysis")
    data = (scenario.folder / "one.root").read_bytes()
    for rse, site in (("BAD_DISK", bad_site), ("GOOD_DISK", other_site)):
        rucio.add_rse(rse, site.root)
        (site.data / "suspect.root").write_bytes(data if rse == "GOOD_DISK" else data[:3000])
        (site.data / "suspect.root").chmod(0o644)
    rucio.fill({"BAD_DISK": bad_site.root, "GOOD_DISK": other_site.root}, {"suspects": {"suspect.root": data}})

    def suspicious(options: str = "") -> set[str]:
        what = {"ttbar": {"files": "mc:suspects", "metadata": {"xsec": 1.0}}}
        result = scenario.run(
            before="from coffea_dirac.inputs import traces; traces.END_S = 60",
            make="from coffea_dirac import open_catalog, resolve; "
            f"fileset = resolve({what!r}, weights={{'BAD_DISK': 2}}, catalog=open_catalog('rucio'{options})); "
            "executor = DiracExecutor(cache=None, workers=1, status=False)",
        )
        assert result.error is None
        assert any("at BAD_DISK is damaged: it has 3000 bytes" in note for note in result.notes)
        (found,) = rucio.client().list_suspicious_replicas()
        return {one["rse"] for one in found if one["name"] == "suspect.root"}

    assert suspicious(", declare=False") == set()
    assert suspicious() == {"BAD_DISK"}
