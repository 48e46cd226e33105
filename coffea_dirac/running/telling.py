"""What workers say of a work item besides its result, told to the report and to the user."""

from __future__ import annotations

from collections.abc import Sequence

from coffea_dirac.fingerprint import Ingredients
from coffea_dirac.inputs.health import Damage
from coffea_dirac.interfaces import Outcome
from coffea_dirac.report import Report
from coffea_dirac.running.plan import Plan, Run
from coffea_dirac.stages.explaining import Explainer
from coffea_dirac.stages.templates import describe_stage
from coffea_dirac.worker.shelf import Receipt
from coffea_dirac.worker.task import Task


class Telling:
    """Tells of the receipts of one run.

    Parameters
    ----------
    run : Run
        What the call works with.
    plan : Plan
        Work items, keys and reasons.
    task : Task
        What workers need.
    report : Report
        Where it is told.
    """

    def __init__(self, run: Run, plan: Plan, task: Task, report: Report) -> None:
        self._run, self._plan, self._task, self._report = run, plan, task, report
        self._ingredients: dict[str, Ingredients] = {}
        self._described: set[str] = set()
        self._explainer = Explainer(run.cache) if run.cache is not None else None
        self.damaged: set[Damage] = set()

    def happened(self, receipt: Receipt, outcomes: Sequence[Outcome]) -> None:
        """Tell what happened at the worker, whether or not there is a result; `outcomes` are those not told before."""
        for outcome in self._explained(outcomes):
            self._report.add(outcome)
        for text in receipt.notes:
            self._report.note(text)
        self._report.verified += receipt.verified
        self.damaged.update(receipt.damaged)

    def kept(self, receipt: Receipt) -> None:
        """Tell what of a result could not be kept, and what it leaves outside of the cache."""
        if receipt.store_problem and self._run.cache is not None:
            self._run.cache.give_up(receipt.store_problem)
        if receipt.not_kept and self._run.cache is not None:
            self._run.warn_once(f"the result of {self._task.stage} is computed and not kept: {receipt.not_kept}")
            self._report.note(receipt.not_kept)
        for name in receipt.written:
            self._report.note(
                f"{name} is written by {self._task.stage}: it is not written again when the result is loaded"
            )

    def _explained(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        template = self._plan.template
        if not outcomes or self._explainer is None or template is None:
            return outcomes
        names = {outcome.stage for outcome in outcomes if outcome.outcome != "loaded"} - self._described
        for stage in template.stages if names else ():
            if stage.name in names:
                ingredients = describe_stage(stage, self._task.call.processor, versions=self._task.versions)
                self._ingredients[ingredients.digest] = ingredients
        self._described |= names
        return self._explainer.explained(outcomes, self._ingredients)
