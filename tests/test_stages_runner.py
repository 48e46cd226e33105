"""Stages inside a processor, under DiracExecutor and, wrapped, under coffea's own executors."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_scene import ANALYSIS, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


ALL = {"a": 4, "b": 4, "c": 4, "d": 4, "y": 4}


@pytest.mark.core
@pytest.mark.parametrize("how", ["inline", "workers", "iterative", "futures"])
def test_an_edit_computes_what_depends_on_it_under_every_executor(scene: Scene, how: str) -> None:
    plain = scene.run("plain")
    cold = scene.run(how)
    assert (cold["ran"], cold["out"], cold["columns"]) == (ALL, plain["out"], plain["columns"])
    warm = scene.run(how)
    assert (warm["ran"], warm["out"]) == ({}, plain["out"])
    scene.edit("pt > 30", "pt > 25")
    edited = scene.run(how)
    assert edited["ran"] == {"a": 4, "b": 4, "y": 4}
    assert edited["out"] == scene.run("plain")["out"] != plain["out"]
    scene.edit("ak.num(up)", "2 * ak.num(up)")
    again = scene.run(how)
    assert again["ran"] == {"d": 4, "y": 4}
    if again["stages"] is not None:
        assert {name: n["loaded"] for name, n in again["stages"].items()} == {"b": 4, "c": 4, "d": 0, "y": 0}
    scene.edit("events.Jet.pt > 25", "25 < events.Jet.pt")
    assert scene.run(how)["ran"] == {"a": 4}
    scene.edit("* scale", "* 2 * scale")
    last = scene.run(how)
    assert last["ran"] == {"y": 4}
    assert last["out"] == scene.run("plain")["out"]


def test_what_this_package_looks_at_is_no_input_of_the_analysis(scene: Scene) -> None:
    # Pulled inside of process(), where opened files and folders count.
    scene.edit('return {"sum": total,', 'return {"n": b(a(events)).compute().ndim, "sum": total,')
    scene.run("inline")
    (scene.folder / "new.txt").write_text("")
    again = scene.run("inline")
    assert (again["ran"], again["items"]) == ({}, {"hits": 4, "misses": 0})


@pytest.mark.core
def test_a_processor_that_is_wrapped_or_holds_a_cache_is_the_same_for_dirac_executor(scene: Scene) -> None:
    assert scene.run("wrapped inline")["items"] == {"hits": 0, "misses": 4}
    again = scene.run("wrapped inline")
    assert (again["ran"], again["items"]) == ({}, {"hits": 4, "misses": 0})


@pytest.mark.core
def test_metrics_name_the_columns_of_what_was_loaded(scene: Scene) -> None:
    cold = scene.run("inline")
    scene.edit("* scale", "* 2 * scale")
    assert scene.run("inline")["columns"] == cold["columns"] != []


def test_a_change_of_process_itself_computes_no_stage(scene: Scene) -> None:
    first = scene.run("inline")
    scene.edit("        # before\n", "        unused = 1\n")
    again = scene.run("inline")
    assert (again["ran"], again["items"]) == ({}, {"hits": 0, "misses": 4})
    assert again["out"] == first["out"]


BRANCHES = {
    "metadata": 'if events.metadata["dataset"] == "ttbar":',
    "fields": 'if "Jet" in events.fields and events.metadata["dataset"] == "ttbar":',
    "hasattr": 'if hasattr(events, "Jet") and not hasattr(events, "Tau") and events.metadata["dataset"] == "ttbar":',
    "genWeight": 'if not hasattr(events, "genWeight") and events.metadata["dataset"] == "ttbar":',
    "length": 'if len(events) > 10 and events.metadata["dataset"] == "ttbar":',
    "data": 'if ak.any(events.Jet.pt > 0) and events.metadata["dataset"] == "ttbar":',
    "except": 'try:\n            found = len(events.Jet.pt)\n        except BaseException:\n            found = 0\n        if found and events.metadata["dataset"] == "ttbar":',
}


@pytest.mark.parametrize("which", sorted(BRANCHES))
@pytest.mark.parametrize("how", ["inline", "iterative"])
def test_a_processor_may_look_at_its_events_before_it_calls_stages(scene: Scene, how: str, which: str) -> None:
    # Only ttbar goes through b, the other through d.
    scene.edit(
        '        total = y(b(a(events)), d(c(events)), events.metadata["xsec"])\n',
        f"        {BRANCHES[which]}\n"
        "            left = b(a(events))\n        else:\n            left = d(c(events))\n"
        '        total = y(left, left, events.metadata["xsec"])\n',
    )
    plain = scene.run("plain")
    cold = scene.run(how)
    assert cold["error"] is None
    assert (cold["ran"], cold["out"]) == ({"a": 2, "b": 2, "c": 2, "d": 2, "y": 4}, plain["out"])
    scene.edit("* scale", "* 2 * scale")
    assert scene.run(how)["ran"] == {"y": 4}


VARIATIONS = """
def nominal(jets):
    return jets.pt


def up(jets):
    return jets.pt * 1.03


