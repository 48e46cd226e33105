"""Parquet files read by logical name: from the near replica, from another if that is bad, and the same everywhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from coffea_dirac import DiracExecutor, resolve
from coffea_dirac.context import let
from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.health import Health
from coffea_dirac.running import computing
from coffea_dirac.worker.sealed import may_be_again
from coffea_dirac.worker.work import run_bundle

pytestmark = pytest.mark.needs("xrootd")
EVENTS = 20_000


class Sums(processor.ProcessorABC):
    def process(self, events: Any) -> Any:
        return {"n": len(events), "x": float(ak.sum(events.x)), "y": float(ak.sum(events.y))}

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator


class Lake:
    """One parquet file at two sites."""

    def __init__(self, folder: Path, servers: dict[str, XRootDServer]) -> None:
        self.folder, self.servers, self.name = folder, servers, f"{folder.name}.parquet"
        values = {name: np.random.default_rng(seed).normal(size=EVENTS) for seed, name in enumerate("xy")}
        ak.to_parquet(ak.Array(values), folder / "a.parquet", compression="zstd")
        self.data = (folder / "a.parquet").read_bytes()
        self.truth = {"n": EVENTS, "x": float(ak.sum(values["x"])), "y": float(ak.sum(values["y"]))}
        for server in servers.values():
            server.add(self.name, self.data)
        self.pfns = {rse: f"{server.root}/{self.name}" for rse, server in servers.items()}
        facts = {"size_bytes": len(self.data), "adler32": f"{zlib.adler32(self.data):08x}", "replicas": self.pfns}
        self.catalog = {"mc:t": {f"mc:{self.name}": facts}}

    def copy(self, rse: str) -> Path:
        return self.servers[rse].data / self.name

    def damage(self, rse: str) -> None:
        data = bytearray(self.data)
        data[len(data) // 4 : len(data) // 4 + 2000] = bytes(2000)
        self.copy(rse).write_bytes(data)

    def run(self, where: dict[str, Any] | None = None, cache: str = "cache", **options: Any) -> Any:
        executor = DiracExecutor(cache=str(self.folder / cache), status=False, **(where or {"inline": True}))
        run = processor.Runner(executor=executor, format="parquet", schema=BaseSchema, savemetrics=False, **options)
        out = run(
            resolve({"t": "mc:t"}, catalog=self.catalog, sites={"A": "A_DISK", "B": "B_DISK"}),
            Sums(),
            treename="Events",
        )
        return out, run.executor.report


@pytest.fixture
def a_lake(tmp_path: Path, xrootd: XRootDServer, other_site: XRootDServer, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for name, empty in (("_known", {}), ("_near", {}), ("_weights", {}), ("_whole", set()), ("_health", Health())):
        monkeypatch.setattr(lake, name, empty)
    monkeypatch.setenv("DIRACSITE", "A")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return Lake(tmp_path, {"A_DISK": xrootd, "B_DISK": other_site})


def n_opens(server: XRootDServer) -> int:
    return server.log.read_text(errors="replace").count("req=open")


def test_the_near_site_is_read_and_another_site_finds_all_kept(a_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before = n_opens(a_lake.servers["B_DISK"])
    out, report = a_lake.run()
    assert (out, report.work_items) == (a_lake.truth, {"hits": 0, "misses": 1})
    assert n_opens(a_lake.servers["B_DISK"]) == before
    monkeypatch.setenv("DIRACSITE", "B")
    before = n_opens(a_lake.servers["A_DISK"]) + before
    out, report = a_lake.run()
    assert (out, report.work_items) == (a_lake.truth, {"hits": 1, "misses": 0})
    assert n_opens(a_lake.servers["A_DISK"]) + n_opens(a_lake.servers["B_DISK"]) == before


DRILLS: dict[str, tuple[Callable[[Lake], object], str]] = {
    "missing": (lambda lake: lake.copy("A_DISK").unlink(), "cannot be read at A_DISK"),
    "truncated": (lambda lake: lake.copy("A_DISK").write_bytes(lake.data[:5000]), "is damaged: it has 5000 bytes"),
    "damaged": (lambda lake: lake.damage("A_DISK"), "at A_DISK is damaged: "),
    "without a footer": (
        lambda lake: lake.copy("A_DISK").write_bytes(lake.data[:-2000] + bytes(2000)),
        "at A_DISK is damaged: ",
    ),
}


@pytest.mark.parametrize("where", [{"inline": True}, {"workers": 1}], ids=["inline", "workers"])
@pytest.mark.parametrize("drill", DRILLS)
def test_a_bad_replica_is_survived(a_lake: Lake, drill: str, where: dict[str, Any]) -> None:
    happens, words = DRILLS[drill]
    happens(a_lake)
    out, report = a_lake.run(where)
    assert out == a_lake.truth
    if drill != "without a footer":
        assert any(words in note for note in report.notes), report.notes


def test_what_was_found_of_replicas_is_told_though_the_answer_of_the_worker_gets_lost(
    a_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def answer_lost_once(*bundle: Any) -> Any:
        run_bundle(*bundle)
        with let(may_be_again, True):
            ran.append(run_bundle(*bundle))
        return ran[-1]

    monkeypatch.setattr(computing, "run_bundle", answer_lost_once)
    a_lake.damage("A_DISK")
    out, report = a_lake.run()
    assert out == a_lake.truth
    assert [receipt.metrics for receipt in ran[0]] == [{}], "it was computed again, and not found"
    assert any("at A_DISK is damaged: " in note for note in report.notes), report.notes


def test_if_all_replicas_are_bad_each_is_named(a_lake: Lake) -> None:
    a_lake.damage("A_DISK")
    a_lake.copy("B_DISK").unlink()
    with pytest.raises(Exception, match=r"no replica of lfn://mc:.*parquet can be read") as raised:
        a_lake.run()
    assert "A_DISK: " in str(raised.value)
    assert "B_DISK: " in str(raised.value)
