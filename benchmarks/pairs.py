"""Measurements in turn: A B A B ..., so that a machine that gets slower meanwhile slows all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple


class Spent(NamedTuple):
    """What one measurement took: wall time, processor time of all processes, and the machine's load then."""

    wall_s: float
    cpu_s: float = 0.0
    load: float = 0.0


class Range(NamedTuple):
    """The smallest, the middle and the largest of some numbers.

    Examples
    --------
    >>> print(Range.of([3.0, 1.0, 2.0]))
    1.00 / 2.00 / 3.00
    """

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Range:
        """Return the range of at least one number."""
        return cls(min(numbers), median(numbers), max(numbers))

    def __str__(self) -> str:
        return " / ".join(f"{number:.2f}" for number in self)


class Point(NamedTuple):
    """One point of the plot: the seconds that a number of work items took."""

    series: str
    items: int
    seconds: float


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, the numbers, and the target."""

    what: str
    ours: str
    peer: str
    compared: str
    target: str
    holds: bool
    points: Sequence[Point] = field(default=(), repr=False)


class Stopwatch:
    """What has been spent since it was made.

    Examples
    --------
    >>> Stopwatch().spent().wall_s < 1
    True
    """

    def __init__(self) -> None:
        self._cpu_s, self._started = cpu_s(), time.perf_counter()

    def spent(self) -> Spent:
        """Return what has been spent so far."""
        wall_s = time.perf_counter() - self._started
        return Spent(wall_s, cpu_s() - self._cpu_s, os.getloadavg()[0])


def cpu_s() -> float:
    """Return the processor time of this process and of all below it, those that have ended included."""
    import psutil

    total = 0.0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def take_turns(
    measures: Mapping[str, Callable[[], Spent]], *, rounds: int, first_counts: bool = False
) -> dict[str, list[Spent]]:
    """Measure A B C A B C ...; unless told otherwise after a first round that does not count: it fills caches."""
    if not first_counts:
        for measure in measures.values():
            measure()
    found: dict[str, list[Spent]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def ratios(ours: Sequence[Spent], theirs: Sequence[Spent]) -> Range:
    """Return the range of the ratios of wall time, round by round.

    Examples
    --------
    >>> print(ratios([Spent(1.0), Spent(2.0), Spent(3.0)], [Spent(2.0)] * 3))
    0.50 / 1.00 / 1.50
    """
    return Range.of([a.wall_s / b.wall_s for a, b in zip(ours, theirs, strict=True)])


def cpu_ratios(ours: Sequence[Spent], theirs: Sequence[Spent]) -> Range:
    """Return the range of the ratios of processor time, round by round."""
    return Range.of([a.cpu_s / max(b.cpu_s, 1e-9) for a, b in zip(ours, theirs, strict=True)])


def paired(what: str, ours: Sequence[Spent], theirs: Sequence[Spent], peer: str, target: float) -> Line:
    """Return the line of two that took turns: seconds of both, ratios, and a target for the middle one."""
    against, cpu = ratios(ours, theirs), cpu_ratios(ours, theirs)
    return Line(
        what,
        seconds(ours),
        f"{seconds(theirs)} {peer}",
        f"ratio {against}, of CPU {cpu}; {len(ours)} rounds",
        f"at most {target:g}",
        against.median <= target,
    )


def wall(spent: Sequence[Spent]) -> float:
    """Return the middle wall time."""
    return median(s.wall_s for s in spent)


def seconds(spent: Sequence[Spent]) -> str:
    """Return the middle wall time, and in brackets processor time, as text.

    Examples
    --------
    >>> seconds([Spent(1.0, 2.0)])
    '1.00 s (CPU 2.00 s)'
    """
    return f"{wall(spent):.2f} s (CPU {median(s.cpu_s for s in spent):.2f} s)"


class Loads:
    """The loads of the machine that were seen."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note the load before and after the block."""
        self.seen.append(os.getloadavg()[0])
        yield
        self.seen.append(os.getloadavg()[0])
