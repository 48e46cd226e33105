"""Whether a worker at a site has the versions of its submitter, as far as they must understand each other.

dask's processes must be of one version, code travels between Pythons of one minor version only, and results of other
versions of these packages would not be taken: a worker that differs says so and does not join.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

EXACT = ("dask", "distributed")
"""What speaks to each other."""
MINOR = ("python", "cloudpickle", "coffea", "awkward", "uproot", "numpy")
"""What code and results are made of; an exact difference that counts is found when the code is compared."""


def versions() -> dict[str, str]:
    """Return the versions of this process, by package; packages that are not installed are left out.

    Examples
    --------
    >>> versions()["python"] == platform.python_version()
    True
    """
    found = {"python": platform.python_version()}
    for name in (*EXACT, *MINOR[1:]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def skew(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return in what a worker differs from its submitter; nothing if they fit.

    Parameters
    ----------
    here, there : mapping
        What `versions` says at the worker and at the submitter.

    Examples
    --------
    >>> skew({"python": "3.11.2", "dask": "2025.3.0"}, {"python": "3.12.1", "dask": "2025.3.0"})
    'python 3.11.2 here, 3.12.1 there'
    >>> skew({"python": "3.11.2", "numpy": "2.1.0"}, {"python": "3.11.9", "numpy": "2.1.3"})
    ''
    """
    return "; ".join(
        f"{name} {here.get(name, 'missing')} here, {version} there"
        for name, version in there.items()
        if not _fits(name, here.get(name, ""), version)
    )


def _fits(name: str, here: str, there: str) -> bool:
    parts = None if name in EXACT else 2
    return here.split(".")[:parts] == there.split(".")[:parts]
