"""Verifying: what is found is computed again and compared."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_scene import DRIVER, Scene

from coffea_dirac import StageCache, stage
from coffea_dirac.codecs import encode
from coffea_dirac.codecs.closeness import first_difference
from coffea_dirac.errors import ConfigurationError, VerificationError
from coffea_dirac.stages.verifying import Verification

pytestmark = pytest.mark.core


class Verified(Scene):
    """A scene whose driver verifies, and says what it has verified."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        text = DRIVER.replace('"error": error,', '"error": error, "verified": report and report.verified,')
        (folder / "driver.py").write_text(text)
        (folder / "drift.py").write_text(
            "import os\n\n\ndef drift():\n    return float(os.environ.get('DRIFT', '0'))\n"
        )

    def run(self, how: str, *, dies: bool = False, drift: str = "0", verify: str = "") -> dict[str, Any]:
        os.environ.update({"DRIFT": drift, "COFFEA_DIRAC_VERIFY": verify})
        try:
            # What is verified runs, and is not reported as computed.
            return super().run(how, dies=dies or verify == "1")
        finally:
            del os.environ["DRIFT"], os.environ["COFFEA_DIRAC_VERIFY"]


@pytest.fixture
def scene(tmp_path: Path) -> Verified:
    return Verified(tmp_path)


@pytest.mark.parametrize("how", ["inline", "workers"])
def test_work_items_that_are_found_are_verified_with_their_stages_and_count_as_loaded(
    scene: Verified, how: str
) -> None:
    cold = scene.run(how)
    warm = scene.run(how, verify="1")
    assert (warm["out"], warm["items"], warm["stages"]) == (cold["out"], {"hits": 4, "misses": 0}, {})
    assert warm["ran"] == {"a": 4, "b": 4, "c": 4, "d": 4, "y": 4}
    assert {name.partition(" of ")[0] for name in warm["verified"]} == {"Analysis", "a", "b", "c", "d", "y"}
    assert len(warm["verified"]) == 24
    assert "Analysis of ttbar.root, entries 50 to 100" in warm["verified"]
    assert scene.run(how, verify="0")["ran"] == {}


def test_large_results_of_stages_are_verified_as_parts_of_work_items(scene: Verified) -> None:
    scene.edit("import awkward as ak", "import awkward as ak\nfrom drift import drift")
    scene.edit("return ak.num(up)", "return [float(n) + drift() for n in ak.num(up)] * 20")
    scene.edit('return {"sum": total,', 'return {"many": d(c(events)), "own": drift(), "sum": total,')
    scene.run("inline")
    warm = scene.run("inline", verify="1")
    assert (warm["error"], len(warm["verified"])) == (None, 24)
    assert scene.run("inline", drift="1", verify="1")["error"][0] == "VerificationError"


def test_stages_that_are_found_are_verified_and_count_as_loaded(scene: Verified) -> None:
    scene.run("inline")
    scene.edit("* scale", "* 2 * scale")
    edited = scene.run("inline", verify="1")
    assert edited["stages"]["b"] == edited["stages"]["d"] == {"loaded": 4, "computed": 0, "cut": 0}
    assert set(edited["stages"]) == {"b", "d", "y"}
    assert {name.partition(" of ")[0] for name in edited["verified"]} == {"a", "b", "c", "d"}


@pytest.mark.parametrize("how", ["inline", "workers", "iterative", "futures"])
def test_a_result_that_depends_on_the_environment_stops_the_run_and_names_its_stage(scene: Verified, how: str) -> None:
    scene.edit("import awkward as ak", "import awkward as ak\nfrom drift import drift")
    scene.edit("ak.num(up)", "ak.num(up) + drift()")
    scene.run(how)
    assert scene.run(how, drift="0", verify="1")["error"] is None
    scene.edit("        # before\n", "        unused = 1\n")
    assert scene.run(how, drift="1")["error"] is None, "nobody looked"
    found = scene.run(how, drift="1", verify="1")
    assert found["error"] is not None
    text = found["error"][1]
    assert [w for w in ("d of ", ".root", "computed again", "without a seed", "numbers differ") if w not in text] == []
    if how in ("inline", "workers"):
        assert found["error"][0] == "VerificationError"


