"""Stages in a ``with`` block: what is loaded, computed and cut after an edit, in new processes with other hash seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage_scene import Folder

from coffea_dirac import StageCache, open_store, packs, stage
from coffea_dirac.stores import LocalStore

pytestmark = pytest.mark.core

MODULE = """
import numpy as np
from coffea_dirac import File, stage


def ran(name):
    with open("ran.txt", "a") as f:
        f.write(name + "\\n")


@stage
def a(x):
    ran("a")
    return {"pt": x + 1}


@stage
def b(up, factor=2):
    ran("b")
    return up["pt"] * factor


@stage
def c(x):
    ran("c")
    return x - 1


@stage
def d(up):
    ran("d")
    return [up, up]


@stage
def y(left, right):
    ran("y")
    return float(left.sum() + right[0].sum())


def wanted():
    x = np.arange(4.0)
    return y(b(a(x)), d(c(x)))
"""
DRIVER = """
import json, sys
from coffea_dirac import StageCache
import module
with StageCache("cache") as cache:
    out = module.wanted().compute()
print("RESULT " + json.dumps({"out": out, "counts": cache.report.counts, "stages": cache.report.stages,
                             "reasons": cache.report.reasons}))
"""


class Scene(Folder):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, MODULE, DRIVER, name="module")

    def run(self) -> dict[str, Any]:
        """Run in a new process with another hash seed; return what it said, and what ran."""
        found = self.told()
        assert sum(found["ran"].values()) == found["counts"]["computed"], "the report and the functions disagree"
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path)
    assert found.run()["counts"] == {"loaded": 0, "computed": 5, "cut": 0}
    return found


def test_where_nothing_changed_the_last_result_is_loaded(scene: Scene) -> None:
    again = scene.run()
    assert again["ran"] == {}
    assert again["counts"] == {"loaded": 1, "computed": 0, "cut": 0}


def test_where_the_first_changed_all_below_it_is_computed_and_the_other_branch_loaded(scene: Scene) -> None:
    scene.edit("x + 1", "x + 2")
    again = scene.run()
    assert again["ran"] == {"a": 1, "b": 1, "y": 1}
    assert again["stages"]["d"]["loaded"] == 1
    assert "c" not in again["stages"]
    assert again["reasons"] == [
        ["new code: a, line 14: `1` became `2`", 1],
        ["new input: a", 1],
        ["new input: b", 1],
    ]


def test_where_the_first_comes_out_with_the_same_bytes_all_below_it_is_cut(scene: Scene) -> None:
    scene.edit("x + 1", "1 + x")
    again = scene.run()
    assert again["ran"] == {"a": 1}
    assert again["counts"] == {"loaded": 0, "computed": 1, "cut": 2}
    assert scene.run()["counts"] == {"loaded": 1, "computed": 0, "cut": 0}


def test_where_a_middle_one_changed_its_input_is_loaded(scene: Scene) -> None:
    scene.edit("[up, up]", "[up * 2]")
    again = scene.run()
    assert again["ran"] == {"d": 1, "y": 1}
    assert (again["stages"]["c"]["loaded"], again["stages"]["b"]["loaded"]) == (1, 1)
    assert "a" not in again["stages"]


def test_where_the_last_changed_its_inputs_are_loaded(scene: Scene) -> None:
    scene.edit("float(left.sum()", "1 + float(left.sum()")
    again = scene.run()
    assert again["ran"] == {"y": 1}
    assert again["counts"] == {"loaded": 2, "computed": 1, "cut": 0}


def test_a_cut_ends_where_another_edit_begins(scene: Scene) -> None:
    scene.edit("x + 1", "1 + x")
    scene.edit("float(left.sum()", "1 + float(left.sum()")
    again = scene.run()
    assert again["ran"] == {"a": 1, "y": 1}
    assert again["stages"]["b"]["cut"] == 1


def test_an_edit_that_is_undone_finds_the_first_results(scene: Scene) -> None:
    first = scene.run()
    scene.edit("x + 1", "x + 2")
    assert scene.run()["out"] != first["out"]
    scene.edit("x + 2", "x + 1")
    again = scene.run()
    assert (again["ran"], again["out"]) == ({}, first["out"])


def test_comments_and_names_of_variables_elsewhere_change_nothing(scene: Scene) -> None:
    scene.edit("@stage\ndef c(x):", '# a note\n@stage\ndef c(x):\n    """Say what it does."""')
    scene.edit("def wanted():", "UNUSED = 3\n\n\ndef wanted():")
    assert scene.run()["ran"] == {}


@pytest.mark.parametrize(
    ("old", "new", "computed"),
    [
        ("b(a(x))", "b(a(x), 3)", {"b": 1, "y": 1}),
        ("b(a(x))", "b(a(x), factor=2.0)", {"b": 1}),
        ("b(a(x))", "b(up=a(x))", {}),
        ("np.arange(4.0)", "np.arange(5.0)", {"a": 1, "b": 1, "c": 1, "d": 1, "y": 1}),
        ("np.arange(4.0)", "np.arange(4.0)[::-1][::-1]", {}),
        ("np.arange(4.0)", "np.arange(4.0, dtype='f4')", {"a": 1, "b": 1, "c": 1, "d": 1, "y": 1}),
        ("@stage\ndef d", "@stage(version=1)\ndef d", {"d": 1}),
        ("@stage\ndef d", "@stage(depends=[3])\ndef d", {"d": 1}),
        ("@stage\ndef d", "@stage(keep=True, resources={'GPU': 1})\ndef d", {}),
        ("@stage\ndef d", "@stage(keep=False)\ndef d", {}),
        ("@stage\ndef d", "@stage()\ndef d", {}),
        ("def d(up):", "def d(up: list) -> list:", {}),
    ],
)
def test_an_edit_of_arguments_or_options_computes_what_depends_on_it(
    scene: Scene, old: str, new: str, computed: dict[str, int]
) -> None:
    first = scene.run()
    scene.edit(old, new)
    again = scene.run()
    assert again["ran"] == computed
    if set(computed) <= {"d"} or "factor=2.0" in new:
        assert again["out"] == first["out"]


def test_what_other_decorators_say_counts_whatever_they_are_called(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.edit("@stage\ndef a", "class my:\n    stage = staticmethod(lambda keep: lambda f: f)\n\n\n@stage\ndef a")
    scene.edit("@stage\ndef d", "@stage\n@my.stage(keep=1)\ndef d")
    scene.run()
    assert scene.run()["ran"] == {}
    scene.edit("@stage\n@my.stage(keep=1)", "@stage(keep=True)\n@my.stage(keep=2)")
    assert scene.run()["ran"] == {"d": 1}


def test_what_is_not_kept_is_computed_only_if_something_needs_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.edit("@stage\ndef c", "@stage(keep=False)\ndef c")
    scene.run()
    assert scene.run()["ran"] == {}
    scene.edit("[up, up]", "[up * 2]")
    assert scene.run()["ran"] == {"c": 1, "d": 1, "y": 1}


FILES = """
    with open("cuts.txt") as f:
        more = float(f.read())
