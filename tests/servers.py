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


SERVERS: dict[str, Callable[[], str]] = {"diracx": diracx}
"""Name -> a function that returns why this machine cannot start it; nothing if it can."""


@cache
def why_missing(name: str) -> str:
    """Return why a server cannot be started here, or nothing."""
    return SERVERS[name]()


def must_be_there() -> bool:
    """Whether a missing server is a failure: where everything can be installed, nothing may be left out in silence."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()
