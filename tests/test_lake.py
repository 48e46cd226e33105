"""Logical files are read from the nearest replica that works, by any reader, and are the same file everywhere."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uproot
from scenario import Scenario

from coffea_dirac import resolve
from coffea_dirac.errors import ConfigurationError, NoReplicaError
from coffea_dirac.grid.server import free_port
from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.inputs import lake
from coffea_dirac.inputs.health import Health
from coffea_dirac.interfaces import LogicalFile, Replica
from coffea_dirac.sites import ranked

pytestmark = pytest.mark.needs("xrootd")
SITES = {"LCG.A.uk": ["A_DISK"], "LCG.B.uk": ["B_DISK"]}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, empty in (("_known", {}), ("_near", {}), ("_weights", {}), ("_whole", set()), ("_health", Health())):
        monkeypatch.setattr(lake, name, empty)


class Lake:
    """The files of a scenario at two sites."""

    def __init__(self, folder: Path, a: XRootDServer, b: XRootDServer) -> None:
        self.scenario, self.servers, self.name = Scenario(folder), {"A_DISK": a, "B_DISK": b}, folder.name
        self.catalog: dict[str, Any] = {}
        for dataset, file in (("ttbar", "one"), ("wjets", "two")):
            data = (folder / f"{file}.root").read_bytes()
            for server in self.servers.values():
                target = server.data / self.name / f"{file}.root"
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(data)
                target.chmod(0o644)
            pfns = {rse: f"{server.root}/{self.name}/{file}.root" for rse, server in self.servers.items()}
            facts = {"size_bytes": len(data), "adler32": f"{zlib.adler32(data):08x}", "replicas": pfns}
            self.catalog[f"mc:{dataset}"] = {f"mc:{file}.root": facts}
            # What is read must come from a server.
            (folder / f"{file}.root").unlink()
        for server in self.servers.values():
            (server.data / self.name).chmod(0o755)

    def copy(self, rse: str, file: str) -> Path:
        return self.servers[rse].data / self.name / f"{file}.root"

    def n_opens(self, rse: str) -> int:
        log = self.servers[rse].log.read_text(errors="replace")
        return log.count("req=open")

    def damage(self, rse: str, file: str, branch: str = "Jet_pt") -> None:
        """Flip bits where a branch's data lie."""
        copy = self.copy(rse, file)
        with uproot.open({str(copy): "Events"}) as tree:
            where = tree[branch]
            start = where.member("fBasketSeek")[0] + where.basket(0).member("fKeylen")
            middle = int(start + where.basket(0).compressed_bytes // 2)
        data = bytearray(copy.read_bytes())
        data[middle] ^= 0xFF
        copy.write_bytes(data)

    def run(self, site: str = "LCG.A.uk", *, cache: str = "cache", verify: str = "size", **options: Any) -> Any:
        (self.scenario.folder / "catalog.json").write_text(json.dumps(self.catalog))
        what = {
            "ttbar": {"files": "mc:ttbar", "metadata": {"xsec": 2.5}},
            "wjets": {"files": "mc:wjets", "metadata": {"xsec": 1.5}},
        }
        make = (
            f"from coffea_dirac import resolve; fileset = resolve({what!r}, sites={SITES!r}, verify={verify!r}, "
            "catalog=json.load(open('catalog.json'))); "
            "executor = DiracExecutor(**{'cache': CACHE, 'inline': True, 'status': False, **options})"
        ).replace("CACHE", repr(cache))
        env = {"DIRACSITE": site, "XDG_CACHE_HOME": str(self.scenario.folder / "home")}
        return self.scenario.run(make=make, env=env, **options)

    def resolved(self) -> Any:
        return resolve(["mc:ttbar", "mc:wjets"], catalog=self.catalog, sites=SITES)


@pytest.fixture
def a_lake(tmp_path: Path, xrootd: XRootDServer, other_site: XRootDServer) -> Iterator[Lake]:
    made = Lake(tmp_path, xrootd, other_site)
    yield made
    for server in made.servers.values():
        shutil.rmtree(server.data / made.name, ignore_errors=True)


def test_the_near_site_is_read_and_no_other_and_another_site_finds_all_kept(a_lake: Lake) -> None:
    before = {rse: a_lake.n_opens(rse) for rse in a_lake.servers}
    cold = a_lake.run("LCG.A.uk", compare=True)
    after = {rse: a_lake.n_opens(rse) for rse in a_lake.servers}
    assert (cold.out, cold.error, cold.misses) == (cold.plain, None, 4)
    assert after["A_DISK"] > before["A_DISK"]
    assert after["B_DISK"] == before["B_DISK"]
    warm = a_lake.run("LCG.B.uk")
    assert (warm.out, warm.misses) == (cold.out, 0)
    # Neither to preprocess nor to look up.
    assert {rse: a_lake.n_opens(rse) for rse in a_lake.servers} == after


def test_workers_are_told_where_files_are(a_lake: Lake) -> None:
    cold = a_lake.run("LCG.B.uk", inline=False, workers=1)
    assert (cold.error, cold.misses) == (None, 4)
    assert a_lake.run("LCG.B.uk").out == cold.out


def test_another_checksum_is_another_file(a_lake: Lake) -> None:
    first = a_lake.run()
    facts = a_lake.catalog["mc:ttbar"]["mc:one.root"]
    facts["adler32"] = "0badcafe"
    again = a_lake.run()
    assert (again.out, again.misses, again.hits) == (first.out, 2, 2)


@pytest.mark.parametrize(
    "trouble",
    [
        "missing",
        "truncated",
        pytest.param("empty", marks=pytest.mark.long),
        pytest.param("dead", marks=pytest.mark.long),
    ],
)
def test_a_bad_replica_is_survived(a_lake: Lake, trouble: str) -> None:
    copy = a_lake.copy("A_DISK", "one")
    if trouble == "missing":
        copy.unlink()
    elif trouble == "dead":
        pfns = a_lake.catalog["mc:ttbar"]["mc:one.root"]["replicas"]
        pfns["A_DISK"] = f"root://localhost:{free_port()}//store/one.root"
    else:
        copy.write_bytes(copy.read_bytes()[: 0 if trouble == "empty" else 2000])
    result = a_lake.run("LCG.A.uk")
    assert (result.error, result.misses) == (None, 4)
    (a_lake.scenario.folder / "cache").rename(a_lake.scenario.folder / "cache-of-a")
    assert a_lake.run("LCG.B.uk").out == result.out


def test_what_cannot_be_decoded_is_read_from_another_replica(a_lake: Lake) -> None:
    sound = a_lake.run("LCG.B.uk", cache="sound")
    a_lake.damage("A_DISK", "one")
    result = a_lake.run("LCG.A.uk")
    assert (result.error, result.out, result.misses) == (None, sound.out, 4)
    why = "zlib.error: Error -3 while decompressing data: incorrect data check"
    assert result.notes == [f"the replica of mc:one.root at A_DISK is damaged: {why}"]


def test_metadata_that_cannot_be_decoded_are_read_from_another_replica(a_lake: Lake) -> None:
    copy = a_lake.copy("A_DISK", "one")
    with uproot.open(copy) as file:
        key = file.key("Events")
        middle = key.fSeekKey + key.fKeylen + 100
    data = bytearray(copy.read_bytes())
    data[middle] ^= 0xFF
    copy.write_bytes(data)
    result = a_lake.run("LCG.A.uk")
    assert (result.error, result.misses) == (None, 4)


def test_a_file_of_another_size_is_never_read_under_the_name(a_lake: Lake) -> None:
    sound = a_lake.run("LCG.B.uk", cache="sound")
    a_lake.copy("A_DISK", "one").write_bytes(a_lake.copy("A_DISK", "two").read_bytes() + b"more")
    result = a_lake.run("LCG.A.uk")
    assert (result.error, result.out) == (None, sound.out)
    assert any("the replica of mc:one.root at A_DISK is damaged: it has" in note for note in result.notes)


def test_what_is_decoded_and_is_not_the_same_is_seen_by_its_checksum_only(a_lake: Lake) -> None:
    sound = a_lake.run("LCG.B.uk", cache="sound")
    one, two = a_lake.copy("A_DISK", "one"), a_lake.copy("A_DISK", "two")
    facts = a_lake.catalog["mc:ttbar"]["mc:one.root"]
    # Another file, of the same size by what ROOT ignores at the end.
    size = max(one.stat().st_size, two.stat().st_size) + 1
    data = one.read_bytes().ljust(size, b"\0")
    facts.update(size_bytes=size, adler32=f"{zlib.adler32(data):08x}")
    a_lake.copy("B_DISK", "one").write_bytes(data)
    one.write_bytes(two.read_bytes().ljust(size, b"\0"))
    assert a_lake.run("LCG.A.uk", cache="believed").out != sound.out
    result = a_lake.run("LCG.A.uk", verify="adler32")
    assert (result.error, result.out) == (None, sound.out)
    assert any("at A_DISK is damaged: the adler32 of its bytes is" in note for note in result.notes)


def test_if_all_replicas_are_damaged_the_file_may_be_skipped(a_lake: Lake) -> None:
    for rse in a_lake.servers:
        a_lake.damage(rse, "one")
    result = a_lake.run()
    assert result.error is not None
    assert "no replica of lfn://mc:one.root can be read" in result.error[1]
    assert all(f"{rse}: the adler32 of its bytes is" in result.error[1] for rse in a_lake.servers)
    skipped = a_lake.run(runner={"skipbadfiles": True})
    assert (skipped.error, skipped.out["n"]) == (None, 100)


def test_what_fails_with_sound_data_is_raised_as_it_is(a_lake: Lake) -> None:
    a_lake.scenario.edit("analysis.py", "total =", "events.Jet.pt; uproot.open('weights.json'); total =")
    a_lake.scenario.edit("analysis.py", "import json", "import json, uproot")
    result = a_lake.run()
    assert result.error is not None
    assert "weights.json" in result.error[1]
    assert "NoReplicaError" not in result.error[1]
    assert not result.notes


def test_a_replica_that_goes_in_the_middle_is_survived(a_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRACSITE", "LCG.A.uk")
    (name, _) = (file for dataset in a_lake.resolved().values() for file in dataset["files"])
    with uproot.open({name: None}) as file:
        begin = file["Events"]["event"].array(entry_stop=10).tolist()
        pfns = a_lake.catalog["mc:ttbar"]["mc:one.root"]["replicas"]
        bad = Replica("mc:one.root", "A_DISK", f"root://localhost:{free_port()}//store/one.root")
        known = lake._known["mc:one.root"]
        lake.know([known._replace(replicas=(bad, Replica("mc:one.root", "B_DISK", pfns["B_DISK"])))])
        assert file["Events"]["Jet_pt"].array().tolist()
        assert begin == list(range(10))
    assert list(lake._health._avoided) == ["A_DISK"]


def test_a_dead_storage_costs_one_deadline_and_is_then_avoided(a_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRACSITE", "LCG.A.uk")
    for files in a_lake.catalog.values():
        for lfn, facts in files.items():
            facts["replicas"]["A_DISK"] = f"root://localhost:{free_port()}//store/{lfn}"
    names = [file for dataset in a_lake.resolved().values() for file in dataset["files"]]
    begin = time.monotonic()
    for name in names * 5:
        with uproot.open({name: "Events"}) as tree:
            assert tree.num_entries == 100
    assert time.monotonic() - begin < 20


def test_if_all_replicas_are_bad_each_is_named(a_lake: Lake) -> None:
    for rse in a_lake.servers:
        a_lake.copy(rse, "one").unlink()
    result = a_lake.run()
    assert result.error is not None
    assert "no replica of lfn://mc:one.root can be read" in result.error[1]
    assert all(f"{rse}: " in result.error[1] for rse in a_lake.servers)
    skipped = a_lake.run(runner={"skipbadfiles": True})
    assert (skipped.error, skipped.out["n"]) == (None, 100)


def test_a_token_is_no_input_of_the_analysis(
    tmp_path: Path, xrootd_with_tokens: XRootDServer, xrootd: XRootDServer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Lake(tmp_path, xrootd_with_tokens, xrootd)
    for dataset, files in made.catalog.items():
        for lfn, facts in files.items():
            facts["replicas"] = {"A_DISK": f"davs://localhost:{xrootd_with_tokens.port}/store/{made.name}/{lfn[3:]}"}
        assert dataset
    monkeypatch.setenv("SSL_CERT_FILE", str(xrootd_with_tokens.keys.ca))  # type: ignore[union-attr]
    monkeypatch.delenv("BEARER_TOKEN")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "token").write_text(token)
    cold = made.run()
    assert (cold.error, cold.misses) == (None, 4)
    (tmp_path / "token").write_text(xrootd_with_tokens.keys.token())  # type: ignore[union-attr]
    warm = made.run()
    assert (warm.out, warm.misses) == (cold.out, 0)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*.pack"))
    assert str(tmp_path / "token").encode() not in kept
    assert token.encode() not in kept


def test_near_replicas_come_first_and_others_are_spread() -> None:
    replicas = [tuple(Replica(f"mc:{i}", rse, f"root://{rse}//{i}") for rse in "ABC") for i in range(300)]
    files = [LogicalFile(f"mc:{i}", 1, "", part) for i, part in enumerate(replicas)]
    assert {ranked(file, near=["B"])[0].rse for file in files} == {"B"}
    assert {ranked(file, near=["B"], avoided=["B"])[2].rse for file in files} == {"B"}
    firsts = [ranked(file)[0].rse for file in files]
    assert all(60 < firsts.count(rse) < 140 for rse in "ABC")
    assert all(ranked(file) == ranked(file) for file in files)


def test_what_cannot_be_resolved_is_named() -> None:
    catalog = {"mc:ttbar": {"mc:a": {"replicas": {"A": "root://a//a"}}, "mc:b": {"replicas": {}}}}
    with pytest.raises(ConfigurationError, match="does not know mc:nothing"):
        resolve("mc:nothing", catalog=catalog)
    with pytest.raises(NoReplicaError, match="1 files have no replica that can be read: mc:b"):
        resolve("mc:ttbar", catalog=catalog)
    with pytest.raises(ConfigurationError, match="names no dataset"):
        resolve({}, catalog=catalog)
    found = resolve({"t": "mc:ttbar"}, catalog=catalog, allow_missing=True, treename="Events")
    assert found == {"t": {"files": {"lfn://mc:a": "Events"}, "metadata": {}}}
    assert found.coverage() == {"mc:ttbar": {"files": 2, "size_bytes": 0, "rses": {"A": 1}, "sites": {}}}
    assert resolve({"t": "mc:ttbar"}, catalog=found.listing, allow_missing=True, treename="Events") == found


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ([5], {}, "names no dataset"),
        ({"t": None}, {}, "no dids: None"),
        ("mc:t", {"sites": ["A"]}, "the RSEs near each site"),
        ("mc:t", {"weights": {"A": "heavy"}}, "a number for each RSE"),
        ("mc:t", {"metadata": {"xsec": 2.5}}, "write {dataset"),
        ("mc:t", {"metadata": {"mc:u": {"xsec": 2.5}}}, "none of the datasets mc:t"),
        ("mc:t", {"redirector": "root://r//{lfn}"}, "also with {scope}"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(what: Any, options: dict[str, Any], message: str) -> None:
    catalog = {"mc:t": {"mc:a": {"replicas": {"A": "root://a//a"}}}}
    with pytest.raises(ConfigurationError, match=message):
        resolve(what, catalog=catalog, **options)
    resolve("mc:t", catalog=catalog, metadata={"mc:t": {"xsec": 2.5}, "mc:more": {"xsec": 1.0}})


def test_a_logical_file_nobody_has_told_of_is_named() -> None:
    with pytest.raises(NoReplicaError, match="nobody has told where lfn://mc:nowhere is"):
        uproot.open({"lfn://mc:nowhere": None})


def test_heavy_replicas_come_before_others_and_a_redirector_last() -> None:
    catalog = {"mc:t": {"mc:/store/a": {"replicas": {"A": "root://a//a", "B": "root://b//a"}}}}
    resolve("mc:t", catalog=catalog, weights={"B": 2, "A": 1}, redirector="root://everywhere//{name}", sites={"S": "A"})
    file = lake._known["mc:/store/a"]
    assert [replica.pfn for replica in lake._health.ranked(file, (), lake._weights)] == [
        "root://b//a",
        "root://a//a",
        "root://everywhere//store/a",
    ]
    assert [r.rse for r in ranked(file, near=["A"], weights=lake._weights)] == ["A", "B", "(redirector)"]
    lake.take(lake.told(["lfn://mc:/store/a"]))
    assert lake._weights == {"B": 2, "A": 1}


STEPS = {"object_path": "Events", "steps": [[0, 50], [50, 100]], "num_entries": 100, "uuid": "u"}
FORMS: dict[str, Any] = {
    "a did": ["mc:t"],
    "a file of it with steps": {"mc:t": {"files": {"mc:/store/a.root": STEPS}}},
    "a logical file with steps": {"mc:t": {"files": {"lfn://mc:/store/a.root": STEPS}}},
    "a file that coffea knows by its lfn": {"mc:t": {"files": {"root://old//x": {**STEPS, "lfn": "mc:/store/a.root"}}}},
    "the URL of a replica": {"mc:t": {"files": {"root://a.example.org//a.root": STEPS}, "did": "mc:t"}},
    "the URL of a replica that was": {"mc:t": {"files": {"root://gone//store/a.root": STEPS}, "did": "mc:t"}},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_fileset_names_the_same_file(form: str) -> None:
    catalog = {"mc:t": {"mc:/store/a.root": {"replicas": {"A": "root://a.example.org//a.root"}}}}
    found = resolve(FORMS[form], catalog=catalog)
    if form == "a did":
        assert found == {"mc:t": {"files": ["lfn://mc:/store/a.root"], "metadata": {}}}
    else:
        assert found == {"mc:t": {"files": {"lfn://mc:/store/a.root": STEPS}, "metadata": {}}}


def test_what_coffea_has_preprocessed_becomes_logical_and_is_taken_by_coffea_again() -> None:
    from coffea.dataset_tools.filespec import DataGroupSpec

    spec = {
        "files": {"root://a.example.org//a.root": STEPS},
        "did": "mc:t",
        "metadata": {"xsec": 2.5},
        "format": "root",
    }
    catalog = {"mc:t": {"mc:/store/a.root": {"replicas": {"A": "root://a.example.org//a.root"}}}}
    found = resolve(DataGroupSpec({"ttbar": spec}), catalog=catalog)
    assert list(found["ttbar"]["files"]) == ["lfn://mc:/store/a.root"]
    again = DataGroupSpec(dict(found))
    assert again["ttbar"].files["lfn://mc:/store/a.root"].steps == [[0, 50], [50, 100]]
    assert again["ttbar"].metadata == {"xsec": 2.5}


def test_what_was_selected_by_coffeas_discovery_is_resolved() -> None:
    from coffea.dataset_tools.dataset_query import DataDiscoveryCLI

    discovery = DataDiscoveryCLI()
    discovery.selected_datasets = ["/TT/x/NANOAODSIM"]
    discovery.selected_datasets_metadata = [{"xsec": 2.5}]
    catalog = {"cms:/TT/x/NANOAODSIM": {"cms:/store/a.root": {"replicas": {"A": "root://a//a"}}}}
    assert resolve(discovery, catalog=catalog) == {
        "/TT/x/NANOAODSIM": {"files": ["lfn://cms:/store/a.root"], "metadata": {"xsec": 2.5}}
    }


def test_a_url_without_the_did_of_its_dataset_is_refused() -> None:
    catalog = {"mc:t": {"mc:a.root": {"replicas": {"A": "root://a//a.root"}}}}
    with pytest.raises(ConfigurationError, match=r"is no did\. Say which dataset it is of"):
        resolve({"t": {"files": {"root://a//a.root": "Events"}}}, catalog=catalog)
    with pytest.raises(ConfigurationError, match=r"root://a//b.root of 't' is no replica of a file of mc:t"):
        resolve({"t": {"files": {"root://a//b.root": "Events"}, "did": "mc:t"}}, catalog=catalog)


def test_replicas_that_differ_are_found_where_the_catalog_has_no_checksum(a_lake: Lake) -> None:
    facts = a_lake.catalog["mc:ttbar"]["mc:one.root"]
    del facts["adler32"], facts["size_bytes"]
    before = a_lake.run("LCG.A.uk")
    assert (before.error, before.misses, before.notes) == (None, 4, [])
    warm = a_lake.run("LCG.B.uk")
    assert (warm.out, warm.misses) == (before.out, 0)
    # What the submitter has read at one site is what workers must find at another.
    name, *_ = a_lake.resolved()["mc:ttbar"]["files"]
    lake._read(lake.LogicalFileSystem._strip_protocol(name), [(0, 10)])
    told = lake.told([name])
    a_lake.copy("A_DISK", "one").write_bytes(a_lake.copy("A_DISK", "two").read_bytes())
    a_lake.copy("B_DISK", "one").write_bytes(a_lake.copy("B_DISK", "two").read_bytes())
    lake._health = Health()
    lake.take(told)
    with pytest.raises(NoReplicaError, match="begins otherwise than the replica that was read first"):
        lake._read("mc:one.root", [(0, 10)])
    a_lake.resolved()
    lake._health._damaged.clear()
    assert len(lake._read("mc:one.root", [(0, 10)])[0]) == 10
