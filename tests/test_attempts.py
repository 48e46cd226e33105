"""A task that may have been at a worker before knows it; only then is the store asked for what that one kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coffea.nanoevents import BaseSchema
from coffea.processor import Runner
from distributed import Client, LocalCluster
from memory_store import CountedStore
from scenario import write_nano

from coffea_dirac import DiracExecutor, StageCache
from coffea_dirac.cluster.cluster import DiracCluster
from coffea_dirac.dirac.start_scheduler import ATTEMPT, PREFIX
from coffea_dirac.testing_jobs import wait_until
from coffea_dirac.worker.sealed import run_sealed, sealed

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with DiracCluster(2) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=120)
        yield client


# Travels by value, with what it imports: workers do not find this module.
PLACE = """
def place():
    import os

    from coffea_dirac.worker.sealed import may_be_again

    return os.getpid(), may_be_again.get()
"""


def send(client: Client, number: int, **options: Any) -> Any:
    made: dict[str, Any] = {"__name__": "__main__"}
    exec(PLACE, made)
    call = sealed(made["place"], ())
    return client.submit(run_sealed, (), call, key=f"{PREFIX}0123456789ab-{number}", pure=False, **options)


def is_again(future: Any) -> bool:
    _, (_, again) = future.result(timeout=120)
    return bool(again)


def attempt(client: Client, key: str) -> str:
    """Return what the scheduler says of a task."""
    made: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def ask(dask_scheduler, key): return dask_scheduler.tasks[key].annotations[{ATTEMPT!r}]", made)
    return str(client.run_on_scheduler(made["ask"], key=key))


def test_a_first_attempt_is_told_from_a_second_whose_result_got_lost(client: Client) -> None:
    future = send(client, 1)
    ((_, (pid, again)),) = client.gather([future])
    assert not again
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: attempt(client, future.key) == "again",
        timeout_s=60,
        what="the scheduler told of a second attempt",
    )
    assert is_again(future)


def test_what_the_submitter_sends_again_is_a_second_attempt(client: Client) -> None:
    assert not is_again(send(client, 2))
    assert is_again(send(client, 3, is_resent=True))


def test_a_scheduler_without_our_plug_in_says_nothing_so_any_attempt_may_be_the_second() -> None:
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert is_again(send(client, 4))


def test_a_store_is_not_listed_for_each_bundle(tmp_path: Path, client: Client) -> None:
    fileset = {"data": [str(write_nano(tmp_path / "nano.root"))]}
    lists = []
    for chunksize in (50, 5):
        store = CountedStore(tmp_path / f"cache {chunksize}")
        executor = DiracExecutor(client=client, cache=StageCache(store), status=False)
        run = Runner(executor=executor, schema=BaseSchema, chunksize=chunksize)
        assert run(fileset, lambda events: {"n": len(events)}, treename="Events") == {"n": 100}
        lists.append(store.calls().count("list"))
    assert executor.report is not None
    assert executor.report.work_items == {"hits": 0, "misses": 20}
    assert lists[0] == lists[1] > 0
