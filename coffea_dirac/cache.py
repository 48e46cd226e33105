"""The stage cache: the policy over a store, and its doors to graphs, wrapped processors, written files and plans.

How records are looked up, loaded and kept is in `records`, why something is not kept in `stages/explaining`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from coffea_dirac.context import let
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Store, Versions
from coffea_dirac.planning import ASKED, Forecast, Planned, Question
from coffea_dirac.records import CacheWarning as CacheWarning
from coffea_dirac.records import Records
from coffea_dirac.report import Report
from coffea_dirac.stages.verifying import TOLERANCE, verification_of
from coffea_dirac.stores import LocalStore, open_store

ENVIRONMENT_VARIABLE = "COFFEA_DIRAC_CACHE"
Marked = TypeVar("Marked")


def default_cache() -> StageCache | None:
    """Return this user's cache: where ``COFFEA_DIRAC_CACHE`` says (a path, or ``off``), else in the cache directory."""
    named = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if named.lower() == "off":
        return None
    import platformdirs

    return StageCache(named or Path(platformdirs.user_cache_dir("coffea_dirac")) / "stages")


def memo_place(cache: StageCache | None) -> Path | None:
    """Return where the metadata of input files is remembered: beside a local store, else in the cache directory."""
    if cache is None:
        return None
    if isinstance(cache.store, LocalStore):
        return cache.store.path / "files.sqlite3"
    import platformdirs

    return Path(platformdirs.user_cache_dir("coffea_dirac")) / "files.sqlite3"