@stage
def varied(events, variation):
    ran("varied:" + variation.__name__)
    return {"pt": variation(events.Jet), "name": variation.__name__}


@stage
def summed(jets):
    ran("summed:" + jets["name"])
    return float(ak.sum(jets["pt"]))


@stage
def total(sums):
    ran("total")
    return sum(sums.values())


VARIATIONS = {"nominal": nominal, "up": up}


class Analysis(processor.ProcessorABC):
    def process(self, events):
        sums = {name: summed(varied(events, variation)) for name, variation in VARIATIONS.items()}
        return {**sums, "total": total(sums)}
"""


@pytest.mark.core
@pytest.mark.parametrize("how", ["inline", "iterative"])
def test_one_more_variation_computes_its_own_stages_and_what_takes_all(scene: Scene, how: str) -> None:
    head, _, tail = ANALYSIS.partition("class Analysis(processor.ProcessorABC):")
    tail = tail.partition("\n\n    def postprocess")[2]
    (scene.folder / "analysis.py").write_text(head + VARIATIONS + "\n    def postprocess" + tail)
    first = scene.run(how, dies=True)
    of_two = {f"{stage}:{name}": 4 for stage in ("varied", "summed") for name in ("nominal", "up")}
    assert first["ran"] == {**of_two, "total": 4}
    scene.edit('{"nominal": nominal, "up": up}', '{"nominal": nominal, "up": up, "down": lambda jets: jets.pt / 1.03}')
    more = scene.run(how, dies=True)
    assert more["ran"] == {"varied:<lambda>": 4, "summed:<lambda>": 4, "total": 4}
    assert more["out"]["up"] == first["out"]["up"]
    scene.edit("jets.pt * 1.03", "jets.pt * 1.04")
    assert scene.run(how, dies=True)["ran"] == {"varied:up": 4, "summed:up": 4, "total": 4}


@pytest.mark.core
def test_metadata_read_inside_a_stage_count_for_what_comes_from_it(scene: Scene) -> None:
    scene.edit("return ak.num(up)", "return ak.num(up)  # d")
    scene.edit(
        '    ran("c")\n    return events.Jet.eta * 1',
        '    ran("c")\n    return events.Jet.eta * events.metadata["xsec"]',
    )
    scene.edit("return ak.num(up)  # d", "return up")
    first = scene.run("inline")
    text = (scene.folder / "driver.py").read_text()
    (scene.folder / "driver.py").write_text(text.replace('("wjets", 2.0)', '("wjets", 3.0)'))
    again = scene.run("inline")
    assert again["ran"] == {"c": 2, "d": 2, "y": 2}
    assert again["out"] == scene.run("plain")["out"] != first["out"]


@pytest.mark.parametrize("how", ["inline", "workers"])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b(a(events))", "b(a(events.Jet))", ["a(events=...)", "columns are not read yet", "`events` itself"]),
        ("b(a(events))", "b(a(events[ak.num(events.Jet.pt) >= 0]))", ["a(events=...)", "columns are not read yet"]),
        ("b(a(events))", "b(a(open('analysis.py')))", ["a(events=...)", "open file"]),
        ("b(a(events))", "b(a(events))[0]", ["__getitem__()", "handle of b", ".compute()"]),
        ("b(a(events))", "b(a(events)) + 1", ["__add__()", "handle of b", ".compute()"]),
        ('return {"sum": total,', 'return {"sum": {total: 1},', ["handle of y"]),
        ("return ak.num(up)", "return (n for n in up)", ["stage d", "generator", "return a list"]),
        ("return ak.num(up)", "return object()", ["stage d", "no codec", "@stage(keep=False)"]),
        ("return ak.sum(up", "up['pt'] = up['pt'] * 2\n    return ak.sum(up", ["stage b", "changes its argument up"]),
        ("return ak.num(up)", "return len(d(up))", ["stage d", "is called while it runs"]),
        (
            "return ak.num(up)",
            "raise ValueError('no luck')",
            ["no luck", "analysis.py", "ttbar.root", "entries 0 to 50"],
        ),
    ],
)
def test_what_cannot_be_kept_is_named_and_nothing_else_is_lost(
    scene: Scene, how: str, old: str, new: str, words: list[str]
) -> None:
    scene.edit(old, new)
    found = scene.run(how)
    assert found["error"] is not None
    assert [word for word in words if word not in found["error"][1]] == []
    scene.edit(new, old)
    mended = scene.run(how)
    assert mended["error"] is None
    if "stage d" in words or "no luck" in words:
        assert mended["ran"].get("c", 0) < 4, "what was finished before the error is kept"


@pytest.mark.core
def test_a_stage_that_needs_what_the_workers_lack_says_so_and_the_others_are_done(scene: Scene) -> None:
    scene.edit("@stage\ndef d", '@stage(resources={"GPU": 1})\ndef d')
    found = scene.run("workers")
    assert found["error"] is not None
    assert [word for word in ("d {'GPU': 1}", "--resources", "inline=True") if word not in found["error"][1]] == []
    assert set(found["ran"]) == {"a", "b", "c"}
    inline = scene.run("inline")
    assert inline["out"] == scene.run("plain")["out"]
    assert inline["ran"]["d"] == 4
    assert inline["ran"].get("b", 0) < 4


LARGE = """

