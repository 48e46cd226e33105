"""Where stages run: which work item it is, what belongs to it, and which stages may run here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from coffea_dirac.interfaces import Json


def runs_all(resources: Mapping[str, float]) -> bool:
    """Whether a stage may run here that needs `resources`: any may."""
    return True


@dataclass
class Place:
    """Where stages run: which work item it is, and what belongs to it.

    Parameters
    ----------
    metadata : callable
        Name -> digest of that metadata of the work item.
    info : mapping
        Small facts for records: dataset, file, first and last entry.
    ignored : list of str
        Files and folders whose reading does not count: the input, the store.
    columns : callable
        The columns that have been read so far.
    can_run : callable
        Resources -> whether a stage that needs them may run here; stages that need none are asked for too.
    """

    metadata: Callable[[str], str] = lambda name: "absent"
    info: Mapping[str, Json] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    columns: Callable[[], Iterable[str]] = tuple
    can_run: Callable[[Mapping[str, float]], bool] = runs_all
