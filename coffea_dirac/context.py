"""Context variables for the length of a block."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Generic, TypeVar

Value = TypeVar("Value")


class let(AbstractContextManager[None], Generic[Value]):  # noqa: N801 - read as a statement, as contextlib's are
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

    # Each task of a graph opens several: a class costs a third of what a generator does.
    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[Value], value: Value) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        self._token: Token[Value] = self._variable.set(self._value)

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)
