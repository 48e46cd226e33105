"""Fixtures: storages with real servers, each started once and shared by the tests of a process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from s3_server import S3Server

from coffea_dirac.grid.rucio_server import RucioServer
from coffea_dirac.grid.storage import XRootDServer

if TYPE_CHECKING:
    from coffea_dirac.grid.certificates import Pki


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="coffea-dirac-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def keys(open_folder: Path) -> Iterator[Pki]:
    """A certificate authority that this process trusts; a client of XRootD reads it at its very first connection."""
    # On the stack without cryptography nothing asks for it.
    from coffea_dirac.grid.certificates import make_pki

    with pytest.MonkeyPatch.context() as patch:
        made = make_pki(open_folder / "pki")
        patch.setenv("X509_CERT_DIR", str(made.capath))
        yield made


@pytest.fixture(scope="session")
def xrootd(open_folder: Path, keys: Pki) -> Iterator[XRootDServer]:
    """An XRootD server that everybody may use, by root:// and http://."""
    yield from _running(XRootDServer(open_folder / "plain"))


@pytest.fixture(scope="session")
def other_site(open_folder: Path, keys: Pki) -> Iterator[XRootDServer]:
    """A second XRootD server that everybody may use."""
    yield from _running(XRootDServer(open_folder / "other"))


@pytest.fixture(scope="session")
def xrootd_with_tokens(open_folder: Path, keys: Pki) -> Iterator[XRootDServer]:
    """An XRootD server with TLS that wants a token, by root:// and https://."""
    yield from _running(XRootDServer(open_folder / "tokens", keys))


@pytest.fixture(scope="session")
def s3(open_folder: Path) -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        server = S3Server(open_folder)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield from _running(server)


@pytest.fixture
def token(keys: Pki, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token that may do everything, in the environment."""
    monkeypatch.setenv("BEARER_TOKEN", keys.token())
    return os.environ["BEARER_TOKEN"]


@pytest.fixture(scope="session")
def rucio(open_folder: Path, keys: Pki) -> Iterator[RucioServer]:
    """A Rucio server with two storages and a dataset; see `rucio_server.fill`."""
    yield from _running(RucioServer(open_folder / "rucio", keys))


def _running(server: Any) -> Iterator[Any]:
    try:
        server.start()
        print(f"\n{server.version} at {server.port}")
        yield server
        n_requests = server.n_requests()
        print(f"\n{server.version}: {n_requests} requests")
        assert n_requests > 0, "nobody has asked the server: what passed has tested something else"
    finally:
        server.stop()
