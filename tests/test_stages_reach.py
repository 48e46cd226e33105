"""What a stage reaches in ways that are easily missed: an edit of it computes again, one of anything else does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_scene import Scene

HEAD = """
import enum, functools, string
import awkward as ak, numpy as np
from coffea import processor
from coffea_dirac import stage


def ran(name):
    # In one line: a word like "vars" stands in what `with` is parsed to.
    open("ran.txt", "a").write(name + "\\n")

"""
CLASS = "\n\nclass Analysis(processor.ProcessorABC):\n    def postprocess(self, accumulator): return accumulator\n"
METHOD = """
    @stage
    def number(self, events):
        ran("number")
        return int(ak.sum({}))
    def process(self, events): return {{"n": self.number(events)}}
"""
FUNCTION = """
@stage
def number(events, {}):
    ran("number")
    return int(ak.sum(events.Jet.pt > {}))
"""
PROCESS = CLASS + "    def process(self, events): return {}\n"
MATTERS = {
    "a private method": (
        HEAD + CLASS + "    def __good(self, jets): return jets.pt > 30\n" + METHOD.format("self.__good(events.Jet)"),
        ("pt > 30", "pt > 35"),
    ),
    "a private method of a mixin": (
        HEAD
        + "class Mixin:\n    def __cut(self): return 30\n    def good(self, jets): return jets.pt > self.__cut()\n"
        + CLASS.replace("(processor", "(Mixin, processor")
        + METHOD.format("self.good(events.Jet)"),
        ("return 30", "return 35"),
    ),
    "a method that a library calls": (
        HEAD
        + CLASS.replace("(processor.ProcessorABC)", "(string.Formatter, processor.ProcessorABC)")
        + "    def get_value(self, key, args, kwargs): return 30\n"
        + METHOD.format("events.Jet.pt > float(self.format('{x}'))"),
        ("return 30", "return 35"),
    ),
    "an attribute in place of a cached property": (
        HEAD
        + "class Selector:\n    def __init__(self, cut): self.cut = cut\n"
        + "    @functools.cached_property\n    def cut(self): return 1\n"
        + FUNCTION.format("by", "by.cut")
        + PROCESS.format('{"n": number(events, Selector(30))}'),
        ("Selector(30)", "Selector(35)"),
    ),
    "an argument of a static method": (
        HEAD
        + CLASS
        + "    @staticmethod\n    @stage\n    def number(cuts, events):\n"
        + '        ran("number")\n        return int(ak.sum(events.Jet.pt > cuts[0]))\n'
        + "    def process(self, events):\n        out, cuts = {}, [0]\n        for cut in (10, 30):\n"
        + "            cuts[0] = cut\n            out[str(cut)] = self.number(cuts, events)\n        return out\n",
        ("(10, 30)", "(10, 35)"),
    ),
    "a handle as first argument of a static method": (
        HEAD
        + FUNCTION.format("cut", "cut")
        + CLASS
        + '    @staticmethod\n    @stage\n    def twice(n):\n        ran("twice")\n        return 2 * n\n'
        + '    def process(self, events): return {"n": self.twice(number(events, 30))}\n',
        ("number(events, 30)", "number(events, 35)"),
    ),
    "a class method": (
        HEAD
        + CLASS
        + '    @classmethod\n    @stage\n    def number(cls, events):\n        ran("number")\n'
        + "        return int(ak.sum(events.Jet.pt > 30))\n"
        + '    def process(self, events): return {"n": self.number(events)}\n',
        ("pt > 30", "pt > 35"),
    ),
    "an attribute of a member of an enum": (
        HEAD
        + "class Region(enum.Enum):\n    SR = 1\n    CR = 2\nRegion.SR.cut = 30\nRegion.CR.cut = 20\n"
        + FUNCTION.format("region", "region.cut")
        + PROCESS.format("{r.name: number(events, r) for r in Region}"),
        ("SR.cut = 30", "SR.cut = 35"),
    ),
    "a private attribute of an array": (
        HEAD
        + "class Cuts(np.ndarray):\n    pass\ncuts = np.zeros(1).view(Cuts)\ncuts._unit = 30\n"
        + FUNCTION.format("cuts", "cuts._unit")
        + PROCESS.format('{"n": number(events, cuts)}'),
        ("_unit = 30", "_unit = 35"),
    ),
    "what functions as arguments close over": (
        HEAD
        + '@stage\ndef total(events, of_pt):\n    ran("total")\n    return float(ak.sum(of_pt(events.Jet.pt)))\n'
        + PROCESS.format('{n: total(events, lambda pt, up=up: up * pt) for n, up in (("up", 1.1), ("down", 0.9))}'),
        ("0.9", "0.8"),
    ),
}


@pytest.mark.parametrize("case", MATTERS)
def test_an_edit_of_what_a_stage_reaches_computes_it_again(tmp_path: Path, case: str) -> None:
    scene = Scene(tmp_path)
    text, edit = MATTERS[case]
    scene.write("analysis.py", text)
    before = scene.told("plain")["out"]
    assert before is not None
    assert scene.told("inline")["out"] == before
    warm = scene.told("inline")
    assert (warm["ran"], warm["out"]) == ({}, before)
    scene.edit(*edit)
    after = scene.told("plain")["out"]
    assert after != before
    edited = scene.told("inline")
    assert edited["error"] is None
    assert edited["out"] == after
    assert edited["ran"]


UNRELATED = CLASS + "    def other(self): return 1\n"


@pytest.mark.parametrize(
    "number",
    [
        "with open('cut.txt') as file: cut = float(file.read())",
        "direction = 30; cut = direction",
    ],
)
def test_words_within_words_are_no_names_made_at_run_time(tmp_path: Path, number: str) -> None:
    scene = Scene(tmp_path)
    scene.write("cut.txt", "30")
    method = METHOD.replace('ran("number")', f'ran("number")\n        {number}').format("events.Jet.pt > cut")
    scene.write("analysis.py", HEAD + UNRELATED + method)
    assert scene.told("inline")["ran"] == {"number": 4}
    scene.edit("return 1", "return 2")
    assert scene.told("inline")["ran"] == {}


TOTAL = '@stage\ndef total(events, of_pt):\n    ran("total")\n    return float(ak.sum(of_pt(events.Jet.pt)))\n'
LOOP = (
    CLASS
    + "    def process(self, events):\n        {}\n        out = {{}}\n        for name, {} in (('up', 1.1), ('down', 0.9)):\n"
)
BOUND_LATER = {
    "a variable of a lambda": (
        TOTAL
        + LOOP.format("", "up")
        + "            out[name] = total(events, lambda pt: up * pt)\n        return out\n",
        "what its argument of_pt uses was changed after the call",
    ),
    "a global of a function": (
        TOTAL
        + "UP = 1.0\ndef shift(pt): return UP * pt\n"
        + LOOP.format("global UP", "UP")
        + "            out[name] = total(events, shift)\n        return out\n",
        "what its argument of_pt uses was changed after the call",
    ),
    "a handle as text": (
        FUNCTION.format("cut", "cut") + PROCESS.format('{f"{number(events, 30)} jets": 1}'),
        "it is not the result, which is known only when it is pulled",
    ),
}


@pytest.mark.parametrize("case", BOUND_LATER)
def test_what_a_lazy_call_would_take_for_something_else_is_a_clear_error(tmp_path: Path, case: str) -> None:
    scene = Scene(tmp_path)
    text, words = BOUND_LATER[case]
    scene.write("analysis.py", HEAD + text)
    assert scene.told("plain")["error"] is None
    found = scene.told("inline")
    assert found["error"] is not None
    assert words in found["error"][1]


OF_ARRAYS = """
@stage
def select(events):
    ran("select")
    return events[ak.num(events.Jet) > 1]

