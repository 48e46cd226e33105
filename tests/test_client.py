"""DiracClient: what dask's client does, with results that stay."""

from __future__ import annotations

import asyncio
import operator
import time
from pathlib import Path

import dask
import dask.array as da
import pytest
from distributed import Client, LocalCluster

from coffea_dirac import DiracClient, StageCache
from coffea_dirac.cache import CacheWarning

pytestmark = pytest.mark.core


def inc(x):
    return x + 1


def add(a, b):
    return a + b


@pytest.fixture(scope="module")
def cluster():
    """Return a cluster of threads."""
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as found:
        yield found


def counted(cluster, folder, work):
    """Return what `work` makes of a new client, and the counts of its cache."""
    with DiracClient(cluster, cache=folder) as client:
        result = work(client)
    return result, client.cache.report.counts


def twice(cluster, folder, work):
    """Do some work with two clients, the second of which computes nothing; return what both got."""
    cold, counts = counted(cluster, folder, work)
    assert counts["computed"] > 0
    with DiracClient(cluster, cache=folder) as client:
        warm = work(client)
    assert [(o.stage, o.reason) for o in client.cache.report.computed] == [] and client.cache.report.loaded
    assert warm == cold
    return warm


def test_submit_and_map(cluster, tmp_path):
    def work(client):
        one = client.submit(inc, 10)
        return [one.result(), *client.gather(client.map(add, [1, 2], [30, 40])), client.submit(inc, x=5).result()]

    assert twice(cluster, tmp_path, work) == [11, 31, 42, 6]


def test_futures_as_arguments(cluster, tmp_path):
    def work(client):
        one = client.submit(inc, 10)
        several = client.map(add, [one, one], [1, 2])
        return client.submit(sum, several).result()

    assert twice(cluster, tmp_path, work) == 25


def test_compute_and_persist_and_get(cluster, tmp_path):
    def work(client):
        x = da.arange(10, chunks=4) + 1
        y = dask.delayed(add)(dask.delayed(inc)(1), 2)
        pair, alone = client.compute([y, 7])
        found = [int(client.compute(x.sum()).result()), pair.result(), alone]
        persisted = client.persist(x)
        found.append(int(persisted.max().compute()))
        found += [client.compute({"y": y}, sync=True), client.get({"a": (inc, 1), "b": (add, "a", "a")}, ["b", ["a"]])]
        return [*found, int((persisted + 1).sum().compute())]

    assert twice(cluster, tmp_path, work) == [55, 4, 7, 10, {"y": 4}, [4, [2]], 65]


def test_what_is_persisted_may_be_asked_for_beside_what_uses_it(cluster, tmp_path):
    def work(client):
        (x,) = dask.persist(da.arange(6, chunks=3) + 1)
        total, values, nested = dask.compute(x.sum(), x, {"n": [x]})
        return [int(total), values.tolist(), nested["n"][0].tolist()]

    assert twice(cluster, tmp_path, work) == [21, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]


def test_shuffles_of_a_cluster_are_computed_and_what_comes_of_them_is_kept(cluster, tmp_path):
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame({"a": range(12), "b": list("xyz") * 4}), npartitions=4)

    def work(client, policy="marked"):
        merged = frame.merge(frame, on="b", how="inner", npartitions=3).a_x.sum()
        shuffled = frame.shuffle("b", shuffle_method="p2p").map_partitions(len)
        return [int(merged.compute()), sum(shuffled.compute())]

    assert twice(cluster, tmp_path / "marked", work) == [264, 12]
    assert twice(cluster, StageCache(tmp_path / "all", policy="all"), work) == [264, 12]


def test_compute_of_a_collection_goes_through_the_current_client(cluster, tmp_path):
    def work(client):
        x = da.arange(10, chunks=5) * 3
        values = [int(x.sum().compute()), int(x.persist().max().compute()), dask.compute(dask.delayed(inc)(1))]
        return [*values, int(x.sum().compute(scheduler="sync")) if dask.__version__ > "2026" else 135]

    assert twice(cluster, tmp_path, work) == [135, 27, (2,), 135]


