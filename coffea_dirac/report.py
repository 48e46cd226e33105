"""What a run did: plain values first, then one line, then a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac.interfaces import Json, Outcome


@dataclass
class DatasetReport:
    """Files and events of one dataset; `failed` maps a file name to the reason it was skipped."""

    files_expected: set[str] = field(default_factory=set)
    events_expected: int = 0
    events_processed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


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
    seconds : float
        Wall time of the run.

    Examples
    --------
    >>> from coffea_dirac.interfaces import Outcome
    >>> report = Report()
    >>> report.add(Outcome("TtbarAnalysis", "ab12", "computed", {"reason": "new input"}))
    >>> print(report)
    1 work item: 0 loaded, 1 computed; 1 new input
    """

    outcomes: list[Outcome] = field(default_factory=list)
    work_items: dict[str, int] = field(default_factory=lambda: {"hits": 0, "misses": 0})
    datasets: dict[str, DatasetReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one record and the work items it stands for."""
        self.outcomes.append(outcome)
        self.work_items["hits" if outcome.outcome == "loaded" else "misses"] += outcome.work_items

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
        """Why work items were computed, as one line each, and how many; most first."""
        found: Counter[str] = Counter()
        for outcome in self.computed:
            found[reason_text(outcome.reason)] += outcome.work_items
        return found.most_common()

    @property
    def events(self) -> int:
        """Events processed, in this run or an earlier one."""
        return sum(d.events_processed for d in self.datasets.values())

    @property
    def complete(self) -> bool:
        """Whether every file and event of the fileset is in the result."""
        return all(not d.failed and d.events_processed == d.events_expected for d in self.datasets.values())

    @property
    def missing(self) -> dict[str, list[str]]:
        """The files whose events are not in the result: a fileset to run again."""
        return {name: sorted(d.failed) for name, d in self.datasets.items() if d.failed}

    def __str__(self) -> str:
        items = sum(self.work_items.values())
        found = f"{self.work_items['hits']} loaded, {self.work_items['misses']} computed"
        text = f"{items} work item{'s' * (items != 1)}: {found}"
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.reasons)
        lost = sum(len(d.failed) for d in self.datasets.values())
        return text + (f"; {reasons}" if reasons else "") + (f"; {lost} skipped" if lost else "")

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=str(self), title_justify="left")
        for heading in ("dataset", "files", "events", "of", "skipped"):
            table.add_column(heading, justify="left" if heading == "dataset" else "right")
        for name, d in self.datasets.items():
            table.add_row(
                name,
                f"{len(d.files_expected)}",
                f"{d.events_processed:,}",
                f"{d.events_expected:,}",
                f"{len(d.failed)}",
            )
        return table


def reason_text(reason: Mapping[str, Json] | None) -> str:
    """Return a reason as one line.

    Examples
    --------
    >>> reason_text({"reason": "new code", "where": "select_jets, line 14: `30` became `25`"})
    'new code (select_jets, line 14: `30` became `25`)'
    """
    if not reason:
        return "not kept"
    where = reason.get("where")
    return f"{reason['reason']} ({where})" if where else str(reason["reason"])
