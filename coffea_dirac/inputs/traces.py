"""Tells catalogs which datasets are read, so that what is popular is put where it is read fast.

One word for each dataset and run, by a thread of its own: an analysis does not wait for it, and does not fail by it.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterable

END_S = 5.0
"""So long the end of the process waits for what is on its way."""
_logger = logging.getLogger(__name__)
_dids: dict[str, set[str]] = {}
_tell: dict[str, Callable[[str], None]] = {}


def expect(did: str, filenames: Iterable[str], tell: Callable[[str], None]) -> None:
    """Take notice of whom to tell when files of a did are read."""
    for name in filenames:
        _dids.setdefault(name, set()).add(did)
    _tell[did] = tell


def send(filenames: Iterable[str]) -> threading.Thread | None:
    """Tell that files are read, in the background; return who does."""
    dids = {did for name in filenames for did in _dids.get(name, ())}
    if not dids:
        return None
    thread = threading.Thread(target=_send, args=(sorted(dids),), name="coffea_dirac traces", daemon=True)
    thread.start()
    atexit.register(thread.join, END_S)
    return thread


def _send(dids: Iterable[str]) -> None:
    for did in dids:
        try:
            _tell[did](did)
        except Exception as error:  # noqa: BLE001 - whoever wants to know may be down in any way
            _logger.info("nobody could be told that %s is read: %s", did, error)
