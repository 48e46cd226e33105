"""Catalogs that are lists: written by hand, saved, loaded, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coffea_dirac import open_catalog
from coffea_dirac.catalogs import ListingCatalog
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Catalog, LogicalFile, Replica

LISTING = {
    "mc:ttbar": {
        "mc:a.root": {
            "size_bytes": 10,
            "adler32": "0a",
            "replicas": {"UK": "root://uk//a", "FR": ["root://fr//a", "davs://fr/a"]},
        },
        "mc:b.root": {"replicas": {}},
    }
}


def test_a_dictionary_is_a_catalog() -> None:
    catalog = open_catalog(LISTING)
    assert isinstance(catalog, Catalog)
    a, b = catalog.locate(["mc:ttbar"])["mc:ttbar"]
    fr = [Replica("mc:a.root", "FR", "root://fr//a"), Replica("mc:a.root", "FR", "davs://fr/a")]
    assert a == LogicalFile("mc:a.root", 10, "0a", (Replica("mc:a.root", "UK", "root://uk//a"), *fr))
    assert b == LogicalFile("mc:b.root", -1, "", ())
    assert catalog.locate(["mc:b.root", "mc:c.root"]) == {"mc:b.root": (b,), "mc:c.root": ()}
    assert open_catalog(catalog) is catalog


def test_a_snapshot_is_saved_and_loaded_as_it_was(tmp_path: Path) -> None:
    catalog = open_catalog(LISTING)
    taken = ListingCatalog.snapshot(catalog, ["mc:ttbar"])
    taken.save(tmp_path / "snapshot.json")
    assert open_catalog(tmp_path / "snapshot.json") == taken == catalog
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.json"]


def test_a_difference_tells_content_from_replicas() -> None:
    new = json.loads(json.dumps(LISTING))
    new["mc:ttbar"]["mc:a.root"]["adler32"] = "0b"
    new["mc:ttbar"]["mc:b.root"]["replicas"] = {"UK": "root://uk//b"}
    new["mc:ttbar"]["mc:c.root"] = {"replicas": {}}
    found = ListingCatalog.of(LISTING).diff(ListingCatalog.of(new))
    assert found == (("mc:c.root",), (), ("mc:a.root",), ("mc:b.root",))


def test_a_snapshot_of_10000_files_has_them_all(tmp_path: Path) -> None:
    files = {}
    for i in range(10_000):
        replicas = {rse: f"root://{rse}.example.org//store/mc/{i:06d}/a/long/path/to/file.root" for rse in ("UK", "FR")}
        files[f"mc:f{i}.root"] = {"size_bytes": i, "adler32": f"{i:08x}", "replicas": replicas}
    ListingCatalog.of({"mc:large": files}).save(tmp_path / "large.json")
    found = open_catalog(tmp_path / "large.json").locate(["mc:large"])["mc:large"]
    assert sorted(file.lfn for file in found) == sorted(files)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 2, "dids": {}}', '{"version": 1, "dids": {"a": [1]}}']
)
def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigurationError, match="snapshot"):
        open_catalog(tmp_path / "x.json")


@pytest.mark.parametrize(
    "place", ["missing.json", 3, {"mc:ttbar": ["a.root"]}, {"mc:ttbar": {"mc:a": {}}}, "root://x//y"]
)
def test_a_place_without_a_catalog_is_refused_with_what_works(place: object) -> None:
    with pytest.raises(ConfigurationError, match="write"):
        open_catalog(place)  # type: ignore[arg-type]
