"""The contract of a store as a test class: subclass it, say how to make an empty store, and run pytest.

Needs pytest, which is not among the dependencies of the package.
"""

from __future__ import annotations

import pytest

from coffea_dirac.interfaces import Store
from coffea_dirac.stores.contract import CHECKS, Check


class StoreTests:
    """What every `coffea_dirac.interfaces.Store` does.

    A subclass has a fixture ``store`` that returns a new, empty store for each test.

    Examples
    --------
    >>> class TestLocalStore(StoreTests):
    ...     @pytest.fixture
    ...     def store(self, tmp_path):
    ...         return LocalStore(tmp_path / "stages")
    """

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(self, store: Store, check: Check) -> None:
        check(store)
