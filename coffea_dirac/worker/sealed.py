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

is_wanted: ContextVar[Callable[[], bool]] = ContextVar("coffea_dirac_is_wanted", default=lambda: True)
"""Tells a bundle between two work items whether somebody still waits for it."""


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


def run_sealed(shared: tuple[Any, ...], call: bytes) -> tuple[str, Any]:
    """Run a sealed (function, arguments) as a dask task that can see whether its result is still wanted.

    Returns
    -------
    (str, object)
        The address of this worker, and what the function returned.

    Parameters
    ----------
    shared : tuple
        The first argument of the function, alone in a tuple.
    """
    from distributed import get_worker
    from distributed.worker import thread_state

    worker, key = get_worker(), thread_state.key

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    function, arguments = opened(call)
    with let(is_wanted, wanted):
        return worker.address, function(*shared, *arguments)
