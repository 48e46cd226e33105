"""The data of a work item as stages see it: what it is is known at once, the file is opened when it is pulled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


class DataNeeded(BaseException):
    """``process`` asked for data outside of a stage; not an Exception, so that ``hasattr`` cannot swallow it."""


class Placeholder:
    """What ``process`` gets as ``events`` while nothing is read: metadata, the number of entries, and no data.

    Parameters
    ----------
    metadata : dict
        That of the work item.
    n_entries : int
        Its entries.
    """

    def __init__(self, metadata: dict[str, Any], n_entries: int | None = None) -> None:
        vars(self).update(metadata=metadata, _n_entries=n_entries, _was_asked=False, _was_counted=False)

    def _ask(self, what: str) -> NoReturn:
        # Noted too: code may catch even this.
        vars(self)["_was_asked"] = True
        raise DataNeeded(what)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Ask for the data: code that looks at the class wants to know what it has."""
        self._ask("its class")

    def __len__(self) -> int:
        n: int | None = vars(self)["_n_entries"]
        vars(self)["_was_counted"] = True
        return n if n is not None else self._ask("len()")

    def __getattr__(self, name: str) -> NoReturn:
        self._ask(f".{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask(f".{name} =")

    def __eq__(self, other: object) -> bool:
        self._ask("comparison")

    __hash__ = None  # type: ignore[assignment]


def was_asked(placeholder: Placeholder) -> bool:
    """Return whether data was asked for, even if nobody heard the answer."""
    return bool(vars(placeholder)["_was_asked"])


def was_counted(placeholder: Placeholder) -> bool:
    """Return whether the number of entries was asked for."""
    return bool(vars(placeholder)["_was_counted"])


def _asking(name: str) -> Callable[..., Any]:
    def operation(self: Placeholder, *_: object, **__: object) -> Any:
        self._ask(f"{name}()")

    operation.__name__ = name
    return operation


_OPERATIONS = (
    "add sub mul matmul truediv floordiv mod divmod pow and xor or radd rsub rmul rmatmul rtruediv rfloordiv rmod rpow "
    "rand rxor ror neg pos abs invert lt le gt ge ne bool iter getitem setitem delitem contains call array array_ufunc "
    "array_function repr str reduce_ex copy deepcopy dir"
)
for _name in _OPERATIONS.split():
    setattr(Placeholder, f"__{_name}__", _asking(f"__{_name}__"))


def factory_of(value: object) -> Any:
    """Return what made the events that an array was taken out of, None if it is on its own.

    By way of it the array's cross-references reach the other columns of these events.
    """
    if not any(base.__module__ == "awkward.highlevel" for base in type(value).__mro__):
        return None
    return (value.attrs or {}).get("@events_factory")  # type: ignore[attr-defined]


class ItemSource:
    """The data of one work item.

    Parameters
    ----------
    identity : str
        What enters fingerprints: H(file identity, tree, entries, schema, reader options, versions).
    opened : callable
        Returns the events; called once, when they are pulled.
    """

    def __init__(self, identity: str, opened: Callable[[], Any]) -> None:
        self.identity = identity
        self._open = opened
        self._placeholder: Placeholder | None = None
        self._events: Any = None
        self._layout: Any = None

    def opens_by(self, opened: Callable[[], Any]) -> None:
        """Take a function that returns the events, to be called when they are pulled."""
        self._open = opened

    def stands_for(self, placeholder: Placeholder) -> None:
        """Take a placeholder for the data."""
        self._placeholder = placeholder

    def take(self, events: Any) -> None:
        """Take events that are open already."""
        self._events, self._layout = events, getattr(events, "layout", None)

    def is_whole(self, value: object) -> bool:
        """Whether `value` is the data as it was handed to ``process``; what was put into it makes it another."""
        if value is self._placeholder and value is not None:
            return True
        return value is self._events and value is not None and getattr(value, "layout", None) is self._layout

    def has_made(self, factory: object) -> bool:
        """Whether the data are the events of `factory`."""
        return self._events is not None and factory is factory_of(self._events)

    def events(self) -> Any:
        """Return the data."""
        if self._events is None:
            self.take(self._open())
        return self._events
