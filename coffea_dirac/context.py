"""Context variables for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")


@contextmanager
def let(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """Let a variable have a value inside the ``with`` block.

    Examples
    --------
    >>> depth = ContextVar("depth", default=0)
    >>> with let(depth, 1):
    ...     depth.get()
    1
    >>> depth.get()
    0
    """
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