@stage
def yields(selected):
    ran("yields")
    return len(selected) * selected.metadata["xsec"]
"""


@pytest.mark.parametrize("how", ["inline", "workers", "iterative"])
def test_metadata_by_way_of_an_array_count_for_the_stage_that_reads_them(tmp_path: Path, how: str) -> None:
    scene = Scene(tmp_path)
    scene.write(
        "analysis.py", HEAD + OF_ARRAYS + PROCESS.format('{events.metadata["dataset"]: yields(select(events))}')
    )
    driver = (tmp_path / "driver.py").read_text()
    # One file in two datasets with other metadata.
    driver = driver.replace('f"{name}.root"', '"ttbar.root"')
    scene.write("driver.py", driver)
    before = scene.told("plain")["out"]
    assert before["ttbar"] != before["wjets"]
    cold = scene.told(how)
    assert cold["out"] == before
    assert scene.told(how)["ran"] == {}
    scene.write("driver.py", driver.replace('("wjets", 2.0)', '("wjets", 3.0)'))
    edited = scene.told(how)
    assert edited["out"] == scene.told("plain")["out"] != before
    assert edited["ran"] == {"yields": 2}


OF_METADATA = """
@stage
def scaled(events, metadata):
    ran("scaled")
    return len(events) * metadata["xsec"]

