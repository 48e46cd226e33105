"""Asking what a run would cost: everything up to the processing call, and then an answer in place of it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac.report import Report


@dataclass(frozen=True)
class Question:
    """What is asked of the next processing call.

    Parameters
    ----------
    cache : StageCache or None
        The one that counts; None: that of the executor.
    templates : bool
        Call ``process`` here, without data, to see which stages are kept.
    """

    cache: Any = None
    templates: bool = True


@dataclass
class Forecast(Report):
    """What a run would do; its ``counts``, ``stages`` and ``reasons`` are those of a report.

    ``counts["computed"]`` is what the run computes and cuts together: that a stage comes out as before is known only
    after the ones above it have run.

    Attributes
    ----------
    seconds_to_spend : float
        What the others will take, by the records of the same stages.
    not_estimated : list of str
        Stages of which there is no record to go by.
    not_looked_up : int
        Work items whose stages are looked up at the workers only; `notes` say why.
    """

    seconds_to_spend: float = 0.0
    not_estimated: list[str] = field(default_factory=list)
    not_looked_up: int = 0

    @property
    def seconds_saved(self) -> float:
        """What the records that would be loaded took when they were computed, seconds of work added up."""
        return sum(outcome.seconds for outcome in self.loaded)

    def __str__(self) -> str:
        text = f"{super().__str__()}; {self.seconds_saved:.1f} s of work saved, {self.seconds_to_spend:.1f} s to spend"
        if self.not_estimated:
            text += f" (without {', '.join(self.not_estimated)}: never seen)"
        if self.not_looked_up:
            text += f"; stages of {self.not_looked_up} work items are looked up at the workers"
        return text

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=str(self), title_justify="left")
        for heading in ("stage", "load", "compute"):
            table.add_column(heading, justify="left" if heading == "stage" else "right")
        for name, n in self.stages.items():
            table.add_row(name, f"{n['loaded']:,}", f"{n['computed']:,}")
        return table


ASKED: ContextVar[Question | None] = ContextVar("coffea_dirac_asked", default=None)
"""What a processing call is to answer at the moment; None: it is to process.

A ``with let(ASKED, Question()):`` block asks.
"""


class Planned(BaseException):
    """Carries the answer out of the Runner; no Exception, so that the code in between does not catch it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(str(answer))
        self.answer = answer
