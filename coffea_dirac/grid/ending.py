"""When what a supervisor holds shall end.  Also read in a server's own environment, so it needs nothing."""

from __future__ import annotations

import os


def has_ended(process: int | None) -> bool:
    """Return whether a process has ended, by its id; without an id there is nothing to end with.

    Examples
    --------
    >>> has_ended(os.getpid()), has_ended(None)
    (False, False)
    """
    if process:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
    return False
