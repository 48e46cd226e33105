"""What a run did: plain values first, then one line, then a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coffea_dirac.interfaces import Json, Outcome


class Skipped(NamedTuple):
    """A file that was left out before any work item of it was planned."""

    treename: str
    metadata: Mapping[str, Any]
    why: str


@dataclass
class DatasetReport:
    """Files and events of one dataset.

    Attributes
    ----------
    files : dict of str to str
        The files expected, with the name of their tree.
    metadata : dict
        What the fileset says of the dataset.
    events_expected, events_processed : int
        Entries of the work items; a file that cannot be opened has none.
    failed : dict of str to str
        File -> why some or all of its events are not in the result.
    unfinished : set of str
        Files of which some work items were not reached, since the run ended early.
    """

    files: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    events_expected: int = 0
    events_processed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)

    @property
    def files_expected(self) -> int:
        """Files of the fileset."""
        return len(self.files)

    @property
    def files_processed(self) -> int:
        """Files all of whose events are in the result."""
        return len(self.files) - len(self.lacking)

    @property
    def lacking(self) -> list[str]:
        """Files of which events are not in the result, sorted."""
        return sorted(self.unfinished.union(self.failed))


@dataclass
class Report:
    """What one run did.

    Attributes
    ----------
    outcomes : list of Outcome
        One for each record: the loaded ones in fileset order, then the computed ones as they came.
    work_items : dict
        ``{"hits": .., "misses": ..}``: items for which no user code ran, and the others.
    datasets : dict of str to DatasetReport
        What was expected and what was processed, by dataset.
    notes : list of str
        What was not kept, skipped or written, and what to do about it.
    sites : Counter
        Work items that were computed at a DIRAC site, by its name.
    verified : list of str
        What was found, computed again and came out the same: stages and work items.
    merged : int
        Partial results that were merged in this run; a merge that was loaded is one of the outcomes.
    seconds : float
        Wall time of the run.

    Examples
    --------
    >>> from coffea_dirac.interfaces import Outcome
    >>> report = Report()
    >>> report.add(Outcome("TtbarAnalysis", "ab12", "computed", {"reason": "new input"}))
    >>> print(report)
    1 work item: 0 loaded, 1 computed; new input: 1 item
    """

    outcomes: list[Outcome] = field(default_factory=list)
    work_items: dict[str, int] = field(default_factory=lambda: {"hits": 0, "misses": 0})
    datasets: dict[str, DatasetReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sites: Counter[str] = field(default_factory=Counter)
    verified: list[str] = field(default_factory=list)
    merged: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one record and the work items it stands for."""
        self.outcomes.append(outcome)
        self.work_items["hits" if outcome.outcome == "loaded" else "misses"] += outcome.work_items

    def retract(self, fingerprint: str) -> bool:
        """Take back that a record was loaded, since it cannot be read after all; say whether that had been said."""
        for i, outcome in enumerate(self.outcomes):
            if outcome.outcome == "loaded" and outcome.fingerprint == fingerprint:
                del self.outcomes[i]
                self.work_items["hits"] -= outcome.work_items
                return True
        return False

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def counts(self) -> dict[str, int]:
        """Records by outcome: ``{"loaded": .., "computed": .., "cut": ..}``."""
        found = Counter(o.outcome for o in self.outcomes)
        return {"loaded": found["loaded"], "computed": found["computed"], "cut": found["cut"]}

    @property
    def loaded(self) -> list[Outcome]:
        """The records that came from the cache."""
        return [o for o in self.outcomes if o.outcome == "loaded"]

    @property
    def computed(self) -> list[Outcome]:
        """The records that user code was run for."""
        return [o for o in self.outcomes if o.outcome == "computed"]

    @property
    def cut(self) -> list[Outcome]:
        """The records that were not computed since their inputs came out with the same bytes."""
        return [o for o in self.outcomes if o.outcome == "cut"]

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why work items, or stages outside of any, were computed, as one line each, and how many; most first."""
        return _reasons(self.computed)

    @property
    def stage_reasons(self) -> list[tuple[str, int]]:
        """Why stages inside work items were computed, as one line each with their name, and how many; most first."""
        return _reasons(o for o in self.computed if not o.work_items)

    @property
    def stages(self) -> dict[str, dict[str, int]]:
        """Records of stages inside work items, by name and outcome."""
        found: dict[str, Counter[str]] = {}
        for outcome in self.outcomes:
            if not outcome.work_items:
                found.setdefault(outcome.stage, Counter())[outcome.outcome] += 1
        return {name: {kind: n[kind] for kind in ("loaded", "computed", "cut")} for name, n in sorted(found.items())}

    @property
    def events(self) -> int:
        """Events processed, in this run or an earlier one."""
        return sum(d.events_processed for d in self.datasets.values())

    @property
    def complete(self) -> bool:
        """Whether every file and event of the fileset is in the result."""
        return all(not d.lacking and d.events_processed == d.events_expected for d in self.datasets.values())

    @property
    def missing(self) -> dict[str, dict[str, Any]]:
        """A fileset of the files whose events are not all in the result, to be run again.

        Its work items that are in the cache are loaded; add its result to nothing: run the whole fileset again instead,
        or this one to see what is wrong with it.
        """
        return {
            name: {"files": {file: d.files[file] for file in d.lacking}, "metadata": dict(d.metadata)}
            for name, d in self.datasets.items()
            if d.lacking
        }

    def __str__(self) -> str:
        items = sum(self.work_items.values())
        found = f"{self.work_items['hits']} loaded, {self.work_items['misses']} computed"
        text = f"{items} work item{'s' * (items != 1)}: {found}" if items or not self.outcomes else ""
        if stages := [o for o in self.outcomes if not o.work_items]:
            counts = Counter(o.outcome for o in stages)
            told = ", ".join(f"{counts[kind]} {kind}" for kind in ("loaded", "computed", "cut") if counts[kind])
            text += ("; " if text else "") + f"{len(stages)} stage{'s' * (len(stages) != 1)}: {told}"
        reasons = "; ".join(f"{reason}: {how_many}" for reason, how_many in self._groups())
        lost = sum(len(d.lacking) for d in self.datasets.values())
        files = f"; {lost} file{'s' * (lost != 1)} missing" if lost else ""
        verified = f"; {len(self.verified):,} verified" if self.verified else ""
        return text + verified + (f"; {reasons}" if reasons else "") + files

    def _groups(self) -> Iterator[tuple[str, str]]:
        """Yield each reason with the work items, or stages outside of any, that it was one of."""
        items = sum(self.work_items.values())
        noun, total = ("item", items) if any(o.work_items for o in self.computed) else ("stage", len(self.outcomes))
        for reason, n in self.reasons:
            yield reason, f"{'all ' * (n == total > 1)}{n:,} {noun}{'s' * (n != 1)}"

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=str(self), title_justify="left")
        for heading in ("dataset", "files", "of", "events", "of", "missing"):
            table.add_column(heading, justify="left" if heading == "dataset" else "right")
        for name, d in self.datasets.items():
            table.add_row(
                name,
                f"{d.files_processed:,}",
                f"{d.files_expected:,}",
                f"{d.events_processed:,}",
                f"{d.events_expected:,}",
                f"{len(d.lacking)}",
            )
        return table


def _reasons(outcomes: Iterable[Outcome]) -> list[tuple[str, int]]:
    """Count reasons: of work items where there are any, else of stages."""
    found: Counter[str] = Counter()
    listed = list(outcomes)
    of_items = any(outcome.work_items for outcome in listed)
    for outcome in listed:
        if outcome.work_items or not of_items:
            found[reason_text(outcome.reason)] += outcome.work_items or 1
    return found.most_common()


def reason_text(reason: Mapping[str, Json] | None) -> str:
    """Return a reason as one line.

    Examples
    --------
    >>> reason_text({"reason": "new code", "where": "select_jets, line 14: `30` became `25`"})
    'new code: select_jets, line 14: `30` became `25`'
    """
    if not reason:
        return "not kept"
    where = reason.get("where")
    return f"{reason['reason']}: {where}" if where else str(reason["reason"])
