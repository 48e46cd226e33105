"""Files as artefacts of a stage: written once, written again if they are not as they were, and read by a second run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from stage_scene import Folder

from coffea_dirac import StageCache, stage
from coffea_dirac.codecs import decode, encode
from coffea_dirac.errors import ConfigurationError, StageError
from coffea_dirac.inputs.filesets import Fileset

pytestmark = pytest.mark.core

ANALYSIS = """
import awkward as ak
import hist
from coffea import processor
from coffea_dirac import stage


def ran(name):
    with open("ran.txt", "a") as f:
        f.write(name + "\\n")


@stage
def select(events, pt_min):
    ran("select")
    few = events[ak.num(events.Jet[events.Jet.pt > pt_min]) >= 2]
    ids = {name: few[name] for name in ("run", "luminosityBlock", "event")}
    return ak.zip({**ids, "Jet": few.Jet[["pt", "eta", "phi", "mass"]], "weight": 0.5 * few.event}, depth_limit=1)


@stage
def filled(selected):
    return spectrum(selected)


def spectrum(events):
    return hist.Hist.new.Reg(40, 0, 200, name="pt").Double().fill(ak.flatten(events.Jet.pt))


class Skim(processor.ProcessorABC):
    def __init__(self, cache, format):
        self.cache, self.format = cache, format

    def process(self, events):
        selected = select(events, 20.0)
        return {"skim": self.cache.write(selected, "skims/", format=self.format), "pt": filled(selected)}

    def postprocess(self, accumulator):
        return accumulator


class Fill(processor.ProcessorABC):
    def process(self, events):
        ran("fill")
        return {"pt": spectrum(events), "xsec": {events.metadata["dataset"]: [events.metadata["xsec"]]}}

    def postprocess(self, accumulator):
        return accumulator
"""
DRIVER = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea_dirac import DiracExecutor, StageCache
NanoAODSchema.warn_missing_crossrefs = False


def main():
    import analysis
    how, format, xsec = sys.argv[1], sys.argv[2], float(sys.argv[3])
    cache = StageCache("cache")
    skim = analysis.Skim(cache, format)

    def runner(format):
        if how in ("inline", "workers"):
            executor = DiracExecutor(cache=cache, status=False, **({"inline": True} if how == "inline" else {"workers": 2}))
        else:
            executor = processor.IterativeExecutor(status=False)
        return processor.Runner(executor=executor, chunksize=50, schema=NanoAODSchema, format=format)

    first, second = runner("root"), runner(format)
    fileset = {name: {"files": [f"{name}.root"], "metadata": {"xsec": xsec}} for name in ("ttbar", "wjets")}
    plan = cache.plan(first, fileset, skim, treename="Events") if how == "inline" else None
    out = first(fileset, skim if how in ("inline", "workers") else cache.wrap(skim), treename="Events")
    again = second(out["skim"], analysis.Fill(), treename="Events")
    report = getattr(first.executor, "report", None)
    print("RESULT " + json.dumps({
        "equal": bool((out["pt"].values(flow=True) == again["pt"].values(flow=True)).all()), "sum": out["pt"].sum(flow=True),
        "skim": out["skim"], "kind": type(out["skim"]).__name__, "xsec": again["xsec"],
        "stages": report and report.stages, "why": report and report.stage_reasons, "items": report and report.work_items,
        "planned": plan.counts if plan and not plan.not_looked_up else None, "counts": report and report.counts,
        "second": report and second.executor.report.work_items}))


if __name__ == "__main__":
    main()
"""


class Scene(Folder):
    def __init__(self, folder: Path, how: str = "inline", format: str = "parquet") -> None:
        super().__init__(folder, ANALYSIS, DRIVER)
        self.how, self.format = how, format
        self.write_inputs()

    def files(self) -> list[Path]:
        return sorted((self.folder / "skims").iterdir())

    def run(self, xsec: float = 1.0) -> dict[str, Any]:
        """Run in a new process with another hash seed; return what it said, and what ran."""
        found = self.told(self.how, self.format, str(xsec))
        assert found["equal"], "the second run reads something else"
        assert found["sum"] > 0
        named = {name for dataset in found["skim"].values() for name in dataset["files"]}
        assert {str(path.relative_to(self.folder)) for path in self.files()} >= named
        if found["planned"] is not None:
            assert found["planned"]["computed"] == found["counts"]["computed"] + found["counts"]["cut"]
        return found


