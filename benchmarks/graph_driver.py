"""One measurement of a dask graph, in a process of its own: ``python graph_driver.py WHO CACHE TASKS WHAT``.

WHO is ``ours``, ``all`` (ours, keeping every task), ``plain``, ``graphchain`` or ``dask-dirac``.  WHAT is ``plan``:
until a scheduler is asked, or ``run``: until the result is there.  It prints wall and processor time of this process in
seconds.  It imports nothing of this package unless asked to: peers run it in an environment of their own.
"""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from typing import Any

import dask
import pandas as pd
from dask.delayed import delayed


def part(number: int) -> pd.DataFrame:
    """Return a small result; the only kind that dask-dirac keeps."""
    return pd.DataFrame({"x": [number]})


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a small result made of another."""
    return frame * 2


def total(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the merged result."""
    return pd.DataFrame({"x": [sum(int(frame["x"].iloc[0]) for frame in frames)]})


def graph(tasks: int) -> Any:
    """Return a graph of so many tasks, merged into one result."""
    lazy_part, lazy_twice = delayed(part, pure=False), delayed(twice, pure=False)
    parts = [lazy_twice(lazy_part(n, dask_key_name=f"part-{n}"), dask_key_name=f"twice-{n}") for n in range(tasks // 2)]
    return delayed(total)(parts, dask_key_name="total")


class Asked(Exception):  # noqa: N818 - nothing is wrong
    """The scheduler was asked."""


def never(dsk: Any, keys: Any, **_: Any) -> Any:
    """Stand for a scheduler, to see how long it takes until it is asked."""
    raise Asked


@contextlib.contextmanager
def way(who: str, cache: str) -> Any:
    """Let ``compute`` go the way of ours or of a peer."""
    if who in ("ours", "all"):
        from coffea_dirac import StageCache

        with StageCache(cache, policy="all" if who == "all" else "marked"):
            yield "sync"
    elif who == "graphchain":
        import graphchain

        with dask.config.set(delayed_optimize=partial(graphchain.optimize, location=cache)):
            yield "sync"
    elif who == "dask-dirac":
        from dask_dirac import DiracClient

        with DiracClient(n_workers=1, threads_per_worker=1, dashboard_address=None, cache_location=f"file://{cache}"):
            yield None
    else:
        yield "sync"


def main() -> None:
    """Measure and print."""
    who, cache, tasks, what = sys.argv[1:]
    made = graph(int(tasks))
    with way(who, cache) as scheduler:
        if who in ("ours", "all"):
            delayed(int)(1).compute(scheduler="sync")  # imports
        wall, cpu = time.perf_counter(), time.process_time()
        with contextlib.suppress(Asked):
            made.compute(scheduler=never if what == "plan" else scheduler)
        print("SPENT", time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    main()
