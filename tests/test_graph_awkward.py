"""dask-awkward graphs through the cache: column projection, partitions, tree reductions, stages, tolerant reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import warnings

import awkward as ak
import dask
import numpy as np
import pytest
import uproot

from coffea_dirac import DiracClient, StageCache, stage
from coffea_dirac.cache import CacheWarning

dak = pytest.importorskip("dask_awkward", reason="dask-awkward is on stack A only")
import hist.dask as hda  # noqa: E402 - needs dask-awkward


def write(path, n, scale=1.0):
    """Write a file of `n` events with jagged columns."""
    rng = np.random.default_rng(n)
    counts = rng.integers(0, 4, n)
    with uproot.recreate(path) as file:
        file.mktree("Events", {"pt": "var * float64", "eta": "var * float64", "met": "float64"})
        total = int(counts.sum())
        columns = {
            "pt": ak.unflatten(scale * rng.exponential(20, total), counts),
            "eta": ak.unflatten(rng.normal(size=total), counts),
            "met": rng.exponential(30, n),
        }
        file["Events"].extend(columns)
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Return three files."""
    (tmp_path / "data").mkdir()
    return [write(tmp_path / "data" / f"f{n}.root", 40 + n) for n in range(3)]


def events(files, **options):
    return uproot.dask(dict.fromkeys(files, "Events"), open_files=False, **options)


def filled(pt):
    return hda.Hist.new.Reg(10, 0, 100).Double().fill(dak.flatten(pt))


def done(folder, make, scheduler="sync", **options):
    """Return what is computed inside a block, and the block's report."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        with StageCache(folder, **options) as cache:
            found = dask.compute(*make(), scheduler=scheduler)
    return found, cache.report


def names(outcomes):
    return sorted(o.stage for o in outcomes)


# -------------------------------------------------------------------------------------------------------------- outputs


def test_outputs_are_loaded_whatever_the_scheduler(tmp_path, files):
    def make():
        e = events(files)
        return filled(e.pt[e.pt > 10]), dak.sum(e.met), e.eta[e.met > 20]

    plain = dask.compute(*make(), scheduler="sync")
    for n, scheduler in enumerate(("sync", "threads", "processes")):
        found, report = done(tmp_path / "cache", make, scheduler)
        assert found[0] == plain[0] and found[1] == plain[1] and ak.array_equal(found[2], plain[2])
        assert [type(f) for f in found] == [type(p) for p in plain]
        assert bool(report.counts["computed"]) is (n == 0)


def test_a_client_loads_them_too(tmp_path, files):
    make = lambda: (filled(events(files).pt), dak.sum(events(files).met))  # noqa: E731
    plain, _ = done(tmp_path / "cache", make)
    with DiracClient(processes=False, n_workers=1, dashboard_address=":0", cache=tmp_path / "cache") as client:
        assert dask.compute(*make()) == plain
    assert client.cache.report.counts["computed"] == 0


def test_another_hash_seed_changes_nothing(tmp_path):
    nano, rng = str(tmp_path / "nano.root"), np.random.default_rng(1)
    counts = rng.integers(0, 4, 50)
    muons = {f: ak.unflatten(rng.random(int(counts.sum())), counts) for f in ("pt", "eta", "phi", "mass", "charge")}
    with uproot.recreate(nano) as file:
        numbers = dict.fromkeys(("run", "luminosityBlock", "event", "MET_pt", "MET_phi"), np.arange(50))
        columns = {"Muon": ak.zip(muons), **numbers}
        file.mktree("Events", {name: ak.type(column).content for name, column in columns.items()})
        file["Events"].extend(columns)
    script = tmp_path / "analysis.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import warnings; warnings.simplefilter("ignore")
            import dask, dask_awkward as dak, hist.dask as hda
            from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
            from coffea_dirac import StageCache
            files = {{{nano!r}: "Events"}}
            e = NanoEventsFactory.from_root(files, mode="dask", schemaclass=NanoAODSchema).events()
            h = hda.Hist.new.Reg(10, 0, 100).Double().fill(dak.flatten(e.Muon.pt))
            with StageCache({str(tmp_path / "cache")!r}) as cache:
                print(dask.compute(h, dak.sum(e.MET.pt), scheduler="sync")[0].sum())
            print(cache.report.counts["computed"])
            """
        )
    )
    told = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, str(script)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert run.returncode == 0, run.stderr
        told.append(run.stdout.split())
    assert told[0][0] == told[1][0] and int(told[0][1]) > 0 and told[1][1] == "0"


def test_one_histogram_or_several_have_the_same_fingerprints(tmp_path, files):
    make = lambda: (filled(events(files).pt), filled(events(files).eta), dak.sum(events(files).met))  # noqa: E731
    done(tmp_path / "cache", make)
    for n in range(3):
        _, report = done(tmp_path / "cache", lambda n=n: [make()[n]])
        assert report.counts["computed"] == 0