@stage
def e(events):
    ran("e")
    return [float(n) for n in ak.num(events.Jet.pt)] * 20


class Odd:
    # No codec: what its pickle would run, nobody may.
    def __add__(self, other):
        return self

    def __reduce__(self):
        return Odd, ()


class Analysis("""


@pytest.mark.core
@pytest.mark.parametrize("how", ["inline", "workers", "iterative"])
@pytest.mark.parametrize("odd", ["", '"odd": Odd(), '])
def test_large_results_come_back_in_a_work_item_also_in_one_that_cannot_be_kept(
    scene: Scene, how: str, odd: str
) -> None:
    scene.edit("\n\nclass Analysis(", LARGE)
    scene.edit('return {"sum": total,', f'return {{{odd}"many": [e(events)], "sum": total,')
    scene.edit("        return accumulator", '        accumulator.pop("odd", None)\n        return accumulator')
    plain = scene.run("plain")
    assert len(plain["out"]["many"]) == 4
    cold = scene.run(how)
    assert (cold["ran"], cold["out"]) == ({**ALL, "e": 4}, plain["out"])
    warm = scene.run(how)
    assert (warm["ran"], warm["out"]) == ({}, plain["out"])
    scene.edit("* scale", "* 2 * scale")
    edited = scene.run(how)
    assert edited["ran"] == {"y": 4}
    assert edited["out"]["many"] == plain["out"]["many"]


def test_a_file_that_has_vanished_is_named(scene: Scene) -> None:
    scene.edit("b(a(events))", "b(a(events), File('cuts.json'))")
    scene.edit("def b(up):", "def b(up, cuts):")
    scene.edit("from coffea_dirac import stage", "from coffea_dirac import File, stage")
    found = scene.run("inline")
    assert found["error"] is not None
    assert "File('cuts.json') cannot be read" in found["error"][1]


@pytest.mark.core
def test_a_worker_killed_between_two_stages_leaves_the_first_one_done(scene: Scene) -> None:
    kill = (
        "return ak.num(up)\n\n\n"
        "def die():\n    import os, time\n    if not os.path.exists('killed.txt'):\n"
        "        open('killed.txt', 'w').close()\n        os.kill(os.getpid(), 9)\n"
    )
    scene.edit("return ak.num(up)", kill)
    scene.edit('    ran("y")\n', '    ran("y")\n    die()\n')
    found = scene.run("workers", dies=True)
    assert (scene.folder / "killed.txt").exists()
    assert found["error"] is None
    assert found["out"] == scene.run("plain")["out"]


def test_without_a_cache_stages_run_once_each(scene: Scene) -> None:
    text = (scene.folder / "driver.py").read_text()
    (scene.folder / "driver.py").write_text(text.replace('cache="cache"', "cache=None"))
    scene.edit('"by": {', '"again": y(b(a(events)), d(c(events)), events.metadata["xsec"]), "by": {')
    found = scene.run("inline")
    assert found["ran"] == ALL
    assert found["out"] == scene.run("plain")["out"]


BOUND_ANEW = {
    "global": ("CUT = 0\n@stage\ndef cut(events): return int(ak.sum(events.Jet.pt > CUT))\n", "CUT = pt"),
    "dict": ("CUT = {}\n@stage\ndef cut(events): return int(ak.sum(events.Jet.pt > CUT['pt']))\n", "CUT['pt'] = pt"),
    "slot": (
        "class Cut:\n    __slots__ = ('pt',)\n    @stage\n    def __call__(self, events):\n"
        "        return int(ak.sum(events.Jet.pt > self.pt))\ncut = Cut()\n",
        "cut.pt = pt",
    ),
    "closure": (
        "def make():\n    pt = 0\n    @stage\n    def cut(events): return int(ak.sum(events.Jet.pt > pt))\n"
        "    def bind(value):\n        nonlocal pt\n        pt = value\n    return cut, bind\ncut, bind = make()\n",
        "bind(pt)",
    ),
}


@pytest.mark.core
@pytest.mark.parametrize("way", BOUND_ANEW)
def test_what_process_binds_anew_between_two_calls_counts(scene: Scene, way: str) -> None:
    code, bind = BOUND_ANEW[way]
    scene.edit("class Analysis", f"{code}\n\nclass Analysis")
    head = "        global CUT\n" if way == "global" else ""
    loop = f"for pt in (10, 40):\n            {bind}\n            n[str(pt)] = cut(events)\n"
    scene.edit("        # before\n", f"{head}        n = {{}}\n        {loop}        return n\n")
    plain = scene.told("plain")["out"]
    assert plain["10"] != plain["40"]
    late = scene.told("inline")
    assert "was changed after the call" in late["error"][1]
    scene.edit("= cut(events)", "= cut(events).compute()")
    for _ in ("cold", "warm"):
        found = scene.told("inline")
        assert (found["out"], found["error"]) == (plain, None)