def test_the_cache_of_the_block_has_precedence(cluster, tmp_path):
    with DiracClient(cluster, cache=tmp_path / "client") as client, StageCache(tmp_path / "block") as cache:
        assert client.submit(inc, 1).result() == 2
    assert cache.report.counts["computed"] == 1 and client.cache.report.counts["computed"] == 0


def test_a_plain_client_in_a_block_goes_through_the_cache(cluster, tmp_path):
    x = da.arange(6, chunks=2) + 1
    counts = []
    for _ in range(2):
        with Client(cluster) as client, StageCache(tmp_path) as cache:
            assert client.compute(x.sum()).result() == 21
            assert x.sum().compute(scheduler=client) == 21
            assert x.max().compute() == 6
        counts.append(cache.report.counts["computed"])
    assert counts[0] >= 2 and counts[1] == 0


def test_without_a_cache_it_is_a_client(cluster):
    with DiracClient(cluster, cache=None) as client:
        assert client.submit(inc, 1).result() == 2 and da.ones(3).sum().compute() == 3
        assert client.cache is None


def test_what_is_impure_or_an_actor_passes_through(cluster, tmp_path):
    async def later(x):
        return x

    class Counter:
        def __init__(self):
            self.n = 0

        def up(self):
            self.n += 1
            return self.n

    def work(client):
        actor = client.submit(Counter, actor=True).result()
        return [client.submit(inc, 1, pure=False).result(), client.submit(later, 3).result(), actor.up().result()]

    assert counted(cluster, tmp_path, work) == ([2, 3, 1], {"loaded": 0, "computed": 0, "cut": 0})


def test_an_error_is_that_of_the_function(cluster, tmp_path):
    def fail(x):
        raise ZeroDivisionError("of the user")

    with DiracClient(cluster, cache=tmp_path) as client:
        future = client.submit(fail, 1)
        with pytest.raises(ZeroDivisionError, match="of the user"):
            future.result()


def test_a_future_of_another_client_is_computed_on_and_not_kept(cluster, tmp_path):
    with Client(cluster, set_as_default=False) as other, DiracClient(cluster, cache=tmp_path) as client:
        theirs = other.submit(inc, 1, key="theirs")
        theirs.result()
        graph = {"y": dask._task_spec.Task("y", inc, dask._task_spec.TaskRef("theirs"))}
        with pytest.warns(CacheWarning, match="knows nothing of"):
            assert client.get(graph, "y") == 3
    assert [o.reason["reason"] for o in client.cache.report.computed] == ["no fingerprint"]


def test_annotations_reach_the_scheduler(cluster, tmp_path):
    with DiracClient(cluster, cache=tmp_path) as client:
        with dask.annotate(resources={"GPU": 1}):
            x = da.ones(4, chunks=2) + 1
        future = client.compute(x.sum(), optimize_graph=False)
        tasks = cluster.scheduler.tasks
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            waits = [t for t in list(tasks.values()) if (t.annotations or {}).get("resources")]
            if waits:
                break
            client.nthreads()
        assert waits
        future.cancel()


def test_results_of_other_processes_are_kept_too(tmp_path):
    for n in range(2):
        with DiracClient(n_workers=1, threads_per_worker=1, dashboard_address=":0", cache=tmp_path) as client:
            assert client.gather(client.map(operator.neg, range(20))) == [-i for i in range(20)]
        assert client.cache.report.counts["loaded"] == 20 * n


def test_values_that_are_scattered_count_by_what_they_are(cluster, tmp_path):
    def work(client, n=5):
        listed, named, alone = client.scatter([n, 2]), client.scatter({"x": n}), client.scatter(n)
        values = [client.submit(add, *listed), client.submit(inc, named["x"]), client.submit(inc, alone)]
        return [*client.gather(values), dask.delayed(add)(alone, 1).compute()]

    assert twice(cluster, tmp_path, work) == [7, 6, 6, 6]
    assert counted(cluster, tmp_path, lambda client: work(client, 6)) == (
        [8, 7, 7, 7],
        {"loaded": 0, "computed": 4, "cut": 0},
    )


