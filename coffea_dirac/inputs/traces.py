"""Tells catalogs which datasets are read and which replicas are damaged, so that both are looked after.

One word for each dataset and run, by a thread of its own: an analysis does not wait for it, and does not fail by it.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterable

from coffea_dirac.inputs import lake
from coffea_dirac.inputs.health import Damage
from coffea_dirac.interfaces import Catalog

END_S = 5.0
"""So long the end of the process waits for what is on its way."""
_logger = logging.getLogger(__name__)
_dids: dict[str, set[str]] = {}
_catalogs: dict[str, Catalog] = {}


def expect(did: str, filenames: Iterable[str], catalog: Catalog) -> None:
    """Take notice of whom to tell of files of a did."""
    for name in filenames:
        _dids.setdefault(name, set()).add(did)
    _catalogs[did] = catalog


def send(filenames: Iterable[str]) -> threading.Thread | None:
    """Tell that files are read, in the background; return who does."""
    dids = {did for name in filenames for did in _dids.get(name, ())}
    if not dids:
        return None

    def touch_all() -> None:
        for did in sorted(dids):
            _told(_catalogs[did].touch, did)

    return _in_background(touch_all)


def declare(damages: Iterable[Damage]) -> threading.Thread | None:
    """Tell of replicas that were taken for damaged, after a look at size and checksum, in the background."""
    by_pfn = {replica.pfn: replica for replica, _ in damages}
    if not by_pfn:
        return None

    def declare_all() -> None:
        for pfn, replica in by_pfn.items():
            dids = sorted(_dids.get(lake.PREFIX + replica.lfn, ()))
            # A work item that could not decode something is no proof.
            if dids and (why := lake.proven(replica)):
                _told(_catalogs[dids[0]].suspect, pfn, why)

    thread = _in_background(declare_all)
    # Seldom, and at the end of the process file systems can do no more.
    thread.join(END_S)
    return thread


def _in_background(step: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - a storage may be down in any way
            _logger.info("nobody could be told: %s", error)

    thread = threading.Thread(target=quietly, name="coffea_dirac traces", daemon=True)
    thread.start()
    atexit.register(thread.join, END_S)
    return thread


def _told(tell: Callable[..., None], *what: str) -> None:
    try:
        tell(*what)
    except Exception as error:  # noqa: BLE001 - whoever wants to know may be down in any way
        _logger.info("nobody could be told of %s: %s", what[0], error)
