"""Paired measurements: A and B in turn, so that a machine that gets slower meanwhile slows both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Pairs:
    """Seconds of A and B, pair by pair.

    Examples
    --------
    >>> pairs = Pairs((1.0, 2.0, 3.0), (2.0, 2.0, 2.0))
    >>> pairs.ratio, pairs.difference_s
    (1.0, 0.0)
    """

    a: Sequence[float]
    b: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios A / B."""
        return median(a / b for a, b in zip(self.a, self.b, strict=True))

    @property
    def ratios(self) -> list[float]:
        """The ratio A / B of each pair."""
        return [a / b for a, b in zip(self.a, self.b, strict=True)]

    @property
    def difference_s(self) -> float:
        """The median of the pairs' differences A - B."""
        return median(a - b for a, b in zip(self.a, self.b, strict=True))


def interleave(a: Callable[[], float], b: Callable[[], float], *, pairs: int) -> Pairs:
    """Measure A B A B ..., after one of each that does not count (it fills caches that both use)."""
    a()
    b()
    found = [(a(), b()) for _ in range(pairs)]
    return Pairs(*zip(*found, strict=True))


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, the numbers, and the target."""

    what: str
    ours: str
    peer: str
    compared: str
    target: str
    holds: bool
