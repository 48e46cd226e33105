"""What the submitter makes of bundles that come back, or do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coffea_dirac.interfaces import Record
from coffea_dirac.packs import PackWriter
from coffea_dirac.running.computing import Bundle, Computing
from coffea_dirac.stores import open_store

pytestmark = pytest.mark.core


def test_what_a_dead_worker_kept_counts_for_all_work_items_of_a_file_that_is_listed_twice(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    writer = PackWriter(store, "monday", "b0")
    writer.add(Record("a" * 64, b"{}", "json"))
    writer.close()
    task: Any = SimpleNamespace(store=store, session="monday")
    run: Any = SimpleNamespace(cache=None)
    plan: Any = SimpleNamespace(template=None, items=[])
    other: Any = None
    computing = Computing(run, plan, other, task, other, other)
    bundle = Bundle("b0", [(0, None, "a" * 64), (1, None, "b" * 64), (2, None, "a" * 64), (3, None, "")])
    done = computing._finished(bundle)
    assert [(position, receipt.position) for position, receipt in done.items()] == [(0, 0), (2, 2)]
