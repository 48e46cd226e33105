"""Ctrl-C at a moment when nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Let a first Ctrl-C wait for the end of the ``with`` block, a second one stop it at once.

    Results are added in place: stopped in between, a sum would hold a part of one twice or not at all.

    Examples
    --------
    >>> with deferred_interrupt():
    ...     total = sum([1, 2])
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    seen: list[tuple[int, FrameType | None]] = []

    def wait(number: int, frame: FrameType | None) -> None:
        if seen:
            usual(number, frame)
        seen.append((number, frame))

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if seen:
        usual(*seen[0])
