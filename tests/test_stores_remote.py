"""Stores on storage elements: the contract, against real servers."""

from __future__ import annotations

import itertools
import os

import pytest
from s3_server import S3Server

from coffea_dirac.grid.storage import XRootDServer
from coffea_dirac.stores import RemoteStore, open_store
from coffea_dirac.testing import StoreTests

_numbers = itertools.count()


class _OnAServer(StoreTests):
    """Each test has a folder of its own, and the server must have seen it."""

    @pytest.fixture
    def store(self, place: str) -> RemoteStore:
        store = open_store(f"{place}/{os.getpid()}-{next(_numbers)}/stages")
        assert isinstance(store, RemoteStore)
        return store


@pytest.mark.needs("xrootd")
class TestXRootD(_OnAServer):
    @pytest.fixture
    def place(self, xrootd: XRootDServer) -> str:
        return xrootd.root


@pytest.mark.needs("xrootd")
class TestXRootDWithTlsAndToken(_OnAServer):
    @pytest.fixture
    def place(self, xrootd_with_tokens: XRootDServer, token: str) -> str:
        return xrootd_with_tokens.root


@pytest.mark.needs("xrootd")
class TestWebdav(_OnAServer):
    @pytest.fixture
    def place(self, xrootd: XRootDServer) -> str:
        return xrootd.http


@pytest.mark.needs("xrootd")
class TestWebdavWithTlsAndToken(_OnAServer):
    @pytest.fixture
    def place(self, xrootd_with_tokens: XRootDServer, token: str) -> str:
        return xrootd_with_tokens.http


@pytest.mark.needs("s3")
class TestS3(_OnAServer):
    @pytest.fixture
    def place(self, s3: S3Server) -> str:
        return s3.url
