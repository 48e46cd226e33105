"""A pytest plug-in: each test runs in ``with StageCache(...)``, so that every ``.compute()`` in it goes through the cache.

``pytest -p use_cache`` with this folder on ``PYTHONPATH``; ``FOREIGN_CACHE`` says where the cache is,
``FOREIGN_POLICY`` what is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from coffea_dirac import StageCache


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Open the cache around a test, not around its fixtures."""
    with StageCache(os.environ["FOREIGN_CACHE"], policy=os.environ.get("FOREIGN_POLICY", "marked")):
        return (yield)
