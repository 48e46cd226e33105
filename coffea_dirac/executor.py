"""DiracExecutor: the door for coffea.  Work items in, one merged accumulator out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from coffea_dirac.errors import ConfigurationError, MissingPackageError

try:
    from coffea.processor.executor import ExecutorBase
except ImportError as error:
    raise MissingPackageError(
        f"DiracExecutor needs coffea 2025.12 or newer, for its processor.Runner ({error}). Install it with pip install "
        "'coffea[dask]>=2025.12'; with an older coffea, put the dask graph through the cache: with StageCache(...): "
        "dask.compute(...)"
    ) from error

from coffea_dirac.cache import StageCache, default_cache, memo_place
from coffea_dirac.calls import ProcessingCall, parse, with_texts
from coffea_dirac.inputs.memo import IdentityMemo
from coffea_dirac.planning import ASKED, Planned
from coffea_dirac.report import Report, Skipped
from coffea_dirac.running.forecast import forecast
from coffea_dirac.running.other_calls import process_plain, read_metadata
from coffea_dirac.running.plan import Run
from coffea_dirac.running.run import Processing
from coffea_dirac.running.workers import Workers

_DEFAULT = "default"


@dataclass
class Holder:
    """What outlives one call and is shared by an executor's copies: changed in place, never rebound."""

    workers: Workers
    memo: IdentityMemo = field(default_factory=IdentityMemo)
    report: Report | None = None
    processing: Processing | None = None
    skipped: dict[tuple[str, str], Skipped] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    is_default: bool = False


@dataclass
class DiracExecutor(ExecutorBase):  # type: ignore[misc]
    """An executor for ``coffea.processor.Runner`` whose results persist between sessions.

    Parameters
    ----------
    cache : str, path-like, StageCache or None
        Where results are kept; None switches the cache off.  By default a cache in this user's cache directory, or what
        ``COFFEA_DIRAC_CACHE`` names (a path, or ``off``).
    client : distributed.Client, optional
        Work on this client's workers.
    cluster : distributed cluster, optional
        Work on this cluster's workers.  With neither, processes of this machine are used, started at the first miss.
    workers : int, optional
        How many processes of this machine; one for each core by default.
    inline : bool
        Process in this process, one work item after the other (breakpoints, pdb, profilers).
    errors : "fail" or "collect"
        Stop at the first work item whose processing fails, or do all others first and then raise one error that lists
        all that failed, with the merged result of the others as its ``partial_output``.
    io_retries : int
        Further attempts after an input could not be read (errors in user code are never retried).

    Raises
    ------
    ConfigurationError
        An option that does not exist or cannot mean anything.

    Examples
    --------
    >>> from coffea import processor
    >>> run = processor.Runner(executor=DiracExecutor(cache=None, workers=2))
    >>> run.executor.report is None
    True
    """

    unit: str = "items"
    desc: str = "Processing"
    cache: Any = _DEFAULT
    client: Any = None
    cluster: Any = None
    workers: int | None = None
    inline: bool = False
    errors: str = "fail"
    io_retries: int = 2
    holder: Holder | None = field(default=None, repr=False)

    def __new__(cls, *args: Any, **options: Any) -> DiracExecutor:
        """Refuse options that do not exist, naming the one that was probably meant."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}=...?" if near else f"the options are {', '.join(known)}"
                raise ConfigurationError(f"DiracExecutor has no option {name!r}: {hint}")
        new: DiracExecutor = super().__new__(cls)
        return new

    def __post_init__(self) -> None:
        if self.client is not None and self.cluster is not None:
            raise ConfigurationError("give client= or cluster=, not both: DiracExecutor(client=cluster.get_client())")
        if self.workers is not None and (type(self.workers) is not int or self.workers < 1):
            raise ConfigurationError(f"workers is {self.workers!r}: it is a number of processes, as in workers=4")
        if self.errors not in ("fail", "collect"):
            raise ConfigurationError(
                f'errors is {self.errors!r}: "fail" stops at the first error, "collect" does the rest first'
            )
        if not isinstance(self.io_retries, int) or self.io_retries < 0:
            raise ConfigurationError(
                f"io_retries is {self.io_retries!r}: it is a number of further attempts, as in io_retries=2"
            )
        is_default = isinstance(self.cache, str) and self.cache == _DEFAULT
        if is_default:
            self.cache = default_cache()
        elif self.cache is not None and not isinstance(self.cache, StageCache):
            self.cache = StageCache(self.cache)
        if self.holder is None:
            workers = Workers(self.client, self.cluster, self.workers, inline=self.inline)
            self.holder = Holder(workers, is_default=is_default or not workers.given)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "client": None, "cluster": None, "holder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def report(self) -> Report | None:
        """What the last run did, or is doing; None before the first."""
        return self._holder().report

    def partial(self) -> Any:
        """Return the merged result of what is finished, a copy, while a run goes on in another thread.

        After a run that ended early it is what that had finished; None if nothing is, or if the last run was completed.
        It has not been through ``postprocess``.

        Examples
        --------
        >>> DiracExecutor(cache=None).partial() is None
        True
        """
        processing = self._holder().processing
        return processing.partial() if processing is not None else None

    def _holder(self) -> Holder:
        assert self.holder is not None, "made in __post_init__"
        return self.holder

    def __call__(self, items: Iterable[Any], function: Callable[[Any], Any], accumulator: Any) -> tuple[Any, int]:
        """Process `items` with `function` and merge the results into `accumulator`; coffea's Runner calls this.

        Returns
        -------
        (accumulator, 0)
            0 says that nothing was left out because of an error: errors are raised.
        """
        found = list(items)
        if not found:
            return accumulator, 0
        call, holder = parse(function), self._holder()
        holder.memo.attach(memo_place(self.cache))
        run = Run(
            workers=holder.workers,
            cache=self.cache,
            memo=holder.memo,
            told=holder.told,
            io_retries=self.io_retries,
            collect=self.errors == "collect",
            status=self.status,
            desc=self.desc,
            unit=self.unit,
        )
        if holder.is_default and self.status and "defaults" not in holder.told:
            holder.told.add("defaults")
            say_defaults(self.cache, holder.workers)
        if isinstance(call, ProcessingCall):
            found = with_texts(found)
            if (question := ASKED.get()) is not None:
                raise Planned(forecast(run, call, found, question))
            holder.report = Report()
            skipped, holder.skipped = holder.skipped, {}
            processing = holder.processing = Processing(run, call, holder.report)
            merged = processing.process(found, skipped)
            holder.processing = None
            return merged if accumulator is None else _added(accumulator, merged), 0
        if self.function_name == "get_metadata":
            return read_metadata(run, call, found, accumulator, holder.skipped), 0
        return process_plain(run, call, found, accumulator), 0


def _added(accumulator: Any, merged: Any) -> Any:
    from coffea.processor import accumulate

    return accumulate([merged], accumulator)


def say_defaults(cache: StageCache | None, workers: Workers) -> None:
    """Say in one line what is used where nothing was given, and what changes it."""
    from rich.console import Console

    where = f"cache {cache.store.url}" if cache is not None else "no cache"
    text = f"DiracExecutor: {workers}, {where}; DiracExecutor(cache=..., workers=...) or COFFEA_DIRAC_CACHE change it"
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