def test_a_work_item_that_differs_without_a_stage_is_named(scene: Verified) -> None:
    scene.edit("import awkward as ak", "import awkward as ak\nfrom drift import drift")
    scene.edit('return {"sum": total,', 'return {"drift": drift(), "sum": total,')
    scene.run("inline")
    error = scene.run("inline", drift="1", verify="1")["error"]
    assert error[0] == "VerificationError"
    assert "Analysis of " in error[1]
    assert "0.0 became 1.0" in error[1]


# ------------------------------------------------------------------------------------------------------- in a block


@stage
def unstable(x: float) -> Any:
    return {"sum": x + float(os.environ.get("COFFEA_DIRAC_TEST_VALUE", "1"))}


def computed(cache: StageCache) -> Any:
    with cache:
        return unstable(2.0).compute()


def test_a_part_of_what_is_found_is_verified(tmp_path: Path) -> None:
    @stage
    def one(n: int) -> int:
        return n + 1

    def run(**options: Any) -> Any:
        cache = StageCache(tmp_path, **options)
        with cache:
            assert [one(n).compute() for n in range(200)] == list(range(1, 201))
        return cache.report

    run()
    assert len(run().verified) == 0
    some = run(verify=0.3)
    assert some.counts == {"loaded": 200, "computed": 0, "cut": 0}
    assert 20 < len(some.verified) < 110
    assert f"{len(some.verified)} verified" in str(some)
    assert set(run(verify=1.0).verified) == {"one"}


def test_other_numbers_in_the_same_environment_are_refused_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed(StageCache(tmp_path))
    monkeypatch.setenv("COFFEA_DIRAC_TEST_VALUE", "1.0000000000000002")
    assert computed(StageCache(tmp_path)) == {"sum": 3.0}
    monkeypatch.setenv("COFFEA_DIRAC_TEST_VALUE", "1.0000000000000009")
    with pytest.raises(VerificationError, match=r"unstable was computed again.*in the same environment.*3\.0 became"):
        computed(StageCache(tmp_path, verify=1))


def test_in_another_environment_numbers_may_differ_by_the_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import coffea_dirac.stages.evaluation as room

    monkeypatch.setattr(room, "environment", lambda: "Python 3.9.1, Linux s390x, 00000000")
    computed(StageCache(tmp_path))
    monkeypatch.undo()
    monkeypatch.setenv("COFFEA_DIRAC_TEST_VALUE", "1.0000000000001")
    assert computed(StageCache(tmp_path, verify=1)) == {"sum": 3.0}
    with pytest.raises(VerificationError, match=r"s390x.*more than the tolerance of 1e-14"):
        computed(StageCache(tmp_path, verify=1, tolerance=1e-14))
    monkeypatch.setenv("COFFEA_DIRAC_TEST_VALUE", "1.001")
    with pytest.raises(VerificationError, match="more than the tolerance of 1e-09"):
        computed(StageCache(tmp_path, verify=1))


@pytest.mark.parametrize("verify", [-0.1, 1.5, "much", float("nan")])
def test_what_is_no_part_is_refused(tmp_path: Path, verify: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"verify=0\.05 computes one in twenty"):
        StageCache(tmp_path, verify=verify)


def test_the_environment_variable_is_named_if_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFFEA_DIRAC_VERIFY", "yes")
    with pytest.raises(ConfigurationError, match="COFFEA_DIRAC_VERIFY is 'yes'"):
        StageCache(tmp_path)
    assert StageCache(tmp_path, verify=0.5).verification.fraction == 0.5


def test_a_cache_takes_its_settings_along(tmp_path: Path) -> None:
    import pickle

    cache = StageCache(tmp_path, verify=0.25, tolerance=1e-6, versions="minor", quota="1 GB")
    for other in (pickle.loads(pickle.dumps(cache)), cache.twin()):
        assert other.verification == Verification(0.25, 1e-6)
        assert (other.versions, other.quota_bytes) == ("minor", 10**9)


