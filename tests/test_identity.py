"""A file's identity follows what the file holds, not its name or its UUID."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import uproot
from scenario import write_nano

from coffea_dirac.inputs.identity import WHOLE_BYTES, Reading, local_path
from coffea_dirac.inputs.memo import IdentityMemo

pytestmark = pytest.mark.core


def identity(path: Path, tree: str = "Events") -> str:
    return IdentityMemo().identify(str(path), tree).digest


def test_a_copy_elsewhere_is_the_same_file(tmp_path: Path) -> None:
    one = write_nano(tmp_path / "one.root")
    (tmp_path / "other").mkdir()
    two = shutil.copy(one, tmp_path / "other" / "two.root")
    assert identity(one) == identity(Path(two))
    assert IdentityMemo().identify(f"file://{two}", "Events").entries == 100


def test_other_content_under_the_same_uuid_and_size_is_another_file(tmp_path: Path) -> None:
    path = write_nano(tmp_path / "one.root")
    with uproot.open(path) as file:
        branch = file["Events"]["Jet_pt"]
        seek, uuid = int(branch.member("fBasketSeek")[0]), file.file.uuid
    before = identity(path)
    raw = bytearray(path.read_bytes())
    raw[seek + 200] ^= 1
    path.write_bytes(raw)
    with uproot.open(path) as file:
        assert file.file.uuid == uuid
    assert identity(path) != before


def test_a_tree_that_grew_in_place_is_another_input(tmp_path: Path) -> None:
    path = tmp_path / "grows.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"x": "f8"}).extend({"x": [1.0, 2.0]})
    before = IdentityMemo().identify(str(path), "Events")
    with uproot.update(path) as file:
        file.mktree("More", {"x": "f8"}).extend({"x": [3.0]})
    assert IdentityMemo().identify(str(path), "Events").digest != before.digest


def test_large_files_are_told_apart_by_a_sample_of_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nano(tmp_path / "one.root", events=2000)
    monkeypatch.setattr("coffea_dirac.inputs.identity.WHOLE_BYTES", 1000)
    before = identity(path)
    assert path.stat().st_size < WHOLE_BYTES
    other = write_nano(tmp_path / "two.root", events=2000, shift=1.0)
    assert identity(other) != before
    assert identity(path) == before


def test_a_stat_answers_until_the_file_changes(tmp_path: Path) -> None:
    path = write_nano(tmp_path / "one.root")
    os.utime(path, (1, 1))
    memo = IdentityMemo()
    first = memo.identify(str(path), "Events")
    assert memo.identify(str(path), "Events") == first
    write_nano(path, seed=5)
    assert memo.identify(str(path), "Events") != first


def test_urls_of_other_schemes_are_no_local_paths() -> None:
    assert local_path("root://store.example.org//a.root") is None
    assert local_path("a.root") == Path("a.root")


def test_parquet_files_are_told_apart_by_content_though_coffea_knows_their_name_only(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2, 3]}), path)
    one = IdentityMemo().identify(str(path), "Events", Reading("parquet"))
    pq.write_table(pa.table({"x": [1, 2, 4]}), path)
    two = IdentityMemo().identify(str(path), "Events", Reading("parquet"))
    assert one.entries == two.entries == 3
    assert one.digest != two.digest
