"""Calls that travel sealed: a scheduler hands them on without importing what is in them.

dask's scheduler unpickles every task that it is given, and with it imports the modules of its function and arguments:
coffea, for ours, which takes longer than all else that a scheduler does.  So what it gets is bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import cloudpickle

from coffea_dirac.context import let
from coffea_dirac.dirac.start_scheduler import ATTEMPT

is_wanted: ContextVar[Callable[[], bool]] = ContextVar("coffea_dirac_is_wanted", default=lambda: True)
"""Tells a bundle between two work items whether somebody still waits for it."""
may_be_again: ContextVar[bool] = ContextVar("coffea_dirac_may_be_again", default=False)
"""Tells a bundle whether it may have been at a worker before: then the store may have a part of it."""


def sealed(*values: Any) -> bytes:
    """Return values as bytes; `opened` undoes it.

    Examples
    --------
    >>> opened(sealed(sum, [1, 2]))
    (<built-in function sum>, [1, 2])
    """
    data: bytes = cloudpickle.dumps(values)
    return data


def opened(data: bytes) -> tuple[Any, ...]:
    """Return what was `sealed`."""
    values: tuple[Any, ...] = pickle.loads(data)  # noqa: S301 - from the submitter, as every dask task
    return values


def run_sealed(shared: tuple[Any, ...], call: bytes, *, is_resent: bool = False) -> tuple[str, Any]:
    """Run a sealed (function, arguments) as a dask task that can see whether its result is still wanted.

    Returns
    -------
    (str, object)
        The address of this worker, and what the function returned.

    Parameters
    ----------
    shared : tuple
        The first argument of the function, alone in a tuple.
    is_resent : bool
        The submitter has sent the same call before.
    """
    from distributed import get_worker
    from distributed.worker import thread_state

    worker, key = get_worker(), thread_state.key

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    task = worker.state.tasks.get(key)
    # A scheduler without our plug-in does not say that it is the first time.
    is_first = task is not None and (task.annotations or {}).get(ATTEMPT) == "first"
    function, arguments = opened(call)
    with let(is_wanted, wanted), let(may_be_again, is_resent or not is_first):
        return worker.address, function(*shared, *arguments)