@pytest.mark.parametrize(("how", "format"), [("inline", "root"), ("workers", "parquet"), ("iterative", "root")])
def test_what_is_written_feeds_the_next_run_and_is_written_once(tmp_path: Path, how: str, format: str) -> None:
    scene = Scene(tmp_path, how, format)
    cold = scene.run()
    assert cold["kind"] == "Fileset"
    assert {name: len(dataset["files"]) for name, dataset in cold["skim"].items()} == {"ttbar": 2, "wjets": 2}
    assert cold["skim"]["ttbar"]["metadata"] == {"xsec": 1.0}
    assert cold["ran"] == {"select": 4, "fill": 4}
    written = [(path.name, path.stat().st_mtime_ns) for path in scene.files()]
    assert len(written) == 4, "nothing beside the files is left"
    warm = scene.run()
    assert warm["skim"] == cold["skim"]
    assert [(path.name, path.stat().st_mtime_ns) for path in scene.files()] == written
    if how != "iterative":
        assert (warm["ran"], warm["items"], warm["second"]) == ({}, {"hits": 4, "misses": 0}, {"hits": 4, "misses": 0})


@pytest.mark.parametrize("format", ["root", "parquet"])
def test_a_file_that_is_gone_or_cut_off_is_written_again_from_what_is_kept(tmp_path: Path, format: str) -> None:
    scene = Scene(tmp_path, "inline", format)
    cold = scene.run()
    gone, cut, other, _ = scene.files()
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-10])
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    again = scene.run()
    assert again["skim"] == cold["skim"]
    assert again["items"] == {"hits": 1, "misses": 3}
    assert "select" not in again["ran"]
    assert again["stages"]["write"] == {"loaded": 0, "computed": 3, "cut": 0}
    assert all(reason.startswith("new content: skims/") for reason, _ in again["why"])
    if format == "parquet":
        assert again["second"] == {"hits": 4, "misses": 0}, "the files are the same again"
    assert scene.run()["items"] == {"hits": 4, "misses": 0}


