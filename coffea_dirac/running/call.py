"""What goes to workers and what comes back: plain values between those who have work and those who have workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coffea_dirac.running.dispatch import Offer
from coffea_dirac.stages.resources import Resources


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function at a worker: ``function(shared, *arguments)``.

    `about` is the caller's own note.  `copy_of` is a call in flight that does the same and takes too long: it goes to
    another worker, and what comes first counts.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    about: Any = None
    resources: Resources = ()
    copy_of: Call | None = None

    def is_like(self, other: Call) -> bool:
        """Whether one of two calls makes the other superfluous."""
        return (self.copy_of or self) is (other.copy_of or other)


@dataclass(frozen=True)
class Lost:
    """Workers died while they had a call.

    Parameters
    ----------
    deaths : int
        How many.
    worker : str
        The address of the last.
    memory, memory_limit : int
        Bytes the last of them used when it was last heard of, and those it could use; 0 if not known.
    """

    deaths: int
    worker: str
    memory: int = 0
    memory_limit: int = 0


class Arrival(NamedTuple):
    """A call and what came of it: a result, or a `Lost`.

    `worker` is the address of the worker it came from, if there are others elsewhere that could show whether an error
    is the worker's own; else it is empty.
    """

    call: Call
    result: Any
    worker: str = ""


@dataclass(frozen=True)
class Source:
    """Where calls come from.

    Parameters
    ----------
    next_call : callable
        Offer -> the next call for it, None if there is none now; asked whenever a slot is free.  There is an end when
        it gives none and nothing is in flight.  Without slots: there is no such worker, and none came in time.
    kinds : sequence of Resources
        What calls may need, apart from nothing: workers that have it are left to them.
    waiting_for : callable
        Says what calls are waiting for now.
    distrusted : mapping
        Workers, by address, that get no calls, and why; while that is not certain, with an empty text.
    """

    next_call: Callable[[Offer], Call | None]
    kinds: Sequence[Resources] = ()
    waiting_for: Callable[[], Sequence[Resources]] = tuple
    distrusted: Mapping[str, str] = field(default_factory=dict)
