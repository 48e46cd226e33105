"""What the AGC example makes itself: files, corrections, models."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

pytest.importorskip("correctionlib", reason="the agc extra is not installed")
pytest.importorskip("xgboost", reason="the agc extra is not installed")

import correctionlib

from agc_example import generate, make_corrections, measure, ml, train
from agc_example.inputs import CROSS_SECTIONS, LUMINOSITY
from agc_example.selection import (
    good_leptons,
    has_one_lepton,
    in_region,
    momenta_of_leptons,
    select_with_lepton,
    with_p4,
)

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
BRANCHES = {
    "Electron": {"pt", "eta", "phi", "mass", "charge", "cutBased", "sip3d"},
    "Muon": {"pt", "eta", "phi", "mass", "charge", "tightId", "sip3d", "pfRelIso04_all"},
    "Jet": {"pt", "eta", "phi", "mass", "btagCSVV2", "jetId", "qgl"},
}


def passing(sample, events, *, enriched=False):
    """Events of a sample in each region."""
    found = dict.fromkeys(("4j1b", "4j2b"), 0)
    for start in range(0, events, generate.CLUSTER):
        stop = min(start + generate.CLUSTER, events)
        made = ak.zip(generate.make_events(sample, number=0, start=start, stop=stop, enriched=enriched), depth_limit=1)
        selected = select_with_lepton(made, made.Jet.pt)
        for region in found:
            found[region] += len(in_region(selected, region)["jets"])
    return found


def python(code, *, hash_seed, cwd):
    """Run a program in a new process; return what it printed."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


# ---- files


def test_a_file_is_the_same_to_the_byte_in_another_process_with_another_hash_seed(tmp_path):
    listed = generate.generate(tmp_path, files=2, events=1500, samples=[("ttbar", "nominal"), ("wjets", "nominal")])
    inputs = json.loads(listed.read_text())
    here = [hashlib.sha256(Path(f["path"]).read_bytes()).hexdigest() for f in inputs["wjets"]["nominal"]["files"]]
    code = (
        "import hashlib; from agc_example.generate import file_bytes\n"
        "for n in (1, 0): print(hashlib.sha256(file_bytes(('wjets', 'nominal'), number=n, events=1500)).hexdigest())"
    )
    for hash_seed in ("1", "4242"):
        assert python(code, hash_seed=hash_seed, cwd=tmp_path).split() == here[::-1]