def forgotten(client, future):
    """Wait until the cluster holds nothing any more under the key of a future, the last one of it."""
    future.release()
    deadline = time.monotonic() + 10
    while future.key in client.futures or future.key in client.cluster.scheduler.tasks:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def submit_an_open_file(client):
    with Path(__file__).open() as file:
        return client.submit(lambda _, x: x + 1, file, 5, key="k")


@pytest.mark.parametrize(
    "other",
    [
        lambda client: client.submit(inc, 5, key="k", pure=False),
        submit_an_open_file,
        lambda client: client.map(inc, [5], key=["k"], pure=False)[0],
        lambda client: client.map(inc, (5,), key=["k"], batch_size=1)[0],
    ],
)
@pytest.mark.filterwarnings("ignore::coffea_dirac.cache.CacheWarning")
def test_a_key_that_is_given_to_something_else_stands_for_that(cluster, tmp_path, other):
    with DiracClient(cluster, cache=tmp_path) as client:
        for make, found in ((lambda client: client.submit(inc, 1, key="k"), 3), (other, 7)):
            one = make(client)
            assert client.submit(inc, one, key=f"next {found}").result() == found
            forgotten(client, one)


@pytest.mark.filterwarnings("ignore::coffea_dirac.cache.CacheWarning")
def test_what_the_cluster_holds_under_a_key_stays_what_it_is(cluster, tmp_path):
    with DiracClient(cluster, cache=tmp_path) as client:
        held = client.get({"k": (inc, 1)}, "k", sync=False)
        assert client.get({"k": (inc, 5)}, "k") == 2  # dask computes nothing anew under a key that it has
        assert client.submit(inc, held, key="next").result() == 3
        forgotten(client, held)
    for _ in range(2):
        with DiracClient(cluster, cache=tmp_path) as client:
            assert client.submit(inc, client.submit(inc, 5)).result() == 7


def test_an_asynchronous_client_loads_what_it_has_kept(tmp_path):
    before = dask.base.compute, getattr(dask.base, "collections_to_dsk", None)

    async def work(client):
        one = client.scatter(4, hash=False)
        found = [await client.submit(inc, await one), await client.gather(client.map(add, [1, 2], [30, 40]))]
        found.append(int(await client.compute(da.arange(6, chunks=2).sum())))
        return [*found, await client.get({"x": (inc, 5)}, "x", sync=False)]

    async def session(*, by_close):
        client = DiracClient(processes=False, n_workers=1, dashboard_address=":0", asynchronous=True, cache=tmp_path)
        if by_close:
            await client
            found = await work(client)
            await client.close()
        else:
            async with client:
                found = await work(client)
        return found, client.cache.report.counts

    found = [asyncio.run(session(by_close=by_close)) for by_close in (True, False, True)]
    assert [result for result, _ in found] == [[5, [31, 42], 15, 6]] * 3
    assert [counts["loaded"] for _, counts in found] == [0, 5, 5]
    assert before == (dask.base.compute, getattr(dask.base, "collections_to_dsk", None))


def test_a_file_with_a_computed_name_is_seen_through_futures(cluster, tmp_path):
    path = tmp_path / "cuts.txt"

    def work(client):
        read = client.submit(_first_line, str(tmp_path), "cuts")
        return client.submit(inc, read).result()

    path.write_text("20")
    # What inc() is made of is known only when the future is done: the first time it may be kept without that.
    results, counts = zip(*(counted(cluster, tmp_path / "cache", work) for _ in range(3)), strict=True)
    assert results == (21, 21, 21)
    assert counts[0]["computed"] == 2 and counts[1]["loaded"] >= 1 and counts[2]["loaded"] == 2
    path.write_text("30")
    assert counted(cluster, tmp_path / "cache", work) == (31, {"loaded": 0, "computed": 2, "cut": 0})
    path.write_text("20")
    assert counted(cluster, tmp_path / "cache", work)[0] == 21


def _first_line(folder, name):
    return int(Path(folder, "".join((name, ".txt"))).read_text())
