"""What an edit recomputes, through the executor: the right counts and the right values, always."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import uproot
from scenario import Scenario, write_nano

pytestmark = pytest.mark.core

ITEMS = 4


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario that has run once."""
    folder = tmp_path_factory.mktemp("warm")
    first = Scenario(folder).run()
    assert first.error is None
    assert (first.hits, first.misses) == (0, ITEMS)
    return folder


@pytest.fixture
def scenario(warm: Path, tmp_path: Path) -> Scenario:
    """A copy of the scenario that has run once, in another directory."""
    folder = tmp_path / "copy"
    shutil.copytree(warm, folder)
    found = Scenario.__new__(Scenario)
    found.folder = folder
    found.fileset = {
        "ttbar": {"files": ["one.root"], "metadata": {"xsec": 2.5, "unread": 1}},
        "wjets": {"files": ["two.root"], "metadata": {"xsec": 1.5, "unread": 1}},
    }
    return found


def test_an_unchanged_run_computes_nothing_and_returns_the_same(scenario: Scenario) -> None:
    again = scenario.run(compare=True)
    assert (again.hits, again.misses) == (ITEMS, 0)
    assert again.out == pytest.approx(again.plain, rel=1e-12)
    assert again.warnings == []


def check_edit(scenario: Scenario, *, misses: int, reason: str = "", **options: object) -> None:
    """The edited run recomputes `misses` items, equals coffea's own executor, and is a full hit the second time."""
    edited = scenario.run(compare=True, **options)  # type: ignore[arg-type]
    assert edited.error is None
    assert edited.out == pytest.approx(edited.plain, rel=1e-12)
    assert (edited.hits, edited.misses) == (ITEMS - misses, misses), edited.reasons
    assert any(reason in text for text, _ in edited.reasons) or not reason, edited.reasons
    if misses:
        again = scenario.run(**options)  # type: ignore[arg-type]
        assert (again.hits, again.out) == (ITEMS, edited.out)


def test_an_edited_helper_module_is_seen(scenario: Scenario) -> None:
    scenario.edit("helper.py", "CUT = 30", "CUT = 25")
    check_edit(scenario, misses=ITEMS, reason="new")


def test_an_edited_attribute_of_a_base_class_is_seen(scenario: Scenario) -> None:
    scenario.edit("analysis.py", "scale = 2.0", "scale = 2.5")
    check_edit(scenario, misses=ITEMS, reason="new")


def test_a_json_file_opened_inside_process_is_seen(scenario: Scenario) -> None:
    scenario.write("weights.json", '{"weight": 4.0}')
    check_edit(scenario, misses=ITEMS, reason="new content: weights.json")


def test_a_metadata_value_that_process_reads_recomputes_its_dataset(scenario: Scenario) -> None:
    scenario.fileset["ttbar"]["metadata"]["xsec"] = 9.0
    check_edit(scenario, misses=2, reason="new metadata: xsec", fileset=scenario.fileset)


def test_a_metadata_value_that_process_does_not_read_recomputes_nothing(scenario: Scenario) -> None:
    scenario.fileset["ttbar"]["metadata"]["unread"] = 2
    check_edit(scenario, misses=0, fileset=scenario.fileset)


def test_another_dataset_name_recomputes_nothing_where_it_is_not_read(scenario: Scenario) -> None:
    check_edit(scenario, misses=0, fileset={"top": scenario.fileset["ttbar"], "w": scenario.fileset["wjets"]})


def test_another_schema_is_seen(scenario: Scenario) -> None:
    scenario.write(
        "analysis.py",
        scenario.folder.joinpath("analysis.py").read_text() + "\nfrom coffea.nanoevents import NanoAODSchema\n"
        "class Mine(NanoAODSchema):\n    mixins = {**NanoAODSchema.mixins, 'Jet': 'PtEtaPhiMLorentzVector'}\n",
    )
    make = "runner['schema'] = analysis.Mine; executor = DiracExecutor(**{'cache': 'cache', 'inline': True, 'status': False, **options})"
    check_edit(scenario, misses=ITEMS, make=make)
    scenario.edit("analysis.py", "PtEtaPhiMLorentzVector", "PtEtaPhiMCandidate")
    check_edit(scenario, misses=ITEMS, make=make)


def test_a_file_replaced_under_the_same_name_is_seen(scenario: Scenario) -> None:
    write_nano(scenario.folder / "one.root", seed=7)
    check_edit(scenario, misses=2, reason="new input")


def test_a_file_replaced_with_the_same_uuid_and_times_is_seen(scenario: Scenario) -> None:
    path = scenario.folder / "one.root"
    stat = path.stat()
    other = write_nano(scenario.folder / "other.root", seed=1, shift=11.0)
    with uproot.open(path) as file, uproot.open(other) as new:
        old_uuid, new_uuid = file.file.uuid, new.file.uuid
    path.write_bytes(other.read_bytes().replace(new_uuid.bytes, old_uuid.bytes))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with uproot.open(path) as file:
        assert file.file.uuid == old_uuid
    check_edit(scenario, misses=2, reason="new input")


def test_the_body_of_postprocess_recomputes_nothing(scenario: Scenario) -> None:
    scenario.edit("analysis.py", "return accumulator", "return {**accumulator, 'n': accumulator['n'] * 10}")
    check_edit(scenario, misses=0)


def test_comments_and_order_of_definitions_recompute_nothing(scenario: Scenario) -> None:
    scenario.write(
        "helper.py",
        '"""Doc."""\n# a comment\n\n\ndef good(jets):\n    """Doc."""\n    return (jets.pt >\n        CUT)\n\n\nCUT = 30\n',
    )
    check_edit(scenario, misses=0)


def test_a_dataset_can_be_added_and_dropped(scenario: Scenario) -> None:
    write_nano(scenario.folder / "three.root", seed=3)
    more = {**scenario.fileset, "zjets": {"files": ["three.root"], "metadata": {"xsec": 1.0}}}
    added = scenario.run(fileset=more)
    assert (added.hits, added.misses) == (ITEMS, 2)
    dropped = scenario.run(fileset={"ttbar": scenario.fileset["ttbar"]})
    assert (dropped.hits, dropped.misses) == (2, 0)


def test_undoing_an_edit_is_a_hit(scenario: Scenario) -> None:
    scenario.edit("helper.py", "CUT = 30", "CUT = 20")
    assert scenario.run().misses == ITEMS
    scenario.edit("helper.py", "CUT = 20", "CUT = 30")
    assert scenario.run().misses == 0