# ------------------------------------------------------------------------------------------------- partitions and edits


def test_a_further_file_computes_its_partitions_only(tmp_path, files):
    done(tmp_path / "cache", lambda: [filled(events(files[:2]).pt)])
    found, report = done(tmp_path / "cache", lambda: [filled(events(files).pt)])
    assert found == dask.compute(filled(events(files).pt), scheduler="sync")
    # One partition, and the sum of all three.
    assert report.counts["loaded"] == 2 and report.counts["computed"] == 2


def test_a_changed_cut_or_axis_is_named_and_a_further_file_is_new_input(tmp_path, files):
    def value(files, cut=30, bins=10):
        pt = events(files).pt
        return hda.Hist.new.Reg(bins, 0, 100).Double().fill(dak.flatten(pt[pt > cut]))

    def reasons(*arguments, **options):
        return {text for text, _ in done(tmp_path / "cache", lambda: [value(*arguments, **options)])[1].reasons}

    assert reasons(files[:2]) == {"first run"}
    assert reasons(files) == {"new input"}
    assert reasons(files, cut=25) == {"new argument: greater: `30` became `25`"}
    (bins,) = reasons(files, cut=25, bins=20)
    assert (
        bins.startswith("new argument: _blocked_multi_dak: `Regular(10, 0, 100")
        and "became `Regular(20, 0, 100" in bins
    )


def test_tree_reductions_reuse_their_branches(tmp_path):
    many = [write(tmp_path / f"f{n}.root", 5 + n) for n in range(17)]
    total = lambda files: [dak.sum(events(files).met)]  # noqa: E731
    done(tmp_path / "cache", lambda: total(many[:16]))
    found, report = done(tmp_path / "cache", lambda: total(many))
    assert found == dask.compute(*total(many), scheduler="sync")
    assert report.counts["loaded"] >= 2 and report.counts["computed"] <= 4


def test_an_overwritten_file_is_a_miss(tmp_path, files):
    make = lambda: [filled(events(files).pt)]  # noqa: E731
    done(tmp_path / "cache", make)
    write(files[1], 41, scale=2.0)
    found, report = done(tmp_path / "cache", make)
    assert found == dask.compute(*make(), scheduler="sync")
    assert report.counts["loaded"] == 2 and report.counts["computed"] == 2


def test_a_copy_of_a_file_under_another_name_has_its_own_partitions(tmp_path, files):
    done(tmp_path / "cache", lambda: [filled(events(files).pt)])
    other = shutil.copy(files[0], tmp_path / "other.root")
    found, _ = done(tmp_path / "cache", lambda: [filled(events([other, *files[1:]]).pt)])
    assert found == dask.compute(filled(events([other, *files[1:]]).pt), scheduler="sync")


READ = []


def test_only_columns_of_what_is_computed_are_read(tmp_path, files, monkeypatch):
    from uproot._dask import _UprootOpenAndRead

    original = _UprootOpenAndRead.read_tree
    monkeypatch.setattr(
        _UprootOpenAndRead,
        "read_tree",
        lambda self, *a, **k: (READ.append(self.common_keys), original(self, *a, **k))[1],
    )
    READ.clear()
    done(tmp_path / "cache", lambda: [filled(events(files).pt)])
    assert set().union(*READ) == {"pt"}
    READ.clear()
    done(tmp_path / "cache", lambda: [filled(events(files).pt), filled(events(files).eta)])
    assert set().union(*READ) == {"eta"}


def test_arrays_of_dask_may_be_asked_for_beside_collections_of_awkward(tmp_path, files):
    def lazy():
        met = events(files).met
        return [met, dak.to_dask_array(dak.from_lists([[1.0], [2.0]])) + 1, filled(events(files).pt)]

    for is_warm in (False, True):
        (met, array, _), report = done(tmp_path / "cache", lazy)
        assert (len(met), array.tolist()) == (123, [2.0, 3.0])
        assert (report.counts["computed"] == 0) == is_warm


@pytest.mark.parametrize("is_made_anew", [True, False])
def test_an_overwritten_parquet_file_is_a_miss(tmp_path, is_made_anew):
    def lazy():
        return dak.sum(dak.from_parquet(str(tmp_path / "*.parquet")).x)

    found, made = [], None
    for scale in (1.0, 2.0, 1.0):
        for n in range(2):
            ak.to_parquet(ak.Array([{"x": scale * (n + 1)}] * 3), str(tmp_path / f"{n}.parquet"))
        made = lazy() if is_made_anew or made is None else made
        (value,), report = done(tmp_path / "cache", lambda made=made: [made])
        found.append((float(value), report.counts["computed"] == 0))
    assert found == [(9.0, False), (18.0, False), (9.0, True)]


