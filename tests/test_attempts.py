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
from memory_store import CountedStore
from scenario import write_nano

from coffea_dirac import DiracExecutor, StageCache
from coffea_dirac.dirac.start_scheduler import PREFIX, add_teller
from coffea_dirac.worker.sealed import may_be_again, run_sealed, sealed

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def place(_: Any) -> tuple[int, bool]:
    return os.getpid(), may_be_again.get()


def send(client: Any, number: int, **options: Any) -> Any:
    call = sealed(place, ())
    return client.submit(run_sealed, (None,), call, key=f"{PREFIX}0123456789ab-{number}", pure=False, **options)


def test_without_our_plug_in_a_scheduler_says_nothing_and_any_attempt_may_be_the_second(client: Any) -> None:
    assert send(client, 0).result(timeout=60)[1][1]


def test_a_first_attempt_is_told_from_a_second_whose_result_got_lost(client: Any) -> None:
    client.run_on_scheduler(add_teller)
    future = send(client, 1)
    ((_, (pid, is_again)),) = client.gather([future])
    assert not is_again
    os.kill(pid, signal.SIGKILL)
    client.wait_for_workers(2, timeout=60)

    def lost() -> bool:
        return client.run_on_scheduler(attempt, key=future.key) == "again"

    deadline_s(lost)
    assert future.result(timeout=60)[1][1]


def attempt(dask_scheduler: Any, key: str) -> str:
    annotations: dict[str, str] = dask_scheduler.tasks[key].annotations
    return annotations["coffea_dirac_attempt"]


def deadline_s(condition: Any, seconds: float = 60) -> None:
    """Wait until a condition holds."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def test_what_the_submitter_sends_again_is_a_second_attempt(client: Any) -> None:
    client.run_on_scheduler(add_teller)
    assert not send(client, 2).result(timeout=60)[1][1]
    assert send(client, 3, is_resent=True).result(timeout=60)[1][1]


def test_a_store_is_not_listed_for_each_bundle(tmp_path: Path, client: Any) -> None:
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