"""


def test_a_file_read_in_a_stage_counts_for_all_that_comes_from_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.write("cuts.txt", "1")
    scene.edit('    ran("a")\n    return {"pt": x + 1}', f'    ran("a"){FILES}    return {{"pt": x + more}}')
    first = scene.run()
    assert scene.run()["ran"] == {}
    scene.write("cuts.txt", "5")
    edited = scene.run()
    assert edited["ran"] == {"a": 1, "b": 1, "y": 1}
    assert edited["out"] != first["out"]
    assert ["new content: cuts.txt", 3] in edited["reasons"]
    scene.write("cuts.txt", "1")
    undone = scene.run()
    assert (undone["ran"], undone["out"]) == ({}, first["out"])


@pytest.mark.parametrize("how", ["File('cuts.txt')", "'cuts.txt'", "__import__('pathlib').Path('cuts.txt')"])
def test_a_file_as_an_argument_counts_by_its_content(tmp_path: Path, how: str) -> None:
    scene = Scene(tmp_path)
    scene.write("cuts.txt", "1")
    scene.edit("def b(up, factor=2):", "def b(up, path, factor=2):\n    factor = float(np.loadtxt(path))")
    scene.edit("b(a(x))", f"b(a(x), {how})")
    first = scene.run()
    assert scene.run()["ran"] == {}
    scene.write("cuts.txt", "5")
    edited = scene.run()
    assert edited["ran"] == {"b": 1, "y": 1}
    assert edited["out"] != first["out"]


def test_a_damaged_record_of_a_stage_is_computed_again(scene: Scene) -> None:
    first = scene.run()
    for pack in (scene.folder / "cache").glob("v1/s/*/p/*.pack"):
        data = bytearray(pack.read_bytes())
        data[:200] = bytes(byte ^ 1 for byte in data[:200])
        pack.write_bytes(data)
    again = scene.run()
    assert again["out"] == first["out"]
    assert scene.run()["ran"] == {}


@pytest.mark.parametrize("times", [1, 2])
def test_inputs_that_cannot_be_read_are_computed_again(scene: Scene, times: int) -> None:
    first = scene.run()
    store = open_store(scene.folder / "cache")
    index = packs.Index(store)
    index.refresh()
    damaged = {"b", "d"} if times == 1 else {"a", "b", "c", "d"}
    for row in index:
        if row.info.get("stage") in damaged:
            path = scene.folder / "cache" / row.pack
            data = bytearray(path.read_bytes())
            data[row.offset : row.offset + row.length] = bytes(row.length)
            path.write_bytes(data)
    scene.edit("float(left.sum()", "1 + float(left.sum()")
    again = scene.run()
    assert again["out"] == first["out"] + 1
    assert again["ran"] == {**dict.fromkeys(damaged, 1), "y": 1}
    assert ["unreadable", len(damaged)] in again["reasons"]
    assert scene.run()["ran"] == {}


def test_a_store_that_cannot_be_written_changes_no_result(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (tmp_path / "cache").write_text("in the way")
    driver = DRIVER.replace("import json, sys", "import json, sys, warnings; warnings.simplefilter('ignore')")
    scene.write("driver.py", driver)
    found = scene.run()
    assert found["ran"] == {"a": 1, "b": 1, "c": 1, "d": 1, "y": 1}
    assert found["out"] == 2 * (1 + 2 + 3 + 4) + (-1 + 0 + 1 + 2)


@stage
def part(n: int) -> Any:
    return np.full(500, float(n))


@stage
def together(parts: list[Any], factor: int) -> float:
    return factor * float(sum(each.sum() for each in parts))


def test_what_a_stage_takes_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(factor: int) -> float:
        with StageCache(tmp_path):
            return float(together([part(n) for n in range(8)], factor).compute())

    assert run(1) == 14_000.0
    reads = []
    read = LocalStore.read

    def counted(store: LocalStore, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        data = read(store, name, start, stop)
        reads.append(len(data or b""))
        return data

    monkeypatch.setattr(LocalStore, "read", counted)
    assert run(2) == 28_000.0
    assert sum(n > 30_000 for n in reads) == 1, "eight arrays of 4,000 bytes that lie in one pack"


def test_of_what_is_read_at_once_the_damaged_is_computed_again(tmp_path: Path) -> None:
    with StageCache(tmp_path):
        together([part(n) for n in range(8)], 1).compute()
    [pack] = [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > 8 * 4000]
    data = bytearray(pack.read_bytes())
    data[data.index(np.full(500, 3.0).tobytes()) + 16] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    with StageCache(tmp_path) as cache:
        assert together([part(n) for n in range(8)], 2).compute() == 28_000.0
    assert cache.report.stages["part"] == {"loaded": 7, "computed": 1, "cut": 0}


@stage
def by_name(*, a: int) -> int:
    return a


@stage
def all_of(*numbers: int) -> int:
    return sum(numbers)


@pytest.mark.parametrize("call", [lambda: by_name(), lambda: by_name(1), lambda: part(), lambda: part(1, 2)])
def test_arguments_that_do_not_fit_are_refused_at_the_call(tmp_path: Path, call: Any) -> None:
    with StageCache(tmp_path), pytest.raises(TypeError, match="argument"):
        call()


def test_arguments_are_the_same_by_place_and_by_name(tmp_path: Path) -> None:
    with StageCache(tmp_path) as cache:
        assert together([part(1)], 2) == together(factor=2, parts=[part(n=1)])
        assert (all_of().compute(), all_of(1, 2).compute(), by_name(a=3).compute()) == (0, 3, 3)
    assert cache.report.counts == {"loaded": 0, "computed": 3, "cut": 0}