def test_what_is_verified_is_chosen_anew_in_each_run_whatever_the_seeds() -> None:
    code = (
        "import random; random.seed(1)\n"
        "from coffea_dirac.stages.verifying import Verification\n"
        "print([Verification(0.5).picks() for _ in range(64)], random.random())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "1"},
        ).stdout
        for _ in range(2)
    }
    assert len(said) == 2, "the same choice twice"
    assert len({text.rpartition("] ")[2] for text in said}) == 1, "random numbers of the user were used up"


# ------------------------------------------------------------------------------------------------------ closeness

VALUES = {
    "array": lambda f: np.array([1.0, 2.0, np.inf, np.nan]) * f,
    "narrow": lambda f: np.array([1.0, 2.0], "f4") * np.float32(f),
    "complex": lambda f: np.array([1 + 2j]) * f,
    "by columns": lambda f: [np.asfortranarray([[1.0, 2.0 * f], [3.0, 4.0]]), np.arange(3.0)],
    "jagged": lambda f: ak.Array([[1.0, 2.0 * f], [], [3.0]]),
    "records": lambda f: ak.Array([{"n": 1, "pt": [1.5 * f]}]),
    "weighted": lambda f: hist.Hist.new.Reg(5, 0, 1).Weight().fill([0.1, 0.2], weight=[1.0, f]),
    "mean": lambda f: hist.Hist.new.Reg(5, 0, 1).Mean().fill([0.1, 0.2], sample=[1.0, f]),
    "nested": lambda f: {"all": [1, (2.5 * f, "x")]},
}


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_numbers_may_differ_by_the_tolerance_and_no_more(kind: str) -> None:
    make = VALUES[kind]
    old = encode(make(1.0)).data
    assert first_difference(old, encode(make(1.0)).data) == ""
    for factor, tolerance in ((1 + 1e-6, 1e-4), (1 + 1e-2, 0.1)):
        new = encode(make(factor)).data
        assert first_difference(old, new, tolerance=tolerance) == ""
        assert first_difference(old, new, tolerance=1e-9) or kind == "narrow"
        assert first_difference(old, new) != ""


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_what_is_in_a_payload_is_compared_as_what_stands_there_as_a_value(kind: str) -> None:
    make = VALUES[kind]
    # What comes behind has other places for its buffers.
    behind = {"n": 1, "jagged": ak.Array([[1.0], []]), "more": make(1.0)}
    old, new = {"part": encode(make(1.0)), **behind}, {"part": make(1 + 1e-2), **behind}
    for one, two in ((old, new), (old, {"part": encode(new["part"]), **behind})):
        assert first_difference(encode(one).data, encode(two).data, tolerance=0.1) == ""
        assert first_difference(encode(one).data, encode(two).data, tolerance=1e-9) or kind == "narrow"
        assert first_difference(encode(one).data, encode(two).data) != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, 2),
        (1, 1.0),
        ("a", "b"),
        ([1.0], [1.0, 1.0]),
        ([1.0], (1.0,)),
        (np.arange(3), np.arange(3) + 1),
        (np.arange(3.0), np.arange(4.0)),
        (np.arange(3.0), np.arange(3, dtype="f4")),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        (ak.Array([[1.0], []]), ak.Array([[], [1.0]])),
        (ak.Array([1, 2]), ak.Array([1.0, 2.0])),
        (b"ab", b"ac"),
        ({"a": 1.0}, {"b": 1.0}),
        (hist.Hist.new.Reg(5, 0, 1).Weight(), hist.Hist.new.Reg(6, 0, 1).Weight()),
    ],
)
def test_what_is_no_rounding_differs_at_any_tolerance(old: Any, new: Any) -> None:
    assert first_difference(encode(old).data, encode(new).data, tolerance=0.5) != ""


@given(st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_only_equal_bits_do_not_differ_without_a_tolerance(one: float, two: float) -> None:
    is_equal = struct.pack("<d", one) == struct.pack("<d", two)
    assert (first_difference(encode(one).data, encode(two).data) == "") == is_equal
    arrays = encode(np.array([one])).data, encode(np.array([two])).data
    assert (first_difference(*arrays) == "") == is_equal