def written(array, folder):
    if ak.backend(array) != "typetracer":
        ak.to_parquet(array, f"{folder}/mine.parquet")
    return array


def test_what_writes_files_by_a_library_of_cpp_writes_them_again(tmp_path, files):
    folder = tmp_path / "out"
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        met = events(files[:1]).met
        ways = [dak.to_parquet(met, str(folder), compute=False), dak.map_partitions(written, met, str(folder))]
        for way, told in zip(ways, ("_ToParquetFn", "it calls to_parquet"), strict=True):
            with pytest.warns(CacheWarning, match=told), StageCache(tmp_path / "cache"):
                way.compute(scheduler="sync")
        assert len(list(folder.glob("*.parquet"))) == 2


# --------------------------------------------------------------------------------------------------------------- stages


def chain(edited=""):
    """Return functions for A -> B, C -> D, Y(B, D), one of them with another body."""
    made = {}
    bodies = {"A": "a * 2", "B": "a + 1", "C": "a * 3", "D": "a - 1", "Y": "b + ak.sum(d, axis=1)"}
    for name, body in bodies.items():
        arguments = "b, d" if name == "Y" else "a"
        source = (
            f"import awkward as ak\ndef {name}({arguments}):\n    return {body}{' * 5' if name == edited else ''}\n"
        )
        namespace = {"__name__": "analysis"}
        exec(source, namespace)
        made[name] = stage(namespace[name])
    return made


@pytest.mark.parametrize(
    ("edited", "loaded", "computed"),
    [("", "Y", ""), ("A", "D", "ABY"), ("D", "BC", "DY"), ("Y", "BD", "Y")],
)
def test_the_four_cases_with_marked_stages(tmp_path, files, edited, loaded, computed):
    def make(edited=""):
        e, f = events(files[:1]), chain(edited)
        b = dak.map_partitions(f["B"], dak.map_partitions(f["A"], e.met))
        d = dak.map_partitions(f["D"], dak.map_partitions(f["C"], e.pt))
        return [dak.map_partitions(f["Y"], b, d)]

    with StageCache(tmp_path / "cache"):
        cold = dask.compute(*make(), scheduler="sync")
    plain = dask.compute(*make(edited), scheduler="sync")
    with StageCache(tmp_path / "cache") as cache:
        found = dask.compute(*make(edited), scheduler="sync")
    assert ak.array_equal(found[0], plain[0]) and ak.array_equal(found[0], cold[0]) is (edited == "")
    assert names(cache.report.loaded) == sorted(loaded) and names(cache.report.computed) == sorted(computed)


# --------------------------------------------------------------------------------------------------------------- reports


def test_what_comes_after_a_read_error_is_not_kept(tmp_path, files):
    def make():
        e, report = events(files, allow_read_errors_with_report=True)
        return dak.sum(e.met, axis=0), report

    broken = tmp_path / "data" / "f1.root"
    sound = broken.read_bytes()
    made = make()
    broken.write_bytes(sound[:300])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with StageCache(tmp_path / "cache") as cache:
            value, report = dask.compute(*made, scheduler="sync")
    assert [e for e in report.exception.to_list() if e]
    broken.write_bytes(sound)
    again, report = dask.compute(*made, scheduler="sync")
    with StageCache(tmp_path / "cache") as cache:
        found, _ = dask.compute(*made, scheduler="sync")
    assert found == again != value and cache.report.counts["computed"] > 0
    assert not [e for e in report.exception.to_list() if e]


def test_what_is_added_later_comes_with_the_report_of_its_own_reading(tmp_path, files):
    with uproot.open(files[1]) as file:
        branch = file["Events"]["pt"]
        place, size = int(branch.member("fBasketSeek")[0]), int(branch.member("fBasketBytes")[0])
    with open(files[1], "r+b") as file:
        file.seek(place + size // 2)
        file.write(bytes(size // 4))

    def make(*fields):
        e, report = events(files, allow_read_errors_with_report=(Exception,))
        return [*(dak.sum(e[field], axis=None) for field in fields), report]

    def told(results):
        return [error is not None for error in results[-1].exception.to_list()]

    plain = dask.compute(*make("met", "pt"), scheduler="sync")
    alone, _ = done(tmp_path / "cache", lambda: make("met"))
    assert (told(alone), told(plain)) == ([False, False, False], [False, True, False])
    for _ in range(2):
        with (
            pytest.warns(CacheWarning, match="which its report tells") as warned,
            StageCache(tmp_path / "cache") as cache,
        ):
            found = dask.compute(*make("met", "pt"), scheduler="sync")
        assert len(warned) == 1
        assert found[:2] == plain[:2] and told(found) == told(plain)
    assert cache.report.counts["loaded"] > 0 and cache.report.counts["computed"] > 0
