"""The events of a work item: the same from a file that is kept open as from one opened for it alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoAODSchema
from coffea.processor.executor import WorkItem
from scenario import write_nano

from coffea_dirac.calls import ProcessingCall
from coffea_dirac.errors import NoReplicaError
from coffea_dirac.worker.failures import portable
from coffea_dirac.worker.reading import Reader, ReadError

pytestmark = [pytest.mark.core, pytest.mark.filterwarnings("ignore:Missing cross-reference")]


class Counted(NanoAODSchema):
    """A schema of the user's that notes which branches it was given, and changes the forms that it gets."""

    seen: list[list[str]] = []  # noqa: RUF012 - of the class: coffea makes the instances

    def __init__(self, base_form: dict[str, Any], version: str = "latest") -> None:
        self.seen.append(list(base_form["fields"]))
        super().__init__(base_form, version)
        base_form["contents"].clear()


def _call(schema: type, **options: Any) -> ProcessingCall:
    arguments = {"format": "root", "schema": schema, "cache_function": lambda: None, "iteritems_options": options}
    return ProcessingCall(len, processor=None, arguments={**arguments, "uproot_options": {}})


def _item(path: Path, start: int, stop: int, tree: str = "Events") -> WorkItem:
    return WorkItem("jets", str(path), tree, start, stop, b"", {})


@pytest.mark.parametrize("schema", [NanoAODSchema, BaseSchema, Counted])
@pytest.mark.parametrize("options", [{}, {"filter_name": lambda name: "Jet_phi" not in name}])
def test_a_later_work_item_of_a_file_has_the_events_that_it_has_alone(
    tmp_path: Path, schema: type, options: dict[str, Callable[[str], bool]]
) -> None:
    path = write_nano(tmp_path / "nano.root", events=100)
    call = _call(schema, **options)
    with Reader(call) as reader:
        for start in (0, 20, 60):
            item, metadata = _item(path, start, start + 20), {"start": start}
            with Reader(call) as other:
                found, alone = reader.open(item, metadata), other.open(item, metadata)
                assert found.events.layout.form == alone.events.layout.form
                assert found.events.metadata["start"] == start
                assert ("Jet_phi" in str(found.events.layout.form)) == (not options)
                assert len(found.events) == 20
                assert ak.array_equal(ak.materialize(found.events), ak.materialize(alone.events))
                assert found.columns() == alone.columns()
                assert len(found.columns()) > 2


def test_columns_are_those_read_so_far_however_often_they_are_asked_for(tmp_path: Path) -> None:
    path = write_nano(tmp_path / "nano.root")
    with Reader(_call(NanoAODSchema)) as reader:
        found = reader.open(_item(path, 0, 20), {})
        before = found.columns()
        before.add("of the one who asked")
        ak.materialize(found.events.Jet.pt)
        after = found.columns()
        ak.materialize(found.events.Jet.eta)
        last = found.columns()
    assert "of the one who asked" not in after
    assert any(name.startswith("Jet_pt") for name in after)
    assert not any(name.startswith("Jet_eta") for name in after)
    assert last > after
    assert any(name.startswith("Jet_eta") for name in last)


def test_a_later_work_item_of_an_rntuple_has_the_events_that_it_has_alone(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "flat.root") as file:
        file.mkrntuple("Events", {"x": "f8"}).extend({"x": np.arange(30.0)})
    with Reader(_call(BaseSchema)) as reader:
        found = [reader.open(_item(tmp_path / "flat.root", n, n + 10), {}).events.x.tolist() for n in (0, 10, 20)]
    assert [x for part in found for x in part] == list(range(30))


def test_the_forms_of_one_file_are_not_those_of_the_next_or_of_another_tree(tmp_path: Path) -> None:
    first = write_nano(tmp_path / "first.root")
    other = write_nano(tmp_path / "other.root", tree="Others")
    Counted.seen.clear()
    with Reader(_call(Counted, filter_name=lambda name: "Jet_phi" not in name)) as reader:
        reader.open(_item(first, 0, 10), {})
        reader.open(_item(first, 10, 20), {})
        reader.open(_item(other, 0, 10, "Others"), {})
    assert Counted.seen[0] == Counted.seen[1] == Counted.seen[2] != []


def test_branches_are_asked_for_their_forms_once_for_each_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coffea.nanoevents.mapping import uproot as mapping

    asked: list[str] = []
    lazify = mapping._lazify_form

    def counted(form: Any, prefix: str, **texts: Any) -> Any:
        asked.append(prefix)
        return lazify(form, prefix, **texts)

    monkeypatch.setattr(mapping, "_lazify_form", counted)
    path = write_nano(tmp_path / "nano.root")
    with Reader(_call(NanoAODSchema)) as reader:
        reader.open(_item(path, 0, 10), {})
        once = len(asked)
        reader.open(_item(path, 10, 20), {})
        assert len(asked) == once > 0
        reader.close()
        reader.open(_item(path, 10, 20), {})
        assert len(asked) == 2 * once


def test_what_a_file_could_not_be_opened_for_travels_too() -> None:
    with pytest.raises(ReadError) as raised:
        raise ReadError("Failed to open file") from NoReplicaError("no replica of lfn://mc:a can be read")
    found = pickle.loads(pickle.dumps(portable(raised.value)))
    assert (type(found), str(found)) == (ReadError, "Failed to open file")
    assert (type(found.__cause__), str(found.__cause__)) == (NoReplicaError, "no replica of lfn://mc:a can be read")
    assert "Traceback" in found.__notes__[0]
