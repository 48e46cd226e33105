"""The servers that tests talk to, by name: what each needs that may be missing here.

A test or a file of tests says ``pytestmark = pytest.mark.needs("diracx")``.  Another server is another line in `SERVERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def diracx() -> str:
    """Return why there is no DiracX server here, or nothing."""
    if (ROOT / ".venv-diracx" / "bin" / "uvicorn").exists():
        return ""
    return "its environment .venv-diracx is missing: scripts/set-up .venv-diracx requirements/diracx.lock makes it"


def xrootd() -> str:
    """Return why there is no XRootD server here, or nothing."""
    from coffea_dirac.grid.storage import why_no_server

    if why := why_no_server():
        return f"{why}; scripts/set-up-xrootd does so"
    return ""


def s3() -> str:
    """Return why there is no S3 service here, or nothing."""
    # moto is in the environment of the DiracX server, which keeps its sandboxes in S3.
    return diracx()


def rucio() -> str:
    """Return why there is no Rucio server here, or nothing."""
    if (ROOT / ".venv-rucio" / "bin" / "gunicorn").exists():
        return ""
    return "its environment .venv-rucio is missing: scripts/set-up .venv-rucio requirements/rucio-server.lock makes it"


SERVERS: dict[str, Callable[[], str]] = {"diracx": diracx, "rucio": rucio, "s3": s3, "xrootd": xrootd}
"""Name -> a function that returns why this machine cannot start it; nothing if it can."""


@cache
def why_missing(name: str) -> str:
    """Return why a server cannot be started here, or nothing."""
    return SERVERS[name]()


def must_be_there() -> bool:
    """Whether a missing server is a failure: where everything can be installed, nothing may be left out in silence."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()
