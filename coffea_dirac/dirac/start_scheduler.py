"""The job script of a cluster's scheduler: ``python start_scheduler.py FILE HOST PORT``.

It listens at HOST and PORT and writes its address to FILE once it answers.  It imports neither coffea nor bokeh, and
holds no token and no key.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

SETTINGS = {
    # We blame workers and sites, not tasks: a task that was on a worker that died is innocent ten times.
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.http.routes": [],
    "distributed.comm.timeouts.connect": "10s",
    "distributed.diagnostics.nvml": False,
}


PREFIX = "coffea_dirac-"
"""How the keys of our own runs begin."""
MEMORY_TOPIC = "coffea_dirac-memory"
"""Where a worker says that it ends because it uses too much memory."""
ATTEMPT = "coffea_dirac_attempt"
"""The annotation by which a worker knows whether a task of ours is sent for the ``first`` time or ``again``."""


def is_bundle(key: Any) -> bool:
    """Whether a dask key is that of a call of one of our runs.

    Examples
    --------
    >>> is_bundle("coffea_dirac-0123456789ab-17"), is_bundle("coffea_dirac-0123456789ab-shared"), is_bundle("sum-1")
    (True, False, False)
    """
    return isinstance(key, str) and key.startswith(PREFIX) and key.rpartition("-")[2].isdecimal()


def add_teller(dask_scheduler: Any) -> None:
    """Let the first death of a worker under a task of ours be told, not made good in silence.

    Our runs count deaths by work item, and send what was lost again themselves (`coffea_dirac.running.blame`).  Other
    tasks on the same cluster keep the failures that the scheduler allows.  What the scheduler does send again (the
    result got lost, the worker was retired) says so: then the store has what the first attempt kept.
    """
    from distributed.diagnostics.plugin import SchedulerPlugin

    class TellDeaths(SchedulerPlugin):  # type: ignore[misc]
        def update_graph(self, scheduler: Any, *, tasks: Iterable[Any], **_: Any) -> None:
            for key in filter(is_bundle, tasks):
                task = scheduler.tasks[key]
                # As if it had used up its allowed failures already.
                task.suspicious = scheduler.allowed_failures
                task.annotations = {**(task.annotations or {}), ATTEMPT: "first"}

        def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
            is_lost = start in ("processing", "memory") and finish in ("released", "waiting")
            if is_lost and is_bundle(key) and (task := dask_scheduler.tasks.get(key)):
                task.annotations = {**(task.annotations or {}), ATTEMPT: "again"}

    dask_scheduler.add_plugin(TellDeaths(), name=f"{PREFIX}tell-deaths", idempotent=True)


@contextmanager
def quick_versions() -> Iterator[None]:
    """Let dask tell the versions of packages without importing them.

    Newer dask does so itself.  Older ones import pandas, in the scheduler too, for its version: a second or more each.

    Examples
    --------
    >>> import distributed.versions
    >>> with quick_versions():
    ...     packages = distributed.versions.get_versions()["packages"]
    >>> packages["distributed"] == distributed.__version__
    True
    """
    import distributed.versions

    versions: Any = distributed.versions
    original = versions.get_package_info
    if hasattr(versions, "version_of_package"):
        versions.get_package_info = _package_info
    try:
        yield
    finally:
        versions.get_package_info = original


def _package_info(packages: Iterable[Any]) -> dict[str, str | None]:
    names = [package if isinstance(package, str) else package[0] for package in packages]
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info))}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def add_demand(dask_scheduler: Any) -> None:
    """Let the scheduler say what its tasks ask for, and how long each worker has been idle."""
    idle_since: dict[str, float] = {}

    def demand() -> dict[str, Any]:
        now, tasks, busy = time.monotonic(), Counter[str](), {}
        for task in dask_scheduler.tasks.values():
            if task.state in ("queued", "processing", "no-worker"):
                tasks[json.dumps(task.resource_restrictions or {}, sort_keys=True)] += 1
        for worker in dask_scheduler.workers.values():
            busy[worker.name] = len(worker.processing)
            if worker.processing:
                idle_since.pop(worker.name, None)
            else:
                idle_since.setdefault(worker.name, now)
        for name in set(idle_since) - set(busy):
            del idle_since[name]
        return {"tasks": dict(tasks), "busy": busy, "idle_s": {name: now - then for name, then in idle_since.items()}}

    dask_scheduler.handlers["coffea_dirac_demand"] = demand


def add_usage(dask_scheduler: Any) -> None:
    """Let the scheduler say how much processor time each worker has used, in seconds, as of its last heartbeat."""

    def usage() -> dict[str, float]:
        return {str(worker.name): worker.metrics.get("cpu_s", 0.0) for worker in dask_scheduler.workers.values()}

    dask_scheduler.handlers["coffea_dirac_usage"] = usage


async def serve(contact: str, host: str, port: int) -> None:
    """Run a scheduler until it is told to end.

    Parameters
    ----------
    contact : str
        The file that gets the address.
    host : str
        The address at which it listens.
    port : int
        The port at which it does; 0 for any that is free.
    """
    from distributed import Scheduler

    check_place(host, port)
    with quick_versions():
        async with Scheduler(host=host, port=port, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
            add_teller(scheduler)
            add_demand(scheduler)
            add_usage(scheduler)
            write_contact(contact, scheduler.address)
            await scheduler.finished()


def check_place(host: str, port: int) -> None:
    """End this process, saying why, if nothing can listen there: dask would tell it in a long traceback.

    Examples
    --------
    >>> check_place("127.0.0.1", 0)
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # As dask does: a port that was in use a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            why = {
                errno.EADDRINUSE: f"port {port} is in use: choose another, as in transport='tcp://{host}:{port + 1}'",
                errno.EADDRNOTAVAIL: f"{host} is none of this machine's addresses: see `ip address`",
            }
            raise SystemExit(f"cannot listen at tcp://{host}:{port}: {why.get(error.errno or 0, error)}") from None


def write_contact(contact: str, address: str) -> None:
    """Write the address beside its file, then rename: a reader sees all of it or nothing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_contact(folder + "/contact", "tcp://127.0.0.1:8786")
    ...     print(open(folder + "/contact").read())
    tcp://127.0.0.1:8786
    """
    with open(f"{contact}.partial", "w") as file:
        file.write(address)
    os.replace(f"{contact}.partial", contact)


if __name__ == "__main__":
    import dask.config

    with dask.config.set(SETTINGS):
        asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