class StageCache(Records):
    """Results between sessions, under the fingerprint of all that determines them.

    Parameters
    ----------
    url : str or path-like or Store
        Where the records are kept: a directory, a URL (``file://``, ``root://``, ``https://``, ``davs://``, ``s3://``),
        or any `coffea_dirac.interfaces.Store`.  Nothing is touched before the first look-up.
    policy : {"marked", "all"}
        Which results of dask graphs are kept: outputs, ``@stage`` functions and what `keep` has marked, or every task.
    quota : str or int or None
        How large a local store may get, ``"20 GB"`` if nothing is said, or what ``COFFEA_DIRAC_CACHE_QUOTA`` says
        (a size, or ``none``); at the end of a run what was not used for longest goes.  None for no limit.
    versions : "exact" or "minor"
        How versions of installed packages count: ``"minor"`` finds what was computed with xgboost 3.2.1 with 3.2.4 too.
    verify : float, optional
        Compute this part of what is found again and compare: 0.05 for one in twenty, 1 for all; nothing if nothing is
        said, or what ``COFFEA_DIRAC_VERIFY`` says.  A difference raises `VerificationError`.
    tolerance : float
        How far verified numbers may differ, in parts of the largest of their array, if they were computed in another
        environment; in this one they must be the same to the bit.

    Raises
    ------
    ConfigurationError
        No store belongs to `url`, `quota` is no size, `versions` is something else, or `verify` is no part.

    Examples
    --------
    >>> import tempfile
    >>> cache = StageCache(tempfile.mkdtemp())
    >>> cache.look_up(["00" * 32])
    {}
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        policy: Literal["marked", "all"] = "marked",
        quota: str | int | None = "default",
        versions: Versions = "exact",
        verify: float | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        if policy not in ("marked", "all"):
            raise ConfigurationError(f"policy is {policy!r}: it is 'marked' (outputs and stages) or 'all' (every task)")
        if versions not in get_args(Versions):
            raise ConfigurationError(
                f'versions is {versions!r}: it is "exact", or "minor" to count major.minor of each version only'
            )
        super().__init__(open_store(url), quota)
        self.policy: Literal["marked", "all"] = policy
        self.marked: set[Any] = set()
        """The dask keys that `keep` has marked."""
        self.versions: Versions = versions
        self.verification = verification_of(verify, tolerance)
        self._block: Any = None
        self.report = Report()
        """What the last ``with`` block did, or what wrapped processors did in this process."""

    def __enter__(self) -> StageCache:
        """Let ``@stage`` functions and dask's ``compute`` go through this cache until the end of the block."""
        from coffea_dirac.block import Block
        from coffea_dirac.graph.door import Graphs

        if self._block is not None:
            raise ConfigurationError(f"{self!r} is in a `with` block already: use a StageCache of its own for this one")
        self.report = Report()
        # A session of its own: an executor may use this cache inside the block.
        graphs = Graphs(self.policy, memo_place(self), self.marked)
        self._block = Block(self.twin(), self.report, graphs)
        self._block.enter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        block, self._block = self._block, None
        block.leave(failed=exc_info[0] is not None)

    def keep(self, collection: Marked) -> Marked:
        """Mark a dask collection inside of a larger graph: its results are kept too, for when what uses it changes.

        Parameters
        ----------
        collection : dask collection
            An array, a delayed value, a dataframe, ...

        Returns
        -------
        dask collection
            The same.

        Raises
        ------
        ConfigurationError
            It is something else.

        Examples
        --------
        >>> import dask, tempfile
        >>> cache = StageCache(tempfile.mkdtemp())
        >>> selected = cache.keep(dask.delayed(sorted)([3, 1, 2]))
        >>> with cache:
        ...     dask.delayed(sum)(selected).compute()
        6
        >>> cache.report.counts
        {'loaded': 0, 'computed': 2, 'cut': 0}
        """
        from dask import is_dask_collection
        from dask.core import flatten

        asked: Any = collection
        if not is_dask_collection(asked):
            raise ConfigurationError(
                f"keep() marks a dask collection, not a {type(asked).__name__}: weights = cache.keep(weights), each of "
                "several by itself, and before it is computed"
            )
        self.marked.update(flatten(asked.__dask_keys__()))
        return collection

    def wrap(self, processor: Any) -> Any:
        """Return a processor whose ``@stage`` functions go through this cache, for any executor.

        Parameters
        ----------
        processor : ProcessorABC or callable
            The analysis; a callable takes events and has no ``postprocess``.

        Raises
        ------
        ConfigurationError
            It is neither.

        Examples
        --------
        >>> import tempfile
        >>> StageCache(tempfile.mkdtemp()).wrap(lambda events: {"n": len(events)}).postprocess({"n": 3})
        {'n': 3}
        """
        from coffea_dirac.wrapping import Wrapped

        return Wrapped(processor, self)

    def write(
        self,
        array: Any,
        folder: str | os.PathLike[str],
        *,
        format: Literal["parquet", "root"] = "parquet",
        treename: str = "Events",
        dataset: str | None = None,
    ) -> Any:
        """Write an array as a file, in ``process`` or in a ``with`` block, as the result of a stage.

        The file has a name of its own for all that it was made of; if it is there, as it was written, it is not written
        again.  Columns are named as in NanoAOD: ``nJet``, ``Jet_pt``, ``MET_pt``.

        Parameters
        ----------
        array : array of records, or dict of arrays, or the handle of a stage that returns one
            Numbers, or lists of numbers, for each event.
        folder : str or path-like
            Where the files go; workers must see it under this name.
        format : "parquet" or "root"
            What kind of files.
        treename : str
            The name of the tree.
        dataset : str, optional
            Its name in the fileset; that of the work item if nothing is said.

        Returns
        -------
        handle
            Its result is a fileset, ``{dataset: {"files": {path: tree}, "metadata": {...}}}``.  Returned from
            ``process`` it merges to one of all files, which the next Runner takes.

        Raises
        ------
        StageError
            It is called elsewhere, or a column cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with StageCache(f"{folder}/cache") as cache:
        ...     found = cache.write({"pt": [30.0, 45.5]}, folder, format="root", dataset="data").compute()
        >>> list(found["data"]["files"].values())
        ['Events']
        """
        from coffea_dirac.stages.writing import write

        return write(array, folder, format=format, treename=treename, dataset=dataset)

    def plan(
        self, run: Any, fileset: Any, processor: Any, treename: str | None = None, *, templates: bool = True
    ) -> Forecast:
        """Return what ``run(fileset, processor, treename)`` would load and compute, with this cache.

        Nothing is processed or written, and no worker is started; files whose number of entries is not known are
        opened.  Of work items that are not kept ``process`` is called here, on a copy of the processor and without
        data, to see which of its stages are.

        Parameters
        ----------
        run : coffea.processor.Runner
            With a `DiracExecutor`.
        fileset, processor, treename
            As for `run`.
        templates : bool
            False: call no user code here; which stages are kept is then seen at the workers.

        Returns
        -------
        Forecast
            ``counts``, ``stages`` and ``reasons`` as a report has them, ``seconds_saved``, ``seconds_to_spend``.
            ``counts["computed"]`` is what the run's report has as computed and as cut, together.

        Raises
        ------
        ConfigurationError
            `run` has another executor.

        Examples
        --------
        >>> import tempfile, uproot
        >>> from coffea.nanoevents import BaseSchema
        >>> from coffea.processor import Runner
        >>> from coffea_dirac import DiracExecutor
        >>> folder = tempfile.mkdtemp()
        >>> with uproot.recreate(f"{folder}/events.root") as file:
        ...     file["Events"] = {"x": [1.0, 2.0]}
        >>> cache = StageCache(f"{folder}/cache")
        >>> run = Runner(executor=DiracExecutor(cache=cache, status=False), schema=BaseSchema)
        >>> fileset = {"data": {"files": [f"{folder}/events.root"]}}
        >>> cache.plan(run, fileset, lambda events: {"n": len(events)}, treename="Events").counts
        {'loaded': 0, 'computed': 1, 'cut': 0}
        """
        executor = getattr(run, "executor", None)
        if all(kind.__name__ != "DiracExecutor" for kind in type(executor).__mro__):
            raise ConfigurationError(
                f"cache.plan(run, ...) takes a Runner with a DiracExecutor, not {type(executor or run).__name__}: "
                "Runner(executor=DiracExecutor(cache=cache), ...)"
            )
        named = {} if treename is None else {"treename": treename}
        try:
            with let(ASKED, Question(self, templates)):
                run(fileset, processor, **named)
        except Planned as planned:
            found: Forecast = planned.answer
            return found
        return Forecast()

    def twin(self) -> StageCache:
        """Return another cache over the same store, with a session of its own."""
        return self._maker()(self.store)

    def __repr__(self) -> str:
        return f"StageCache({self.store.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._maker(), (self.store,)

    def _maker(self) -> Callable[[Store], StageCache]:
        options: dict[str, Any] = {"policy": self.policy, "quota": self.quota_bytes, "versions": self.versions}
        fraction, tolerance = self.verification.fraction, self.verification.tolerance
        return functools.partial(type(self), **options, verify=fraction, tolerance=tolerance)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a fingerprint has of a processor that holds a cache: nothing, as a place changes no result."""
        return {}
