"""What user code reads from outside is noted while it runs, and nothing else."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.inputs.discovery import Checker, Window, recording
from coffea_dirac.inputs.metadata import RecordingMetadata, metadata_digest
from coffea_dirac.inputs.paths import ABSENT, digest_path, names_digest

pytestmark = pytest.mark.core

VALUES = {"dataset": "ttbar", "xsec": 2.5, "nevts": 10}


def names_read(read: Callable[[Any], Any]) -> set[str]:
    window = Window()
    read(RecordingMetadata(VALUES, window))
    return set(window.metadata)


@pytest.mark.parametrize(
    "read",
    [
        lambda m: m["xsec"],
        lambda m: m.get("xsec"),
        lambda m: "xsec" in m,
        lambda m: m.setdefault("xsec", 1),
        lambda m: m.pop("xsec"),
        lambda m: "{xsec}".format_map(m),
    ],
)
def test_reading_one_key_notes_that_key_only(read: Callable[[Any], Any]) -> None:
    assert names_read(read) == {"xsec"}


@pytest.mark.parametrize(
    "read",
    [
        list,
        len,
        dict,
        repr,
        str,
        json.dumps,
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        sorted,
        bool,
        lambda m: m == {},
        lambda m: m != {},
        lambda m: {**m},
        lambda m: m | {},
        lambda m: {} | m,
        lambda m: list(m.items()),
        lambda m: list(m.values()),
        lambda m: list(reversed(m)),
        lambda m: m.popitem(),
        lambda m: dict(**m),
        lambda m: [*m],
        lambda m: m.keys() & {"xsec"},
        lambda m: {}.update(m),
    ],
)
def test_iterating_in_any_way_counts_as_reading_all(read: Callable[[Any], Any]) -> None:
    assert names_read(read) == {*VALUES, "*"}


def test_a_key_that_is_not_there_is_noted_as_absent() -> None:
    window = Window()
    assert RecordingMetadata(VALUES, window).get("weight", 1) == 1
    assert window.metadata == {"weight": ABSENT}


def test_a_value_the_code_put_there_itself_is_no_input() -> None:
    def read(metadata: Any) -> None:
        metadata["mine"] = 3
        assert metadata["mine"] == 3

    assert names_read(read) == set()


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.floats(), st.text(), st.lists(st.integers()))))
def test_what_was_noted_is_what_a_later_check_computes(values: dict[str, Any]) -> None:
    window = Window()
    list(RecordingMetadata(values, window).items())
    assert all(metadata_digest(values, name) == digest for name, digest in window.metadata.items())


def files_seen(tmp_path: Path, act: Callable[[], Any], ignored: tuple[str, ...] = ()) -> Window:
    window = Window(ignored)
    with recording(window):
        act()
    return window


def test_a_file_opened_for_reading_is_noted_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text("{}")
    window = files_seen(tmp_path, path.read_text)
    assert window.files == {str(path): digest_path(str(path))}
    assert Checker().first_change(window.inputs(), lambda _: "") is None
    path.write_text("{ }")
    assert Checker().first_change(window.inputs(), lambda _: "") == {"reason": "new content", "where": str(path)}


def test_a_file_that_was_looked_for_and_appears_later_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "optional.json"

    def act() -> None:
        with pytest.raises(FileNotFoundError):
            path.open()

    window = files_seen(tmp_path, act)
    assert window.files == {str(path): ABSENT}
    path.write_text("1")
    assert Checker().first_change(window.inputs(), lambda _: "") is not None


def test_files_the_code_wrote_are_outputs_even_if_it_reads_them_again(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"

    def act() -> None:
        path.write_text("x")
        path.read_text()

    window = files_seen(tmp_path, act)
    assert (window.files, window.written) == ({}, {str(path)})


def test_a_file_opened_for_both_cannot_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "both.bin"
    path.write_bytes(b"abc")
    window = files_seen(tmp_path, lambda: path.open("r+b").close())
    assert "both.bin" in window.unchecked


def test_a_listed_directory_is_an_input(tmp_path: Path) -> None:
    window = files_seen(tmp_path, lambda: os.listdir(tmp_path))
    assert str(tmp_path) in window.files
    (tmp_path / "new.root").touch()
    assert Checker().first_change(window.inputs(), lambda _: "") is not None


def test_opens_of_threads_the_code_starts_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "threaded.json"
    path.write_text("{}")

    def act() -> None:
        thread = threading.Thread(target=path.read_text)
        thread.start()
        thread.join()

    assert str(path) in files_seen(tmp_path, act).files


def test_what_does_not_belong_to_the_user_is_not_noted(tmp_path: Path) -> None:
    path = tmp_path / "input.root"
    path.touch()

    def act() -> None:
        path.read_bytes()
        Path("/proc/self/stat").read_text()
        Path(os.__file__).read_text()

    window = files_seen(tmp_path, act, (str(path),))
    assert window.files == {}


def test_nothing_is_noted_outside_of_a_window(tmp_path: Path) -> None:
    path = tmp_path / "later.json"
    path.write_text("{}")
    window = files_seen(tmp_path, lambda: None)
    path.read_text()
    assert window.files == {}


def test_the_order_of_names_belongs_to_reading_all() -> None:
    assert names_digest(["a", "b"]) != names_digest(["b", "a"])


def test_what_lies_below_a_directory_that_is_left_out_does_not_count(tmp_path: Path) -> None:
    window = Window()
    with recording(window):
        (tmp_path / "scratch").mkdir()
        (tmp_path / "scratch" / "moved").write_text("x")
        (tmp_path / "scratch-not").write_text("y")
    window.leave_out([str(tmp_path / "scratch")])
    assert window.written == {str(tmp_path / "scratch-not")}


@pytest.mark.parametrize("attempt", range(8))
def test_a_window_is_looked_at_while_a_thread_still_enters_what_it_opens(tmp_path: Path, attempt: int) -> None:
    window = Window()
    names = {folder: [f"{tmp_path}/{folder}/{n}" for n in range(3000)] for folder in ("scratch", "kept")}

    def enter() -> None:
        for pair in zip(names["scratch"], names["kept"], strict=True):
            for name in pair:
                window.written.add(name)
                window.files[name] = ABSENT

    thread, interval = threading.Thread(target=enter), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        while thread.is_alive():
            window.leave_out([f"{tmp_path}/scratch"])
            window.inputs()
    finally:
        sys.setswitchinterval(interval)
    window.leave_out([f"{tmp_path}/scratch"])
    assert (sorted(window.written), sorted(window.files)) == (sorted(names["kept"]), sorted(names["kept"]))
