"""What, besides the code, decides how numbers are rounded: this Python, this kind of processor, what is installed."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from pathlib import Path


@functools.cache
def environment() -> str:
    """Return a line that is the same wherever results are the same to the bit; records carry it.

    In words come Python and the machine; the digits at the end stand for them, for the instructions that numpy finds
    this processor to have, and for all that is installed, with versions.

    Examples
    --------
    >>> environment().startswith(f"Python {platform.python_version()}, ")
    True
    """
    import numpy as np

    shown = f"{platform.python_implementation().replace('CPython', 'Python')} {platform.python_version()}"
    shown += f", {platform.system()} {platform.machine()}"
    found = np.show_config(mode="dicts") or {}
    parts = [shown, str(found.get("SIMD Extensions")), *_installed()]
    return f"{shown}, {hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"


def _installed() -> list[str]:
    """Return the installed distributions as ``name-version``; their folders are named so."""
    folders = [Path(entry or ".") for entry in sys.path]
    return sorted({info.stem for folder in folders if folder.is_dir() for info in folder.glob("*.dist-info")})
