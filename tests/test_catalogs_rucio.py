"""Rucio's catalog, against a real server: what it returns, what it asks, how it logs in, and how it fails."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faulty_http import faulty_server

from coffea_dirac import open_catalog, resolve
from coffea_dirac.catalogs import ListingCatalog
from coffea_dirac.errors import CatalogError, ConfigurationError, CredentialError
from coffea_dirac.grid import certificates
from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer
from coffea_dirac.grid.server import free_port
from coffea_dirac.interfaces import Catalog, LogicalFile

pytestmark = pytest.mark.needs("rucio")
N_FILES = 6
_PROTOCOL = {"hostname": "localhost", "impl": "rucio.rse.protocols.xrootd.Default", "extended_attributes": None}
_RANK = {"read": 1, "write": 1, "delete": 1}
_DOMAINS = {"lan": _RANK, "wan": {**_RANK, "third_party_copy_read": 1, "third_party_copy_write": 1}}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def root(rucio: RucioServer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The client of an administrator, after two storages, a dataset and a container of datasets were made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("root")))
        catalog = catalog_of(rucio, account="root", credentials={"username": "root", "password": PASSWORD})
        client = catalog._client()
        for number, rse in enumerate(("SITE_A", "SITE_B")):
            client.add_rse(rse, deterministic=True, volatile=False, rse_type="DISK")
            client.add_rse_attribute(rse, "country", ("UK", "FR")[number])
            client.add_rse_attribute(rse, "site", f"site {number}")
            protocol = {**_PROTOCOL, "scheme": "root", "port": 1094 + number, "prefix": "//store/", "domains": _DOMAINS}
            client.add_protocol(rse, protocol)
            client.set_local_account_limit("root", rse, -1)
        client.add_scope("root", "mc")
        files = [{"scope": "mc", "name": f"f{i}.root", "bytes": 100 + i, "adler32": f"{i:08x}"} for i in range(N_FILES)]
        client.add_replicas("SITE_A", files)
        client.add_replicas("SITE_B", files[:2])
        for name, part in (("one", files[:3]), ("two", files[3:])):
            client.add_dataset("mc", name)
            client.attach_dids("mc", name, part)
        client.add_container("mc", "all")
        client.attach_dids("mc", "all", [{"scope": "mc", "name": name} for name in ("one", "two")])
        yield client


def catalog_of(rucio: RucioServer, **options: Any) -> Any:
    login = {"account": "jdoe", "auth_type": "userpass", "credentials": {"username": "jdoe", "password": PASSWORD}}
    return open_catalog(rucio.url, **{**login, "ca_cert": str(rucio.keys.ca), **options})


def rses(file: LogicalFile) -> set[str]:
    return {replica.rse for replica in file.replicas}


def test_a_dataset_has_its_files_with_sizes_checksums_and_replicas(rucio: RucioServer, root: Any) -> None:
    catalog = catalog_of(rucio)
    assert isinstance(catalog, Catalog)
    found = catalog.locate(["mc:one", "mc:f4.root", "mc:nothing"])
    assert sorted((f.lfn, f.size_bytes, f.adler32, len(f.replicas)) for f in found["mc:one"]) == [
        ("mc:f0.root", 100, "00000000", 2),
        ("mc:f1.root", 101, "00000001", 2),
        ("mc:f2.root", 102, "00000002", 1),
    ]
    (single,) = found["mc:f4.root"]
    assert (single.lfn, rses(single)) == ("mc:f4.root", {"SITE_A"})
    assert single.replicas[0].pfn.startswith("root://localhost:1094//store/mc/")
    assert found["mc:nothing"] == ()


def test_a_container_is_asked_for_by_its_datasets_and_never_by_file(rucio: RucioServer, root: Any) -> None:
    catalog = catalog_of(rucio)
    catalog.locate(["mc:one"])
    before = len(rucio.requests())
    (files,) = catalog.locate(["mc:all"]).values()
    assert sorted(file.lfn for file in files) == [f"mc:f{i}.root" for i in range(N_FILES)]
    asked = rucio.requests()[before:]
    assert sum("/replicas/list" in line for line in asked) == 2
    # What the container is and has, and of each dataset the replicas and the number of files.
    assert len(asked) == 6
    assert not any(".root" in line for line in asked)


def test_files_by_name_are_asked_for_together(rucio: RucioServer, root: Any) -> None:
    catalog = catalog_of(rucio)
    whole = {file.lfn: file for file in catalog.locate(["mc:all"])["mc:all"]}
    before = len(rucio.requests())
    found = catalog.locate([*whole, "mc:nothing"])
    assert found.pop("mc:nothing") == ()
    assert found == {lfn: (file,) for lfn, file in whole.items()}
    assert len(rucio.requests()) - before == 2


def test_sites_are_what_attributes_of_storages_say(rucio: RucioServer, root: Any, tmp_path: Path) -> None:
    found = resolve("mc:all", catalog=catalog_of(rucio))
    assert found.sites == {"site 0": ("SITE_A",), "site 1": ("SITE_B",)}
    assert found.coverage()["mc:all"]["sites"] == {"site 0": N_FILES, "site 1": 2}
    lines = [line.split("  ") for line in found.table().splitlines()]
    assert "site 1" in lines[2]
    assert lines[2][-1].strip() == "33%"
    found.listing.save(tmp_path / "snapshot.json")
    assert resolve("mc:all", catalog=tmp_path / "snapshot.json").sites == found.sites
    assert catalog_of(rucio, site_attribute="country").sites(["SITE_A"]) == {"UK": ("SITE_A",)}


def test_a_container_becomes_a_fileset_of_logical_files(rucio: RucioServer, root: Any) -> None:
    found = resolve({"all": "mc:all"}, catalog=catalog_of(rucio), metadata={"all": {"xsec": 2.5}})
    names = sorted(found["all"]["files"])
    assert (names, found["all"]["metadata"]) == ([f"lfn://mc:f{i}.root" for i in range(N_FILES)], {"xsec": 2.5})
    assert found.coverage()["mc:all"]["rses"]["SITE_A"] == N_FILES


def as_root(rucio: RucioServer, folder: Path, *arguments: str) -> None:
    """Call Rucio's own command line as an administrator."""
    options = {"rucio_host": rucio.url, "auth_host": rucio.url, "ca_cert": rucio.keys.ca, "auth_type": "userpass"}
    options |= {"account": "root", "username": "root", "password": PASSWORD, "auth_token_file_path": folder / "token"}
    text = "[client]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
    (folder / "rucio.cfg").write_text(text)
    environment = {**os.environ, "RUCIO_CONFIG": str(folder / "rucio.cfg")}
    command = [str(Path(sys.executable).with_name("rucio-admin")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_replica_that_comes_or_goes_changes_the_answer(rucio: RucioServer, root: Any, tmp_path: Path) -> None:
    catalog = catalog_of(rucio)
    replica = {"scope": "mc", "name": "f5.root", "bytes": 105, "adler32": "00000005"}
    before = ListingCatalog.snapshot(catalog, ["mc:two"])
    root.add_replicas("SITE_B", [replica])
    during = ListingCatalog.snapshot(catalog, ["mc:two"])
    assert before.diff(during).other_replicas == ("mc:f5.root",)
    (pfn,) = (
        found.pfn
        for file in catalog.locate(["mc:f5.root"])["mc:f5.root"]
        for found in file.replicas
        if found.rse == "SITE_B"
    )
    as_root(rucio, tmp_path, "replicas", "declare-bad", pfn, "--reason", "lost")
    assert catalog.locate(["mc:two"])["mc:two"] == before.dids["mc:two"]


def test_a_file_without_a_usable_replica_is_named_all_the_same(rucio: RucioServer, root: Any) -> None:
    root.update_rse("SITE_A", {"availability_read": False})
    try:
        found = {file.lfn: rses(file) for file in catalog_of(rucio).locate(["mc:one"])["mc:one"]}
    finally:
        root.update_rse("SITE_A", {"availability_read": True})
    assert found == {"mc:f0.root": {"SITE_B"}, "mc:f1.root": {"SITE_B"}, "mc:f2.root": set()}


def test_an_rse_expression_narrows_the_choice_and_a_wrong_one_is_named(rucio: RucioServer, root: Any) -> None:
    found = catalog_of(rucio, rse_expression="country=FR").locate(["mc:one"])["mc:one"]
    assert [rses(file) for file in sorted(found)] == [{"SITE_B"}, {"SITE_B"}, set()]
    with pytest.raises(ConfigurationError, match=r"no storage fits rse_expression='country=MARS'"):
        catalog_of(rucio, rse_expression="country=MARS").locate(["mc:one"])


def test_what_is_too_much_for_the_server_is_asked_for_in_halves(
    rucio: RucioServer, root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coffea_dirac.catalogs.rucio import RucioCatalog, rucio_errors

    real, sizes = RucioCatalog._listed, []

    def at_most_two(self: Any, dids: list[dict[str, str]]) -> Any:
        sizes.append(len(dids))
        if len(dids) > 2 or not dids[0]["name"].endswith(".root"):
            raise rucio_errors.RucioException("no error information passed (http status code: 504)")
        return real(self, dids)

    whole = catalog_of(rucio).locate(["mc:one"])
    monkeypatch.setattr(RucioCatalog, "_listed", at_most_two)
    assert {f.lfn: rses(f) for f in catalog_of(rucio).locate(["mc:one"])["mc:one"]} == {
        f.lfn: rses(f) for f in whole["mc:one"]
    }
    # The dataset, its three files at once, two of them, the last one.
    assert sizes == [1, 3, 2, 1]


@pytest.mark.parametrize("kind", ["userpass", "x509", "x509_proxy", "oidc"])
def test_each_way_to_log_in_works(rucio: RucioServer, root: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: certificates.Pki = rucio.keys
    ways: dict[str, dict[str, Any]] = {
        "userpass": {},
        "x509": {"credentials": {"client_cert": str(keys.user_cert), "client_key": str(keys.user_key)}},
        "x509_proxy": {"credentials": {"client_proxy": str(keys.user_proxy)}},
        "oidc": {"credentials": None, "audience": "rucio"},
    }
    monkeypatch.setenv("BEARER_TOKEN", rucio.token())
    catalog = catalog_of(rucio, auth_type=kind, **ways[kind])
    assert len(catalog.locate(["mc:one"])["mc:one"]) == 3
    assert catalog._client().whoami()["account"] == "jdoe"


def test_two_accounts_do_not_take_each_others_token(rucio: RucioServer, root: Any) -> None:
    assert catalog_of(rucio)._client().whoami()["account"] == "jdoe"
    other = catalog_of(rucio, account="root", credentials={"username": "root", "password": PASSWORD})
    assert other._client().whoami()["account"] == "root"
    assert catalog_of(rucio)._client().whoami()["account"] == "jdoe"


BAD = """
import sys, time
from coffea_dirac import open_catalog, resolve
from coffea_dirac.errors import CredentialError
options = dict(account="jdoe", auth_type="oidc", ca_cert=sys.argv[2], audience=sys.argv[3] or None)
begin = time.monotonic()
try:
    open_catalog(sys.argv[1], **options).locate(["mc:one"])
except CredentialError as error:
    print("REFUSED", f"{time.monotonic() - begin:.1f}", error)
"""


@pytest.mark.parametrize(
    ("changes", "audience", "words"),
    [
        ({"exp": 1_700_000_000}, "", "the token expired at 2023-11-14"),
        ({"aud": "somebody else"}, "rucio", "the token is for somebody else and not for rucio"),
        ({"aud": "somebody else"}, "", "does not take the token of jdoe-sub by https://localhost"),
        ({"sub": "nobody"}, "", "does not take the token of nobody"),
    ],
)
def test_a_bad_token_is_an_error_in_seconds_and_never_a_prompt(
    rucio: RucioServer, root: Any, changes: dict[str, object], audience: str, words: str
) -> None:
    token = rucio.token(**changes)
    environment = {**os.environ, "BEARER_TOKEN": token}
    command = [sys.executable, "-c", BAD, rucio.url, str(rucio.keys.ca), audience]
    # A pipe that stays open: whatever is asked of a user would wait for ever.
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(60) == 0, said
    assert said.startswith("REFUSED"), said
    assert float(said.split()[1]) < 5
    assert words in said
    assert token not in said


def test_a_wrong_password_is_named_and_not_told(
    rucio: RucioServer, root: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    catalog = catalog_of(rucio, credentials={"username": "jdoe", "password": "wrong-word"})
    with pytest.raises(CredentialError, match="does not let you in") as raised:
        catalog.locate(["mc:one"])
    assert "wrong-word" not in repr(catalog) + str(raised.value) + caplog.text


def test_a_server_that_is_down_or_overloaded_is_one_clear_error() -> None:
    login = {"account": "jdoe", "auth_type": "userpass", "credentials": {"username": "jdoe", "password": "x"}}
    begin = time.monotonic()
    with pytest.raises(CatalogError, match=r"cannot be asked: .*a snapshot works without it"):
        open_catalog(f"http://127.0.0.1:{free_port()}", **login).locate(["mc:one"])
    with faulty_server() as faults:
        faults.answers = [(503, {})] * 100
        with pytest.raises((CatalogError, CredentialError), match="Rucio"):
            open_catalog(f"http://127.0.0.1:{faults.port}", **login).locate(["mc:one"])
    assert time.monotonic() - begin < 60
