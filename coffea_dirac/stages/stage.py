"""``@stage``: a function whose result is worth keeping."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from coffea_dirac.context import let
from coffea_dirac.errors import ConfigurationError, StageError
from coffea_dirac.stages.handles import ACTIVE, RUNNING, handle_in

Function = TypeVar("Function", bound=Callable[..., Any])


class Stage:
    """A function whose results are kept; see `stage`.

    Called outside of a run it is the plain function; inside one it returns a lazy handle.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        version: object = None,
        depends: Sequence[object] = (),
        keep: bool = True,
        resources: Mapping[str, float] | None = None,
        is_told: bool = True,
        writes: bool = False,
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.version, self.depends = version, tuple(depends)
        self.keep, self.resources = keep, dict(resources or {})
        # Of stages of this package's own.
        self.is_told, self.writes = is_told, writes
        """Whether reports name it, and whether it writes files, so that it is not run to see what it returns."""
        self.name: str = function.__qualname__.rpartition("<locals>.")[2]
        """The name of the function, with that of its class."""
        self.is_method = False
        """Whether it is called with an instance: it is in the body of a class, and not below ``@staticmethod``."""
        self._signature = inspect.signature(function)
        # To bind arguments takes a fifth of a call; these names are enough where all are given by position.
        plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in self._signature.parameters.values())
        self._names = tuple(self._signature.parameters) if plain else None

    def __repr__(self) -> str:
        return f"<stage {self.name}>"

    def __set_name__(self, owner: type, name: str) -> None:
        self.is_method = True

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or return a handle of the call."""
        graph = ACTIVE.get()
        if graph is None or _is_tracing((*args, *kwargs.values())) or _is_tried_by_dask():
            if (handle := handle_in((args, kwargs))) is not None:
                raise StageError(
                    f"{self.name} is called with {handle!r} outside of the run that this handle belongs to: call it "
                    "inside process(), or inside the same `with StageCache(...)` block"
                )
            return self._called_plainly(args, kwargs)
        if self._names is not None and len(args) == len(self._names) and not kwargs:
            return graph.call(self, dict(zip(self._names, args, strict=True)))
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        return graph.call(self, bound.arguments)

    def _called_plainly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function; inside of another stage it is a part of that one."""
        running = RUNNING.get()
        if not running:
            return self.function(*args, **kwargs)
        if self in running:
            raise StageError(
                f"stage {self.name} is called while it runs: write the recursion as a plain function, and call that "
                "from the stage"
            )
        with let(RUNNING, (*running, self)):
            return self.function(*args, **kwargs)

    def bind(self, arguments: Mapping[str, Any]) -> inspect.BoundArguments:
        """Return named arguments as positional and keyword ones."""
        return inspect.BoundArguments(self._signature, dict(arguments))

    def __getstate__(self) -> dict[str, object]:
        """Return what belongs to a fingerprint: where and whether a result is kept does not change it."""
        return {"function": self.function, "version": self.version, "depends": self.depends}

    def __reduce__(self) -> str | tuple[Any, ...]:
        module, name = self.function.__module__, self.function.__qualname__
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self and module != "__main__":
            return name
        return _remade, (self.function, self.version, self.depends, self.keep, self.resources, self.is_method)


def _is_tracing(values: Iterable[Any]) -> bool:
    """Whether arrays without data are among the arguments: dask-awkward asks what a result will look like."""
    for value in values:
        for part in value if type(value) in (list, tuple) else (value,):
            # By class first: handles and placeholders of events refuse every question.
            kind: Any = type(part)
            if _is_array(kind) and part.layout.backend.name == "typetracer":
                return True
    return False


@functools.lru_cache(maxsize=1024)
def _is_array(kind: Any) -> bool:
    return any(base.__module__ == "awkward.highlevel" for base in kind.__mro__)


# By these dask calls a function on a few made-up values, to see what its results look like.
_TRIALS = frozenset({"compute_meta", "apply_infer_dtype", "emulate"})


def _is_tried_by_dask() -> bool:
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name in _TRIALS and str(frame.f_globals.get("__name__")).startswith("dask."):
            return True
        frame = frame.f_back
    return False


def _remade(
    function: Callable[..., Any],
    version: object,
    depends: Sequence[object],
    keep: bool,
    resources: Mapping[str, float],
    is_method: bool,
) -> Stage:
    found = Stage(function, version=version, depends=depends, keep=keep, resources=resources)
    # A class that travels by value is put together without telling its parts.
    found.is_method = is_method
    return found


@overload
def stage(function: Function) -> Function: ...
@overload
def stage(
    *,
    version: object = None,
    depends: Sequence[object] = (),
    keep: bool = True,
    resources: Mapping[str, float] | None = None,
) -> Callable[[Function], Function]: ...
def stage(
    function: Callable[..., Any] | None = None,
    *,
    version: object = None,
    depends: Sequence[object] = (),
    keep: bool = True,
    resources: Mapping[str, float] | None = None,
) -> Any:
    """Mark a function, or a method, whose result is worth keeping.

    In ``process`` and inside ``with StageCache(...)`` a call returns a lazy handle, which may be an argument of other
    stages (also in a dict, list or tuple) and may be returned; what is pulled is loaded if it is kept under the same
    fingerprint, else computed and kept.  Everywhere else the function is called as it is.  The fingerprint covers the
    code with all it reaches and the arguments; ``events`` as an argument stands for the data of the work item.

    Parameters
    ----------
    function : callable
        Must return the same for the same arguments, and not change them.
    version : object, optional
        Enters the fingerprint: a new value makes all earlier results misses.
    depends : sequence, optional
        Values, functions, modules or `File` objects that the result depends on in a way no reading of the code shows.
    keep : bool
        False for what is cheaper to compute than to load.
    resources : mapping, optional
        What a worker must have to run it, as dask names it: ``{"GPU": 1}``.

    Raises
    ------
    ConfigurationError
        It is put on something else than a function.

    Examples
    --------
    >>> import tempfile
    >>> from coffea_dirac import StageCache
    >>> @stage
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    >>> with StageCache(tempfile.mkdtemp()) as cache:
    ...     double(double(1)).compute()
    4
    >>> cache.report.counts
    {'loaded': 0, 'computed': 2, 'cut': 0}
    """
    if function is None:
        return functools.partial(stage, version=version, depends=depends, keep=keep, resources=resources)
    if isinstance(function, staticmethod | classmethod | property):
        raise ConfigurationError(f"@stage goes below @{type(function).__name__}: write it next to the def")
    if isinstance(function, Stage) or not isinstance(function, types.FunctionType):
        raise ConfigurationError(f"@stage goes on a function or a method, not on {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"{function.__qualname__} is a generator or a coroutine, which has no result to keep: return a list"
        )
    if isinstance(depends, str) or not isinstance(depends, Sequence):
        raise ConfigurationError(f"depends is {depends!r}: it is a list, as in depends=[helper, File('cuts.json')]")
    amounts = resources.values() if isinstance(resources, Mapping) else [resources]
    if resources is not None and not all(isinstance(amount, int | float) for amount in amounts):
        raise ConfigurationError(f"resources is {resources!r}: it is a dict, as in resources={{'GPU': 1}}")
    if not isinstance(keep, bool):
        raise ConfigurationError(f"keep is {keep!r}: it is True or False")
    return Stage(function, version=version, depends=depends, keep=keep, resources=resources)