def test_the_clock_of_the_machine_does_not_enter_a_file(monkeypatch):
    import uproot.writing._cascade as cascade

    class Later(cascade.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 6, 7, 8, 9)

    first = generate.file_bytes(("wjets", "nominal"), number=0, events=20)
    monkeypatch.setattr(cascade.datetime, "datetime", Later)
    assert generate.file_bytes(("wjets", "nominal"), number=0, events=20) == first


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"number": 1}, {"events": 40}, {"enriched": True}, {"sample": ("ttbar", "scaleup")}],
    ids=lambda other: next(iter(other)),
)
def test_another_file_has_another_uuid_and_other_events(other, tmp_path):
    def made(sample=("ttbar", "nominal"), **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.root"
        path.write_bytes(generate.file_bytes(sample, **{"number": 0, "events": 30, **options}))
        with uproot.open(path) as file:
            return file.file.uuid, file["Events/Jet_pt"].array().tolist()

    uuid, jets = made()
    other_uuid, other_jets = made(**other)
    assert uuid != other_uuid and jets != other_jets


def test_a_file_has_exactly_the_branches_of_the_analysis_and_a_basket_for_each_cluster(tmp_path):
    path = generate.write_file(tmp_path, ("ttbar", "nominal"), number=3, events=generate.CLUSTER + 5)
    with uproot.open(path) as file:
        tree = file["Events"]
        expected = {f"{c}_{field}" for c, fields in BRANCHES.items() for field in fields} | {f"n{c}" for c in BRANCHES}
        assert set(tree.keys()) == expected | {"run", "luminosityBlock", "event", "genWeight"}
        assert tree.num_entries == generate.CLUSTER + 5
        assert {branch.num_baskets for branch in tree.branches} == {2}
        events = tree["event"].array(library="np")
        assert len(np.unique(events)) == len(events) and set(tree["luminosityBlock"].array(library="np")) == {4}
        pt = tree["Jet_pt"].array()
        assert ak.all(pt[:, 1:] <= pt[:, :-1]) and ak.min(pt) > 15
        assert all(np.isfinite(ak.to_numpy(ak.flatten(b.array(), axis=None))).all() for b in tree.branches)


def test_clusters_of_a_file_can_be_made_alone():
    whole = generate.make_events(("wjets", "nominal"), number=0, start=10_000, stop=10_200)
    again = generate.make_events(("wjets", "nominal"), number=0, start=10_000, stop=10_200)
    assert ak.array_equal(whole["Jet"], again["Jet"])
    other = generate.make_events(("wjets", "nominal"), number=0, start=20_000, stop=20_200)
    assert not ak.array_equal(whole["Jet"], other["Jet"])


def test_the_list_of_inputs_has_all_samples_in_the_agc_format(tmp_path):
    seen = []
    listed = generate.generate(tmp_path, files=2, events=3, progress=lambda: seen.append(1))
    inputs = json.loads(listed.read_text())
    assert [(p, v) for p, variations in inputs.items() for v in variations] == list(generate.SAMPLES)
    assert len(seen) == 18 == sum(len(s["files"]) for variations in inputs.values() for s in variations.values())
    assert inputs["ttbar"]["PS_var"]["nevts_total"] == 6
    for file in inputs["ttbar"]["PS_var"]["files"]:
        assert Path(file["path"]).parent.name == "ttbar__PS_var" and file["nevts"] == 3
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": 0, "events": 5}, "files=0"),
        ({"files": 1, "events": 5, "samples": [("ttbar", "nominel")]}, "no sample"),
    ],
)
def test_what_cannot_be_generated_is_said_before_a_file_is_written(options, message, tmp_path):
    with pytest.raises(generate.GenerateError, match=message):
        generate.generate(tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("process", "events"),
    [
        ("ttbar", 40_000),
        ("single_top_s_chan", 150_000),
        ("single_top_t_chan", 150_000),
        ("single_top_tW", 60_000),
        ("wjets", 400_000),
    ],
)
def test_as_many_events_pass_as_in_the_agc_reference(process, events):
    # Fractions of facts/agc.md in %, from the AGC's reference histograms: contents / (cross section * luminosity).
    reference = {
        "ttbar": (0.951, 2.144),
        "single_top_s_chan": (0.0734, 0.1706),
        "single_top_t_chan": (0.0673, 0.1256),
        "single_top_tW": (0.696, 0.924),
        "wjets": (0.0116, 0.0038),
    }[process]
    found = passing((process, "nominal"), events)
    for region, percent in zip(("4j1b", "4j2b"), reference, strict=True):
        expected = percent / 100 * events
        assert abs(found[region] - expected) < 0.3 * expected + 2 * expected**0.5, (region, found[region], expected)


def test_the_reference_fractions_are_those_of_the_reference_file():
    path = SHARED_DATA / "agc_reference_histos_1_file_per_process.json"
    if not path.exists():
        pytest.skip("no ../shared/data with the AGC's reference histograms")
    contents = json.loads(path.read_text())["4j2b_ttbar"]["contents"]
    assert sum(contents) / CROSS_SECTIONS["ttbar"] / LUMINOSITY == pytest.approx(0.02144, rel=1e-3)


def test_enriched_samples_leave_no_region_empty():
    for sample in generate.SAMPLES:
        found = passing(sample, 2000, enriched=True)
        assert min(found.values()) >= 2, (sample, found)


# ---- measured numbers


def test_measuring_the_real_files_gives_the_committed_numbers(tmp_path):
    if not SHARED_DATA.exists():
        pytest.skip("no ../shared/data with real files")
    measure.main(SHARED_DATA, tmp_path / "measured.json")
    assert (tmp_path / "measured.json").read_text() == measure.MEASURED.read_text()


def test_a_missing_seed_file_is_named(tmp_path):
    with pytest.raises(measure.MeasureError, match=r"nano_tt_v12\.root"):
        measure.main(tmp_path, tmp_path / "measured.json")


# ---- corrections


def test_corrections_have_the_sizes_of_the_task():
    weights = correctionlib.CorrectionSet.from_file(str(make_corrections.CORRECTIONS))["event_systematics"]
    pt = np.array([50.0, 200.0])
    assert weights.evaluate("btag_var", "up", pt) == pytest.approx([1.075, 1.3])
    assert weights.evaluate("btag_var", "down", pt) == pytest.approx([0.925, 0.7])
    assert weights.evaluate("scale_var", "up", pt) == pytest.approx([1.025, 1.025])
    assert weights.evaluate("scale_var", "down", pt) == pytest.approx([0.975, 0.975])


