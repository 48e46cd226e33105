"""The job script of one dask worker: ``python -m coffea_dirac.dirac.start_worker FILE``, options in a JSON file.

Importing takes longer than everything else together, so a worker starts while the scheduler does, imports what its
tasks will need, and only then asks where the scheduler is.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from coffea_dirac.dirac.skew import skew, versions
from coffea_dirac.dirac.start_scheduler import MEMORY_TOPIC, quick_versions

SETTINGS = {
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.comm.timeouts.connect": "10s",
    "distributed.diagnostics.nvml": False,
}


def import_early(modules: Sequence[str]) -> None:
    """Import what tasks will need; a module that cannot be imported is left to the task that asks for it."""
    # Imports make many objects and no garbage: collecting in between costs a tenth of the time.
    gc.disable()
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    gc.freeze()
    gc.enable()


def move_to(directory: str, path: Sequence[str]) -> None:
    """Go to the submitter's directory and search its places for modules, as far as they exist here."""
    if os.path.isdir(directory):
        os.chdir(directory)
    places = [place or directory for place in path]
    sys.path.extend(place for place in places if place not in sys.path and os.path.exists(place))


def wait_for_address(contact: str, timeout_s: float) -> str:
    """Return the scheduler's address once its file is there.

    Raises
    ------
    TimeoutError
        It did not appear in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            return Path(contact).read_text()
        time.sleep(0.01)
    raise TimeoutError(f"No scheduler within {timeout_s:.0f} s ({contact} was not written): has it failed to start?")


MEMORY_FULL = 0.95
MEMORY_CHECK_S = 0.1


async def end_when_full(worker: Any, memory_limit: int) -> None:
    """End this process before the machine has to choose one: what it did is known, and its task is sent again.

    dask's own limits spill and pause instead, which for a task that needs the memory means waiting for ever.
    """
    import psutil

    process = psutil.Process()
    while memory_limit:
        await asyncio.sleep(MEMORY_CHECK_S)
        memory = process.memory_info().rss
        if memory > MEMORY_FULL * memory_limit:
            event = {"worker": worker.address, "memory": memory, "memory_limit": memory_limit}
            worker.log_event(MEMORY_TOPIC, event)
            print(f"out of memory: {memory:,} of {memory_limit:,} bytes are in use", flush=True)  # noqa: T201 - its log
            # The event leaves with the next batch.
            await asyncio.sleep(MEMORY_CHECK_S)
            os._exit(1)


async def serve(options: dict[str, Any], name: str, lifetime_s: float) -> str:
    """Run a worker until the scheduler lets it go or is gone, or its time is over, and return why it ended."""
    from distributed import Worker

    class OurWorker(Worker):  # type: ignore[misc]
        why = ""

        async def close(self, *args: Any, reason: str = "worker-close", **kwargs: Any) -> Any:
            self.why = self.why or reason
            return await super().close(*args, reason=reason, **kwargs)

    address = options["address"] or wait_for_address(options["contact"], options["timeout_s"])
    site = os.environ.get("DIRACSITE", "")
    settings = {
        "name": name,
        "nthreads": options["nthreads"],
        "resources": options["resources"],
        "host": options["host"] or None,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": options["memory_limit"],
        "local_directory": options["session"],
        "death_timeout": options["timeout_s"],
        "lifetime": lifetime_s or None,
        "metrics": {"cpu_s": lambda _: time.process_time()},
        "startup_information": {
            "site": lambda _: site,
            "group": lambda _: options["group"],
            "python": lambda _: platform.python_version(),
        },
    }
    with quick_versions():
        async with OurWorker(address, **settings) as worker:
            watch = asyncio.create_task(end_when_full(worker, options["memory_limit"]))
            await worker.finished()
            watch.cancel()
            return str(worker.why)


LOST = "worker-handle-scheduler-connection-broken"


def run(options: dict[str, Any], name: str) -> None:
    """Run a worker, and another one when that has lost its scheduler and finds it again: a job outlives a blip.

    It comes back under a new name, as dask asks; what it had in hand is computed elsewhere.
    """
    end_s = time.monotonic() + options["lifetime_s"]
    why, again = asyncio.run(serve(options, name, options["lifetime_s"])), 0
    while why == LOST and options["blip_s"] and time.monotonic() < end_s:
        again += 1
        tries = {**options, "timeout_s": options["blip_s"]}
        print(f"lost the scheduler; trying to come back for {options['blip_s']:.0f} s", flush=True)  # noqa: T201 - its log
        try:
            why = asyncio.run(serve(tries, f"{name}~{again}", max(1.0, end_s - time.monotonic())))
        except (OSError, TimeoutError):
            print("the scheduler has gone", flush=True)  # noqa: T201
            return


def main(file: str) -> None:
    """Start the worker that a JSON file describes."""
    options = json.loads(Path(file).read_text())
    options["session"] = os.getcwd()
    move_to(options["directory"], options["path"])
    import_early(options["imports"])
    try:
        import dask.config
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"coffea_dirac: {sys.executable} on {platform.node()} has no module {error.name}; a worker needs the "
            "packages of the submitter: DiracCluster(environment=...), or setup='pip install ...'"
        ) from None
    if differs := skew(versions(), options["versions"]):
        raise SystemExit(
            f"coffea_dirac: {sys.executable} on {platform.node()} has other versions than the submitter: {differs}. "
            "Make both the same: DiracCluster(environment=...), or setup='pip install ...'"
        )
    with dask.config.set(SETTINGS):
        run(options, os.environ["COFFEA_DIRAC_JOB"])


if __name__ == "__main__":
    main(sys.argv[1])
