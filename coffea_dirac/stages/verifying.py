"""Verifying: a part of what is found in the cache is computed again and compared with what was kept."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

from coffea_dirac.codecs.closeness import first_difference
from coffea_dirac.environment import environment
from coffea_dirac.errors import ConfigurationError, VerificationError
from coffea_dirac.interfaces import Json

TOLERANCE = 1e-9
ENVIRONMENT_VARIABLE = "COFFEA_DIRAC_VERIFY"
# Of its own, and not seeded: what user code does with random numbers is not disturbed, and each run takes others.
_CHANCE = random.SystemRandom()


@dataclass(frozen=True)
class Verification:
    """How much of what is found is verified, and how exactly.

    Parameters
    ----------
    fraction : float
        0: nothing, 1: everything.
    tolerance : float
        How far floating-point numbers may differ, in parts of the largest of their array, if a record was made in
        another environment; made in this one it must be the same to the bit.

    Examples
    --------
    >>> Verification(1.0).picks(), Verification().picks()
    (True, False)
    """

    fraction: float = 0.0
    tolerance: float = TOLERANCE

    def picks(self) -> bool:
        """Whether the next one found is to be verified."""
        return self.fraction > 0 and _CHANCE.random() < self.fraction

    def compare(self, what: str, info: Mapping[str, Json], kept: bytes, computed: bytes) -> None:
        """Compare two payloads of a result.

        Raises
        ------
        VerificationError
            They differ.
        """
        made_in = str(info.get("environment", "")) or "an environment that was not noted"
        is_same = made_in == environment()
        difference = first_difference(kept, computed, tolerance=0.0 if is_same else self.tolerance)
        if difference:
            how = "in the same environment" if is_same else f"here ({environment()}) and in {made_in}"
            allowed = (
                "" if is_same else f", which is more than the tolerance of {self.tolerance:g} between environments"
            )
            raise VerificationError(
                f"{what} was computed again, and is not what the cache has: kept and computed {how}, "
                f"{difference}{allowed}. Usual causes: random numbers without a seed, the time or the date, something "
                "of the environment that no fingerprint sees (environment variables, a web page, a file opened in C++ "
                "by a computed name). Mend it; what was kept so far is then a miss, since the code is new. "
                "@stage(version=...) makes it one where the code stays"
            )


NEVER = Verification()


def verification_of(fraction: float | None, tolerance: float) -> Verification:
    """Return what is asked for by arguments, or else by ``COFFEA_DIRAC_VERIFY``.

    Raises
    ------
    ConfigurationError
        It is no part, or no tolerance.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE) if fraction is None else None
    given = fraction if named is None else named
    try:
        found = Verification(float(given or 0), float(tolerance))
        if 0 <= found.fraction <= 1 and found.tolerance >= 0:
            return found
    except (TypeError, ValueError):
        pass
    name = "verify" if named is None else ENVIRONMENT_VARIABLE
    raise ConfigurationError(
        f"{name} is {given!r} and tolerance {tolerance!r}: verify=0.05 computes one in twenty results again, and "
        "tolerance=1e-9 is how far they may differ if they come from another environment"
    )


def shown(stage: str, info: Mapping[str, Json]) -> str:
    """Return how a result is named: its stage and, if it belongs to one, the work item.

    Examples
    --------
    >>> shown("select", {"file": "nano.root", "start": 0, "stop": 10})
    'select of nano.root, entries 0 to 10'
    """
    if not info.get("file"):
        return stage
    entries = f", entries {info['start']} to {info['stop']}" if "stop" in info else ""
    return f"{stage} of {info['file']}{entries}"