@pytest.mark.parametrize("wrong", [("btag", "up"), ("btag_var", "sideways")])
def test_an_unknown_systematic_or_direction_is_an_error(wrong):
    weights = correctionlib.CorrectionSet.from_file(str(make_corrections.CORRECTIONS))["event_systematics"]
    with pytest.raises(IndexError):
        weights.evaluate(*wrong, 50.0)


def test_the_committed_corrections_are_what_the_script_writes(tmp_path):
    make_corrections.main(tmp_path / "corrections.json")
    assert (tmp_path / "corrections.json").read_bytes() == make_corrections.CORRECTIONS.read_bytes()


# ---- selection


def test_the_lepton_of_an_event_is_its_good_electron_or_muon_and_events_with_another_number_have_none():
    good = {"pt": 40.0, "eta": 0.5, "phi": 0.1, "mass": 0.1, "sip3d": 1.0}
    electron, muon = {**good, "cutBased": 4}, {**good, "pt": 50.0, "tightId": True, "pfRelIso04_all": 0.1}
    soft, loose = {**electron, "pt": 29.0}, {**muon, "pfRelIso04_all": 0.2}
    electrons = [[electron], [soft], [electron], [soft], [soft, electron]]
    muons = [[loose], [muon], [muon], [loose], [loose]]
    events = ak.Array({"Electron": electrons, "Muon": muons})
    found = good_leptons(events)
    one = has_one_lepton(found)
    leptons = momenta_of_leptons(events, found, one)
    assert one.tolist() == [True, True, False, False, True]
    assert leptons.pt.tolist() == [40.0, 50.0, 40.0]


# ---- jet assignment


def event_of(pt, eta, phi, mass=None, btag=None, qgl=None):
    n = len(pt)
    zero = [0.0] * n
    collection = ak.Array([[{"eta": e, "phi": p, "mass": m} for e, p, m in zip(eta, phi, mass or zero, strict=True)]])
    return with_p4(ak.Array([pt]), collection, btag=ak.Array([btag or zero]), qgl=ak.Array([qgl or zero]))


def test_features_of_one_event_are_those_worked_out_by_hand():
    # Massless jets: m^2 = 2 pt1 pt2 (cosh(deta) - cos(dphi)).
    # Of the W's jets the softer one is called the first.
    jets = event_of(
        [100.0, 80.0, 60.0, 40.0], [0.0, 0.0, 1.0, 0.0], [0.0, np.pi / 2, 0.0, np.pi], None, [0.1, 0.2, 0.9, 0.8]
    )
    lepton = ak.flatten(event_of([50.0], [0.0], [-np.pi / 2]))
    found, counts = ml.features(jets, lepton)
    assert found.shape == (12, 20) and counts.tolist() == [12]
    row = found[[tuple(a) for a in ml.assignments(4).tolist()].index((1, 0, 2, 3))]
    named = dict(zip((name for name, *_ in ml.FEATURES), row.tolist(), strict=True))
    w2 = 2 * 100 * 80
    top2 = w2 + 2 * 100 * 60 * (np.cosh(1) - 1) + 2 * 80 * 60 * np.cosh(1)
    expected = {
        "deltar_leptonbtoplep": 3 * np.pi / 2,  # it does not go round
        "deltar_w1w2": np.pi / 2,
        "deltar_w1btophad": np.hypot(1.0, np.pi / 2),
        "deltar_w2btophad": 1.0,
        "mass_leptonbtoplep": np.sqrt(2 * 50 * 40),
        "mass_w1w2": np.sqrt(w2),
        "mass_w1w2btophad": np.sqrt(top2),
        "pt_w1w2btophad": np.hypot(160, 80),
        "pt_w1": 80, "pt_w2": 100, "pt_btophad": 60, "pt_btoplep": 40,
        "btag_w1": 0.2, "btag_w2": 0.1, "btag_btophad": 0.9, "btag_btoplep": 0.8,
        "qgl_w1": 0, "qgl_w2": 0, "qgl_btophad": 0, "qgl_btoplep": 0,
    }  # fmt: skip
    assert named == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def selected():
    made = ak.zip(
        generate.make_events(("ttbar", "nominal"), number=0, start=0, stop=3000, enriched=True), depth_limit=1
    )
    return in_region(select_with_lepton(made, made.Jet.pt), "4j2b")


@pytest.fixture(scope="module")
def models():
    return {name: ml.load_model(train.MODELS / f"{name}.json") for name in ("even", "odd")}


