"""Handles: calls of stages that wait until their results are pulled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from coffea_dirac.errors import StageError

if TYPE_CHECKING:
    from coffea_dirac.stages.arguments import Arguments, Template
    from coffea_dirac.stages.calls import Graph
    from coffea_dirac.stages.stage import Stage

ACTIVE: ContextVar[Graph | None] = ContextVar("coffea_dirac_graph", default=None)
"""Where calls of stages go at the moment; None: they are plain calls."""
RUNNING: ContextVar[tuple[Any, ...]] = ContextVar("coffea_dirac_running", default=())
"""The stages that run at the moment, the innermost last."""
CALLED: ContextVar[str] = ContextVar("coffea_dirac_called", default="")
"""The fingerprint of the call that runs at the moment."""
HANDLE_PLACES = "Handles are found as values in dicts, lists and tuples; or take the result with .compute()"


class Handle:
    """A call of a stage whose result is pulled later.

    It may be an argument of other stages, also in a dict, list or tuple; ``process`` may return it in one; `compute`
    returns its result.  Anything else asked of it is an error: it is not the result.
    """

    __slots__ = ("_graph", "arguments", "fingerprint", "number", "stage", "template")
    _graph: Graph
    arguments: Arguments
    fingerprint: str
    number: int
    stage: Stage
    template: Template

    def __init__(
        self, graph: Graph, stage: Stage, template: Template, arguments: Arguments, fingerprint: str, number: int
    ) -> None:
        values = (graph, arguments, fingerprint, number, stage, template)
        for name, value in zip(Handle.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<handle of {self.stage.name}, {self.fingerprint[:12]}>"

    def compute(self) -> Any:
        """Return the result: loaded if it is kept, else computed.

        Raises
        ------
        StageError
            The run that the handle belongs to is over.
        """
        return self._graph.compute(self)

    def _refuse(self, what: str) -> NoReturn:
        error = StageError(
            f"{what} of {self!r}: it is not the result, which is known only when it is pulled. Pass the handle to "
            "another @stage function that does this, or take the result with .compute()"
        )
        # Noted too: code may catch it, and go on with something that is no result.
        self._graph.refused = self._graph.refused or error
        raise error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        self._refuse(f".{name}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self._refuse(f".{name} =")

    def __delattr__(self, name: str) -> NoReturn:
        self._refuse(f"del .{name}")

    def __str__(self) -> str:
        self._refuse("str()")

    def __format__(self, spec: str) -> str:
        self._refuse(f"format {spec!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not Handle:
            self._refuse("comparison")
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise StageError(
            f"{self!r} cannot be copied or sent anywhere, nor kept inside an object: return it from process() in a "
            "dict, list or tuple, or take its result with .compute()"
        )

    def __getstate__(self) -> NoReturn:
        raise StageError(f"{self!r} is in a set or an object, where nothing finds it. {HANDLE_PLACES}")


def _refusing(name: str) -> Callable[..., Any]:
    def operation(self: Handle, *_: object, **__: object) -> Any:
        self._refuse(f"{name}()")

    operation.__name__ = name
    return operation


_OPERATIONS = (
    "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or radd rsub rmul rmatmul rtruediv "
    "rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror neg pos abs invert lt le gt ge bool len iter getitem "
    "setitem delitem contains call int float complex index round trunc floor ceil reversed array array_ufunc "
    "array_function enter next"
)
for _name in _OPERATIONS.split():
    setattr(Handle, f"__{_name}__", _refusing(f"__{_name}__"))


def handles_in(value: Any, kind: type = Handle) -> Iterator[Any]:
    """Yield the handles in a value and in the dicts, lists and tuples inside of it; or all of another type."""
    if type(value) is kind:
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from handles_in(item, kind)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from handles_in(item, kind)


def handle_in(value: Any) -> Handle | None:
    """Return the first handle in a value, None if there is none."""
    return next(handles_in(value), None)


def filled(value: Any, result_of: Callable[[Any], Any]) -> Any:
    """Return an argument as a stage gets it: new containers, with `result_of` of all that is in them."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([filled(item, result_of) for item in value])
    if kind is dict:
        return {filled(key, result_of): filled(item, result_of) for key, item in value.items()}
    return result_of(value)


def replaced(value: Any, result_of: Callable[[Any], Any], kind: type = Handle) -> Any:
    """Return a value with handles replaced by results; dicts and lists that hold any are changed in place.

    Likewise what is of another type than that of handles.
    """
    if type(value) is kind:
        return result_of(value)
    if next(handles_in(value, kind), None) is None:
        return value
    if isinstance(value, dict):
        for key, item in value.items():
            dict.__setitem__(value, key, replaced(item, result_of, kind))
        return value
    if isinstance(value, list):
        value[:] = [replaced(item, result_of, kind) for item in value]
        return value
    items = [replaced(item, result_of, kind) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
