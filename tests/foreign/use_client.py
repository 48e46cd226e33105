"""A pytest plug-in: wherever tests name ``distributed.Client`` they get ``DiracClient``.

``pytest -p use_client`` with this folder on ``PYTHONPATH``; ``FOREIGN_CACHE`` says where the cache is.
"""

from __future__ import annotations

import os
from typing import Any

import dask.distributed
import distributed
import distributed.client

from coffea_dirac import DiracClient


class Client(DiracClient):
    """DiracClient under the name that the tests use, with the cache that the environment names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, cache=os.environ["FOREIGN_CACHE"], **kwargs)


def pytest_configure() -> None:
    """Put it in place, before tests are collected; who only imports this file is left alone."""
    for module in (distributed, distributed.client, dask.distributed):
        module.Client = Client  # type: ignore[attr-defined]
