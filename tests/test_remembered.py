"""A file that code opens once in a process and remembers is an input of all that comes later, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Scenario

READ = """
import functools
import json


def read(era):
    with open(era + ".json") as f:
        return json.load(f)["cut"]

"""
MEMOS = {
    "lru_cache": "@functools.lru_cache\ndef load(era):\n    return read(era)\n",
    "rebound": "def load(era):\n    return read(era)\n\n\nload = functools.cache(load)\n",
    "dict": "_known = {}\n\n\ndef load(era):\n    if era not in _known:\n        _known[era] = read(era)\n"
    "    return _known[era]\n",
    "setdefault": "_known = {}\n\n\ndef load(era):\n    return _known.get(era) or _known.setdefault(era, read(era))\n",
    "alias": "_known = {}\n\n\ndef load(era):\n    known = _known\n    if era not in known:\n        known[era] = read(era)\n"
    "    return known[era]\n",
    "global": "_cut = None\n\n\ndef load(era):\n    global _cut\n    if _cut is None:\n        _cut = read(era)\n    return _cut\n",
    "default": "def load(era, known={}):\n    if era not in known:\n        known[era] = read(era)\n    return known[era]\n",
    "attribute": "def load(era):\n    if not hasattr(load, 'cut'):\n        load.cut = read(era)\n    return load.cut\n",
    "cached_property": "class Cuts:\n    @functools.cached_property\n    def jets(self):\n        return read('early')\n\n\ncuts = Cuts()\n"
    "\n\ndef load(era):\n    return cuts.jets\n",
    "decorator of one's own": "def once(function):\n    known = []\n\n    def wrapper(era):\n        if not known:\n"
    "            known.append(function(era))\n        return known[0]\n\n    return wrapper\n\n\n@once\ndef load(era):\n    return read(era)\n",
}
ANALYSIS = """
import awkward as ak
from coffea import processor
from coffea_dirac import stage
import helper


@stage
def total(events, era):
    return float(ak.sum(events.Jet.pt[events.Jet.pt > helper.load(era)]))


@stage
def number(events, era):
    return int(ak.sum(events.Jet.pt > helper.load(era)))


@stage
def entries(events):
    return int(ak.num(events.Jet, axis=0))


class Analysis(processor.ProcessorABC):
    def process(self, events):
        era = "ear" + "ly"
        return {"sum": total(events, era), "n": number(events, era), "entries": entries(events)}

    def postprocess(self, accumulator):
        return accumulator
"""


@pytest.mark.parametrize(
    ("memo", "how"), [*((memo, "stages") for memo in MEMOS), ("lru_cache", "whole"), ("dict", "whole")]
)
def test_a_file_that_was_read_for_an_earlier_work_item_is_seen_when_it_changes(
    tmp_path: Path, memo: str, how: str
) -> None:
    scenario = Scenario(tmp_path)
    scenario.write("helper.py", READ + MEMOS[memo])
    scenario.write("analysis.py", ANALYSIS if how == "stages" else ANALYSIS.replace("@stage\n", ""))
    scenario.write("early.json", '{"cut": 30}')
    scenario.run()
    assert scenario.run().misses == 0
    scenario.write("early.json", '{"cut": 25}')
    edited = scenario.run(compare=True)
    assert (edited.misses, edited.out) == (4, edited.plain)
    assert edited.reasons == [["new content: early.json", 4]]
    if how == "stages":
        # A stage that calls none of it has nothing to do with the file.
        assert (edited.counts["computed"], edited.counts["loaded"]) == (4 + 8, 4)


def test_a_file_that_nothing_remembers_belongs_to_those_who_open_it(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.write(
        "helper.py", READ + "def load(name):\n    cuts = {}\n    cuts[name] = read(name)\n    return cuts[name]\n"
    )
    text = ANALYSIS.replace("@stage\n", "").replace('"ear" + "ly"', 'events.metadata["dataset"]')
    scenario.write("analysis.py", text)
    for name in ("ttbar", "wjets"):
        scenario.write(f"{name}.json", '{"cut": 30}')
    scenario.run()
    scenario.write("ttbar.json", '{"cut": 25}')
    edited = scenario.run(compare=True)
    assert (edited.misses, edited.out) == (2, edited.plain)


def test_what_is_remembered_of_a_file_as_it_was_is_not_kept(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.write("helper.py", READ + MEMOS["lru_cache"])
    scenario.write("analysis.py", ANALYSIS.replace("@stage\n", ""))
    scenario.write("early.json", '{"cut": 30}')
    change = (
        "    run(fileset, analysis.Analysis(), treename='Events'); open('early.json', 'w').write('{\"cut\": 25}')\n"
    )
    make = "executor = DiracExecutor(cache='cache', inline=True, status=False)\n        run = processor.Runner(executor=executor, **runner)\n    "
    stale = scenario.run(make=make + change)
    assert stale.misses == 4
    assert "early.json changed while it was read" in " ".join(stale.notes)
    fresh = scenario.run(compare=True)
    assert (fresh.misses, fresh.out) == (4, fresh.plain)
