"""A pytest plug-in for coffea's own tests: wherever they name FuturesExecutor they get DiracExecutor.

``pytest -p use_dirac`` in a checkout of coffea, with this folder on ``PYTHONPATH``.  ``FOREIGN_OPTIONS`` holds options of
DiracExecutor as JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import coffea.processor
import coffea.processor.executor

from coffea_dirac import DiracExecutor

_OPTIONS = json.loads(os.environ.get("FOREIGN_OPTIONS", "{}"))


@dataclass
class FuturesExecutor(DiracExecutor):
    """DiracExecutor under the name that the tests use."""

    status: bool = False
    inline: bool = bool(_OPTIONS.get("inline", False))
    workers: int | None = _OPTIONS.get("workers")


def pytest_configure() -> None:
    """Put it in place, before tests are collected; who only imports this file is left alone."""
    for module in (coffea.processor, coffea.processor.executor):
        module.FuturesExecutor = FuturesExecutor  # type: ignore[attr-defined]