@stage
def info(events):
    ran("info")
    return events.metadata

@stage
def names(info):
    ran("names")
    return sorted(info)
"""


def test_metadata_as_argument_and_as_result_count_by_what_is_read_of_them(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    process = '{"n": scaled(events, events.metadata), "all": [names(info(events))]}'
    scene.write("analysis.py", HEAD + OF_METADATA + PROCESS.format(process))
    before = scene.told("plain")["out"]
    assert scene.told("inline")["out"] == before
    # Every run has another hash seed, and coffea's order of metadata follows it.
    assert scene.told("inline")["ran"] == {}
    driver = (tmp_path / "driver.py").read_text()
    scene.write("driver.py", driver.replace('"metadata": {"xsec": x}', '"metadata": {"xsec": x, "year": 2015}'))
    edited = scene.told("inline")
    assert edited["out"] == scene.told("plain")["out"] != before
    assert edited["ran"] == {"info": 4, "names": 4}


def test_arrays_of_events_that_process_returns_bring_their_metadata_along(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    returned = '{"some": [events[:5]]}'
    scene.write(
        "analysis.py",
        HEAD
        + PROCESS.format(returned).replace(
            "return accumulator",
            "return {'xsec': sorted(x.metadata['xsec'] for x in accumulator['some'])}",
        ),
    )
    before = scene.told("plain")["out"]
    assert scene.told("inline")["out"] == before
    driver = (tmp_path / "driver.py").read_text()
    scene.write("driver.py", driver.replace('("wjets", 2.0)', '("wjets", 3.0)'))
    assert scene.told("inline")["out"] == scene.told("plain")["out"] != before


def test_verifying_goes_on_past_stages_that_are_not_kept(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    text = "@stage\ndef smeared(events):\n    return float(np.random.default_rng().normal())\n"
    text += "@stage(keep=False)\ndef passed(x): return x\n@stage\ndef last(x): return x + 1\n"
    scene.write("analysis.py", HEAD + text + PROCESS.format('{"x": last(passed(smeared(events)))}'))
    assert scene.told("inline")["error"] is None
    driver = (tmp_path / "driver.py").read_text()
    scene.write("driver.py", driver.replace('cache="cache"', 'cache=StageCache("cache", verify=1.0)'))
    found = scene.told("inline")
    assert found["error"] is not None
    assert found["error"][0] == "VerificationError"
    assert "smeared" in found["error"][1]


def test_what_a_schema_adds_to_metadata_is_there_without_data_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    process = '{"n": count(events), "all": [[*sorted(events.metadata), events.metadata["version"]]]}'
    scene.write("analysis.py", HEAD + "@stage\ndef count(events): return len(events)\n" + PROCESS.format(process))
    plain = scene.told("plain")["out"]
    assert "version" in plain["all"][0]
    for hits in (0, 4):
        found = scene.told("inline")
        assert (found["out"], found["items"]["hits"]) == (plain, hits)


@pytest.mark.parametrize(
    "text",
    [
        "@stage(depends=[File('gone.json')])\ndef number(events): return 1\n",
        "CUTS = File('gone.json')\n@stage\ndef number(events): return len(open(CUTS).read())\n",
    ],
)
def test_a_vanished_file_is_named_also_where_it_is_no_argument(tmp_path: Path, text: str) -> None:
    scene = Scene(tmp_path)
    head = HEAD.replace("import stage", "import File, stage")
    scene.write("analysis.py", head + text + PROCESS.format('{"n": number(events)}'))
    found = scene.told("inline")
    assert found["error"] is not None
    assert "File('gone.json') cannot be read" in found["error"][1]


def test_a_string_that_no_path_can_be_stops_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    text = FUNCTION.format("cut", "cut + len('\\ud800')") + PROCESS.format('{"n": number(events, 29)}')
    scene.write("analysis.py", HEAD + text)
    plain = scene.told("plain")["out"]
    assert scene.told("inline")["out"] == plain
    assert scene.told("inline")["ran"] == {}
