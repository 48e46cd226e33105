"""What is known of files that have not changed is not read again, in this session or the next."""

from __future__ import annotations

import functools
import inspect
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.processor import Runner, set_accumulator
from coffea.processor.executor import FileMeta
from scenario import Scenario, write_nano

from coffea_dirac import DiracExecutor
from coffea_dirac.inputs.identity import FileIdentity, Reading, read_identity
from coffea_dirac.inputs.memo import IdentityMemo
from coffea_dirac.inputs.stamps import stamps

pytestmark = pytest.mark.core

COUNT_OPENS = """
import collections
opens = collections.Counter()
def hook(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].endswith(".root"):
        opens[os.path.basename(args[0])] += 1
sys.addaudithook(hook)
"""
SAY_OPENS = "import atexit; atexit.register(lambda: print('OPENS', sum(opens.values()), file=sys.stderr))"


def old(path: Path) -> Path:
    """Wait until the stamp of a file can be trusted."""
    end = time.monotonic() + 5
    while str(path) not in stamps([str(path)]):
        assert time.monotonic() < end
    return path


def test_a_second_session_opens_no_unchanged_input_file(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    first = scenario.run(before=COUNT_OPENS, after=SAY_OPENS)
    assert "OPENS 0" not in first.stderr
    second = scenario.run(before=COUNT_OPENS, after=SAY_OPENS)
    assert (second.misses, second.out) == (0, first.out)
    assert "OPENS 0" in second.stderr


def test_a_file_that_changed_is_opened_and_computed_again(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    scenario.run()
    write_nano(tmp_path / "one.root", seed=9)
    again = scenario.run(compare=True)
    assert (again.hits, again.misses) == (2, 2)
    assert again.out == pytest.approx(again.plain, rel=1e-12)


def test_a_file_replaced_with_the_same_size_and_modification_time_is_seen(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path)
    path = tmp_path / "one.root"
    scenario.run()
    stat = path.stat()
    raw = bytearray(path.read_bytes())
    with uproot.open(path) as file:
        seek = int(file["Events"]["Jet_pt"].member("fBasketSeek")[0])
    raw[seek + 200] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    again = scenario.run()
    assert again.error is not None, "the damaged file was not read"
    assert "decompressing" in again.error[1]


def write_all(folder: Path) -> dict[str, tuple[Path, str, str]]:
    nano = write_nano(folder / "nano.root", events=1000)
    inside = folder / "inside.root"
    with uproot.recreate(inside) as file:
        for _ in range(3):
            file.mktree("some/where/flat", {"x": "f8"}) if "some" not in file else None
            file["some/where/flat"].extend({"x": np.arange(10.0)})
        file.mkrntuple("tuple", {"y": np.dtype("f8")}).extend({"y": np.arange(50.0)})
    parquet = folder / "a.parquet"
    ak.to_parquet(ak.Array({"x": [1.0, 2.0, 3.0]}), parquet)
    return {
        "tree": (nano, "Events", "root"),
        "tree in a directory": (inside, "some/where/flat", "root"),
        "rntuple": (inside, "tuple", "root"),
        "parquet": (parquet, "Events", "parquet"),
    }


def fetch(executor: Any, path: Path, tree: str, file_format: str, *, align: bool) -> Any:
    fetcher: Any = Runner.metadata_fetcher_parquet
    if file_format == "root":
        # coffea 2025.12 has no options of uproot there.
        has_options = "uproot_options" in inspect.signature(Runner.metadata_fetcher_root).parameters
        fetcher = functools.partial(Runner.metadata_fetcher_root, 60, align, *[{}] * has_options)
    function = functools.partial(Runner.automatic_retries, 0, False, fetcher)
    item = FileMeta("ttbar", str(path), tree, {"xsec": 2.5})
    if executor is None:
        return function(item)
    return executor.copy(function_name="get_metadata", status=False)({item}, function, set_accumulator())[0]


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("kind", ["tree", "tree in a directory", "rntuple", "parquet"])
def test_the_metadata_is_what_coffea_itself_reads(tmp_path: Path, kind: str, align: bool) -> None:
    path, tree, file_format = write_all(tmp_path)[kind]
    old(path)
    (expected,) = fetch(None, path, tree, file_format, align=align)
    for executor in (DiracExecutor(cache=tmp_path / "cache"), DiracExecutor(cache=tmp_path / "cache")):
        (found,) = fetch(executor, path, tree, file_format, align=align)
        assert found == expected
        assert found.metadata == expected.metadata
        assert {k: type(v) for k, v in found.metadata.items()} == {k: type(v) for k, v in expected.metadata.items()}


def identify(place: Path | None, *paths: Path | str, how: Reading = Reading()) -> list[FileIdentity | Exception]:  # noqa: B008
    memo = IdentityMemo()
    memo.attach(place)
    return list(memo.identify_all([(str(path), "Events") for path in paths], how).values())


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let every reading of a file fail, so that only the memo can answer."""

    def refuse(*_: Any) -> FileIdentity:
        raise OSError("read again")

    monkeypatch.setattr("coffea_dirac.inputs.memo.read_identity", refuse)
    return monkeypatch


def test_clusters_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path, place = old(write_nano(tmp_path / "one.root")), tmp_path / "files.sqlite3"
    (plain,) = identify(place, path)
    (clustered,) = identify(place, path, how=Reading(with_clusters=True))
    assert isinstance(plain, FileIdentity)
    assert isinstance(clustered, FileIdentity)
    assert plain.clusters is None
    assert clustered.clusters == (0, 100)
    assert clustered.digest == plain.digest


def test_a_row_of_the_database_that_was_changed_is_not_believed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path, place = old(write_nano(tmp_path / "one.root")), tmp_path / "files.sqlite3"
    sound = identify(place, path)
    request.getfixturevalue("unreadable")
    assert identify(place, path) == sound
    with sqlite3.connect(place) as database:
        database.execute("UPDATE identities_1 SET digest = ?", ("0" * 64,))
    database.close()
    assert isinstance(identify(place, path)[0], OSError)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "directory", "foreign"])
def test_a_database_that_cannot_be_used_is_no_error(tmp_path: Path, damage: str) -> None:
    path, place = old(write_nano(tmp_path / "one.root")), tmp_path / "files.sqlite3"
    sound = identify(place, path)
    data = place.read_bytes()
    place.unlink()
    if damage == "directory":
        place.mkdir()
    elif damage == "foreign":
        with sqlite3.connect(place) as database:
            database.execute("CREATE TABLE identities_1 (something)")
        database.close()
    else:
        place.write_bytes({"garbage": b"no database" * 500, "truncated": data[: len(data) // 2], "empty": b""}[damage])
    for _ in range(3):
        assert identify(place, path) == sound


def test_a_file_just_written_and_one_from_the_future_are_not_trusted(tmp_path: Path) -> None:
    path = write_nano(tmp_path / "one.root")
    future = time.time() + 3600
    os.utime(path, (future, future))
    assert stamps([str(path)]) == {}
    place = tmp_path / "files.sqlite3"
    identify(place, path)
    assert not place.exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, place = old(write_nano(tmp_path / "one.root")), tmp_path / "files.sqlite3"

    def read_and_write(*of: Any) -> FileIdentity:
        found = read_identity(*of)
        old(write_nano(path, seed=2))
        return found

    monkeypatch.setattr("coffea_dirac.inputs.memo.read_identity", read_and_write)
    first = identify(place, path)
    monkeypatch.undo()
    assert identify(place, path) == identify(None, path) != first


def test_a_database_that_is_locked_costs_a_second_and_nothing_else(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path, place = old(write_nano(tmp_path / "one.root")), tmp_path / "files.sqlite3"
    sound = identify(place, path)
    inode = place.stat().st_ino
    with sqlite3.connect(place) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert identify(place, path) == sound
    holder.close()
    assert place.stat().st_ino == inode, "another session's database was removed"
    request.getfixturevalue("unreadable")
    assert identify(place, path) == sound


TWENTY = """
import os, signal, sys
import uproot
from pathlib import Path
from coffea_dirac.inputs.identity import Reading
from coffea_dirac.inputs.memo import IdentityMemo

def session():
    memo = IdentityMemo()
    memo.attach(Path(sys.argv[1]))
    found = memo.identify_all([(path, "Events") for path in sys.argv[2:]], Reading())
    os.write(1, (" ".join(identity.digest for identity in found.values()) + "\\n").encode())

children = []
for n in range(20):
    children.append(os.fork())
    if not children[-1]:
        session()
        os._exit(0)
for pid in children[::5]:
    os.kill(pid, signal.SIGKILL)
for pid in children:
    os.waitpid(pid, 0)
"""


def test_twenty_processes_may_write_at_once_and_some_be_killed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    paths = [old(write_nano(tmp_path / f"{i}.root", events=5, seed=i)) for i in range(4)]
    place = tmp_path / "files.sqlite3"
    command = [sys.executable, "-c", TWENTY, str(place), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    answers = done.stdout.splitlines()
    assert len(answers) >= 16, done.stderr
    request.getfixturevalue("unreadable")
    assert set(answers) == {" ".join(i.digest for i in identify(place, *paths) if isinstance(i, FileIdentity))}


def test_a_place_that_cannot_exist_is_no_error(tmp_path: Path) -> None:
    path = old(write_nano(tmp_path / "one.root"))
    (sound,) = identify(tmp_path / "files.sqlite3", path)
    assert identify(tmp_path / ("x" * 300) / "files.sqlite3", path) == [sound]
    assert identify(path / "files.sqlite3", path) == [sound]


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    paths = [old(write_nano(tmp_path / f"{i}.root", events=5, seed=i)) for i in range(2)]
    sound = identify(None, *paths)
    place = tmp_path / "files.sqlite3"
    # A limit on the size of files stands for a disk without room: writing fails, with an error instead of a signal.
    script = (
        "import resource, signal, sys; from pathlib import Path; from coffea_dirac.inputs.memo import IdentityMemo\n"
        "from coffea_dirac.inputs.identity import Reading\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "m = IdentityMemo(); m.attach(Path(sys.argv[1]))\n"
        "print([i.digest for i in m.identify_all([(p, 'Events') for p in sys.argv[2:]], Reading()).values()])"
    )
    command = [sys.executable, "-c", script, str(place), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == str([i.digest for i in sound if isinstance(i, FileIdentity)]), done.stderr
    assert identify(place, *paths) == sound


def test_the_database_is_bounded_and_forgets_first_what_was_not_used(
    tmp_path: Path, unreadable: pytest.MonkeyPatch
) -> None:
    place, digest = tmp_path / "files.sqlite3", "ab" * 32
    unreadable.setattr("coffea_dirac.inputs.memo.MOST_ROWS", 6)
    unreadable.setattr("coffea_dirac.inputs.memo.read_identity", lambda *_: FileIdentity(digest, 1))
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.root")
        paths[-1].write_bytes(b"%d" % i)
        identify(place, old(paths[-1]))
    with sqlite3.connect(place) as database:
        database.execute("UPDATE identities_1 SET used_s = used_s - 1000000")
    database.close()
    identify(place, paths[0])
    paths.append(tmp_path / "new.root")
    paths[-1].write_bytes(b"new")
    identify(place, old(paths[-1]))
    unreadable.undo()
    unreadable.setattr("coffea_dirac.inputs.memo.read_identity", lambda *_: FileIdentity("read again", 1))
    memo = IdentityMemo()
    memo.attach(place)
    found = memo.identify_all([(str(path), "Events") for path in paths], Reading())
    known = [Path(name).name for (name, _), i in found.items() if isinstance(i, FileIdentity) and i.digest == digest]
    assert len(known) == 3
    assert {"0.root", "new.root"} < set(known)


def test_what_was_read_before_an_interrupt_is_remembered(tmp_path: Path, unreadable: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.root" for i in range(6)]
    for path in paths:
        path.write_bytes(b"file")
        old(path)

    def interrupted(filename: str, *_: Any) -> FileIdentity:
        if filename.endswith("5.root"):
            raise KeyboardInterrupt
        return FileIdentity("ab" * 32, 1)

    unreadable.setattr("coffea_dirac.inputs.memo.BATCH", 2)
    unreadable.setattr("coffea_dirac.inputs.memo.read_identity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        identify(tmp_path / "files.sqlite3", *paths)
    unreadable.undo()
    found = identify(tmp_path / "files.sqlite3", *paths)
    assert [isinstance(i, FileIdentity) for i in found] == [True] * 4 + [False] * 2


def test_a_file_that_can_be_read_again_is_no_longer_reported_as_failed(tmp_path: Path) -> None:
    write_nano(tmp_path / "one.root")
    path = tmp_path / "two.root"
    path.write_bytes(b"no file of ROOT")
    runner = Runner(executor=DiracExecutor(cache=None, inline=True, status=False), skipbadfiles=True)
    fileset = {"ttbar": [str(tmp_path / "one.root"), str(path)]}
    list(runner.preprocess(fileset, treename="Events"))
    write_nano(path, seed=2)
    out = runner(fileset, processor_instance=len, treename="Events")
    assert out == 200
    assert runner.executor.report is not None
    assert runner.executor.report.complete, runner.executor.report.missing