def test_an_edited_selection_writes_other_files_and_metadata_write_none(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    cold = scene.run()
    scene.edit("select(events, 20.0)", "select(events, 25.0)")
    edited = scene.run()
    assert edited["sum"] < cold["sum"]
    assert len(scene.files()) == 8
    assert not set(edited["skim"]["ttbar"]["files"]) & set(cold["skim"]["ttbar"]["files"])
    other = scene.run(xsec=2.0)
    assert other["skim"]["ttbar"] == {"files": edited["skim"]["ttbar"]["files"], "metadata": {"xsec": 2.0}}
    assert other["xsec"] == {"ttbar": [2.0, 2.0], "wjets": [2.0, 2.0]}
    assert other["stages"]["write"] == {"loaded": 4, "computed": 0, "cut": 0}
    assert len(scene.files()) == 8


def test_work_items_with_the_same_to_write_have_a_file_each(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    # No stage: what is written is data that process() has read itself, and the same for all.
    scene.edit(
        "selected = select(events, 20.0)",
        "selected = ak.Array([{'Jet': [{'pt': 5.0, 'eta': 0.0, 'phi': 0.0, 'mass': 0.0}], 'event': len(events.Jet) * 0 + 1, 'run': 1, 'luminosityBlock': 1}])",
    )
    found = scene.run()
    assert {name: len(dataset["files"]) for name, dataset in found["skim"].items()} == {"ttbar": 2, "wjets": 2}
    assert found["sum"] == 4


# ------------------------------------------------------------------------------------------------------- in a block


@stage
def doubled(values: list[float]) -> Any:
    return {"x": ak.Array([2 * v for v in values]), "lists": ak.Array([[v] * (n + 1) for n, v in enumerate(values)])}


@pytest.mark.parametrize("format", ["root", "parquet"])
def test_in_a_block_a_file_is_written_whether_or_not_its_handle_is_pulled(tmp_path: Path, format: Any) -> None:
    folder = tmp_path / "out"

    def run() -> tuple[Any, dict[str, int]]:
        with StageCache(tmp_path / "cache") as cache:
            cache.write(doubled([1.0, 2.0]), folder, format=format)
            found = cache.write(doubled([3.0]), folder, format=format, dataset="three", treename="T").compute()
        return found, cache.report.counts

    found, counts = run()
    assert counts == {"loaded": 0, "computed": 4, "cut": 0}
    assert len(list(folder.iterdir())) == 2
    ((path, tree),) = found["three"]["files"].items()
    assert tree == "T"
    assert run() == (found, {"loaded": 2, "computed": 0, "cut": 0})
    if format == "root":
        with uproot.open(path) as file:
            assert file["T"]["x"].array().tolist() == [6.0]
            assert file["T"]["nlists"].array().tolist() == [1]
    else:
        assert ak.from_parquet(path).tolist() == [{"x": 6.0, "nlists": 1, "lists": [3.0]}]


@pytest.mark.parametrize("format", ["root", "parquet"])
def test_a_counter_that_is_given_is_that_of_its_lists(tmp_path: Path, format: Any) -> None:
    columns = {
        "nJet": [1, 2],
        "Jet": ak.Array([[{"pt": 1.0}], [{"pt": 2.0}, {"pt": 3.0}]]),
        "nPV": [5, 6],
        "PV": [0.5, 1],
    }
    with StageCache(tmp_path / "cache") as cache:
        ((path, _),) = cache.write(columns, tmp_path, format=format).compute()["events"]["files"].items()
    read = uproot.open(path)["Events"].arrays() if format == "root" else ak.from_parquet(path)
    assert sorted(read.fields) == ["Jet_pt", "PV", "nJet", "nPV"]
    assert (read.nJet.tolist(), read.Jet_pt.tolist(), read.nPV.tolist()) == ([1, 2], [[1.0], [2.0, 3.0]], [5, 6])


def test_no_events_are_a_file_too(tmp_path: Path) -> None:
    nothing = {"x": np.array([]), "Jet": ak.Array([[{"pt": 1.0}]])[:0]}
    with StageCache(tmp_path / "cache") as cache:
        for format in ("root", "parquet"):
            cache.write(nothing, tmp_path / "out", format=format)
    root, parquet = sorted((tmp_path / "out").iterdir(), key=lambda path: path.suffix != ".root")
    with uproot.open(root) as file:
        assert (file["Events"].num_entries, sorted(file["Events"].keys())) == (0, ["Jet_pt", "nJet", "x"])
    assert len(ak.from_parquet(parquet)) == 0


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ({"x": ak.Array([1.0, None])}, r"column x: it holds \?float64"),
        ({"x": ak.Array(["a"])}, "column x: it holds texts"),
        ({"x": ak.Array([[[1.0]]])}, r"column x: it holds var \* var"),
        ({"Jet": ak.Array([[{"pt": 1.0, "tag": "b"}]])}, r"column Jet\.tag"),
        (ak.Array([1.0, 2.0]), "an array of records or a dict of arrays, not Array"),
    ],
)
@pytest.mark.parametrize("format", ["root", "parquet"])
def test_what_cannot_be_written_is_named(tmp_path: Path, array: Any, words: str, format: Any) -> None:
    with pytest.raises(StageError, match=words), StageCache(tmp_path / "cache") as cache:
        cache.write(array, tmp_path / "out", format=format).compute()
    assert not list((tmp_path / "out").glob("*"))


def test_a_call_at_another_place_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache")
    with pytest.raises(StageError, match="outside of a run: call it in process"):
        cache.write({"x": [1.0]}, tmp_path)

    @stage
    def inner(x: float) -> Any:
        return cache.write({"x": [x]}, tmp_path)

    with pytest.raises(StageError, match="inside of a stage"), cache:
        inner(1.0).compute()
    with cache:
        with pytest.raises(ConfigurationError, match="format is 'csv'"):
            cache.write({"x": [1.0]}, tmp_path, format="csv")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="into a directory"):
            cache.write({"x": [1.0]}, "root://store//skims")


# -------------------------------------------------------------------------------------------------------- filesets


def test_filesets_are_added_kept_and_sent_as_they_are() -> None:
    from coffea.processor import accumulate

    def one(name: str, path: str, **metadata: float) -> Fileset:
        return Fileset({name: {"files": {path: "Events"}, "metadata": metadata}})

    parts = [
        {"skim": one("a", "1.root", xsec=2.0)},
        {"skim": one("b", "2.root")},
        {"skim": one("a", "3.root", xsec=2.0)},
    ]
    total = accumulate(parts)["skim"]
    assert total == {
        "a": {"files": {"1.root": "Events", "3.root": "Events"}, "metadata": {"xsec": 2.0}},
        "b": {"files": {"2.root": "Events"}, "metadata": {}},
    }
    assert parts[0]["skim"] == one("a", "1.root", xsec=2.0), "the first is not changed"
    for other in (decode(*encode(total)), pickle.loads(pickle.dumps(total)), sum([total, Fileset()])):
        assert (type(other), other) == (Fileset, total)
    with pytest.raises(ValueError, match="other metadata"):
        one("a", "1.root", xsec=2.0) + one("a", "2.root", xsec=3.0)