def test_each_event_has_the_rows_it_has_alone(selected):
    whole, counts = ml.features(selected["jets"], selected["lepton"])
    assert set(counts.tolist()) == {12, 60, 180}
    first = np.cumsum(counts) - counts
    for i in range(0, len(counts), 7):
        alone, count = ml.features(*(selected[name][i : i + 1] for name in ("jets", "lepton")))
        assert count.tolist() == [counts[i]]
        assert np.array_equal(alone, whole[first[i] : first[i] + counts[i]])


def test_features_agree_with_four_vectors_of_coffea(selected):
    features, counts = ml.features(selected["jets"], selected["lepton"])
    first = np.cumsum(counts) - counts
    for i in range(0, len(counts), 20):
        jets = ak.values_astype(selected["jets"][i], "float64")
        a, b, c, d = ml.assignments(min(len(jets), 6))[3]
        row = features[first[i] + 3]
        assert row[5] == pytest.approx((jets[a] + jets[b]).mass, rel=1e-4)
        assert row[6] == pytest.approx((jets[a] + jets[b] + jets[c]).mass, rel=1e-4)
        assert row[7] == pytest.approx((jets[a] + jets[b] + jets[c]).pt, rel=1e-4)
        assert row[11] == pytest.approx(jets[d].pt)


def test_the_best_assignment_is_that_of_the_model_trained_on_the_other_events(selected, models):
    features, counts = ml.features(selected["jets"], selected["lepton"])
    found = ml.best(features, counts, selected["is_even"], models)
    assert found.shape == (len(counts), 20) and found.dtype == np.float32
    stop = np.cumsum(counts)
    differ = 0
    for i, even in enumerate(selected["is_even"]):
        rows = features[stop[i] - counts[i] : stop[i]]
        best = {name: rows[model.inplace_predict(rows).argmax()] for name, model in models.items()}
        assert np.array_equal(found[i], best["odd" if even else "even"])
        differ += not np.array_equal(best["odd"], best["even"])
    assert differ  # or the test could not tell the models apart


def test_no_events_have_no_features(selected, models):
    none = {name: selected[name][:0] for name in selected}
    features, counts = ml.features(none["jets"], none["lepton"])
    assert features.shape == (0, 20) and counts.shape == (0,)
    assert ml.best(features, counts, none["is_even"], models).shape == (0, 20)


def test_events_that_cannot_be_assigned_are_refused(selected, models):
    with pytest.raises(ValueError, match="leptons for"):
        ml.features(selected["jets"], selected["lepton"][:-1])
    features, counts = ml.features(selected["jets"][:, :3], selected["lepton"])
    with pytest.raises(ValueError, match="at least four"):
        ml.best(features, counts, selected["is_even"], models)


def test_the_best_assignment_finds_most_true_ones(models):
    found, slots = train.training_events(20_000)
    features, counts = ml.features(found["jets"], found["lepton"])
    labels = train.truth(slots, counts)
    best = ml.best(features, counts, found["is_even"], models)
    # By chance it would be less than 1 in 12.
    assert train.efficiency(best, features, counts, labels) > 0.7


def test_a_replaced_model_file_is_read_again(tmp_path):
    path = tmp_path / "model.json"
    rows = np.linspace(0, 300, 400, dtype=np.float32).reshape(20, 20)
    scores = []
    for name in ("even", "odd"):
        path.write_bytes((train.MODELS / f"{name}.json").read_bytes())
        scores.append(ml.load_model(path).inplace_predict(rows, predict_type="margin"))
    assert not np.array_equal(*scores)
    assert ml.load_model(path) is ml.load_model(train.MODELS / "odd.json")


def test_training_is_the_same_in_another_process():
    x = np.random.default_rng(5).random((2000, 20), dtype=np.float32)
    here = hashlib.sha256(bytes(train.train(x, x[:, 0] > 0.6).save_raw("json"))).hexdigest()
    code = (
        "import hashlib, numpy as np; from agc_example import train\n"
        "x = np.random.default_rng(5).random((2000, 20), dtype=np.float32)\n"
        "print(hashlib.sha256(bytes(train.train(x, x[:, 0] > 0.6).save_raw('json'))).hexdigest())"
    )
    assert python(code, hash_seed="4242", cwd=ROOT) == here


def test_models_are_small_enough_to_ship():
    assert all((train.MODELS / f"{name}.json").stat().st_size < 150_000 for name in ("even", "odd"))
