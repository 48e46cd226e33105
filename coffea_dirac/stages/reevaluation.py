"""Pulling handles while a part of what is found is computed again and compared: see `verifying`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.codecs.item_metadata import ITEM_METADATA
from coffea_dirac.context import let
from coffea_dirac.inputs.discovery import unrecorded
from coffea_dirac.stages.evaluation import Evaluator
from coffea_dirac.stages.handles import Handle
from coffea_dirac.stages.keeper import Keeper, Kept
from coffea_dirac.stages.place import Place
from coffea_dirac.stages.resources import Blocked
from coffea_dirac.stages.verifying import Verification, shown

Make = Callable[[Keeper, Place, Callable[[str], None]], Evaluator]


def evaluator_of(verification: Verification) -> Make:
    """Return what makes an evaluator for runs with such a verification."""
    return partial(VerifyingEvaluator, verification) if verification.fraction else Evaluator


class VerifyingEvaluator(Evaluator):
    """Pulls handles as `Evaluator` does, and verifies some of those that it finds; what it counts is the same.

    Parameters
    ----------
    verification : Verification
        How many, and how exactly.
    keeper, place, note
        As for `Evaluator`.
    """

    def __init__(
        self, verification: Verification, keeper: Keeper, place: Place, note: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__(keeper, place, note)
        self._verification = verification
        self._seen = set[str]()

    def part(self, handle: Handle) -> Any:
        """Return the result of a handle as a value: what is compared is written in one way."""
        return self.fresh(handle)

    def _find(self, handle: Handle) -> bool:
        is_found = super()._find(handle)
        if is_found and (kept := self._results[handle.fingerprint].kept) is not None and self._verification.picks():
            self._verify(handle, kept)
        return is_found

    def _verify(self, handle: Handle, kept: Kept) -> None:
        """Compare a record, and then some of those above it, with what is computed from the ones above it."""
        waiting = [(handle, kept)]
        while waiting:
            handle, kept = waiting.pop()
            payload = self._keeper.payload(kept) if handle.fingerprint not in self._seen else None
            if payload is None:
                # Verified already; or it cannot be read, and then is not used either.
                continue
            self._seen.add(handle.fingerprint)
            again = _Again(self._keeper, self._place, self._note)
            what = shown(handle.stage.name, kept.info)
            try:
                again.pull(handle.arguments.parents)
                computed = payload if handle.stage.writes else again.computed(handle)
            except Blocked as blocked:
                self._note(f"{handle.stage.name} is loaded and not verified: that needs another worker, for {blocked}")
                continue
            if not handle.stage.writes:
                with unrecorded():
                    self._verification.compare(what, kept.info, payload, computed)
                self.verified.append(what)
            waiting += [pair for pair in again.found(handle) if self._verification.picks()]


class _Again(Evaluator):
    """Computes one handle again from what is above it, which is loaded where it is kept; keeps nothing."""

    def computed(self, handle: Handle) -> bytes:
        """Return the payload of what the stage returns now."""
        self.pull(handle.arguments.parents)
        self._compute(handle)
        # Nothing is pulled here: that raises if the stage cannot run on this worker.
        self.pull([])
        result = self._results[handle.fingerprint]
        with let(ITEM_METADATA, handle._graph.metadata):
            return result.payload[1] if result.payload is not None else codecs.encode(result.value).data

    def found(self, handle: Handle) -> list[tuple[Handle, Kept]]:
        """Return the nearest handles above that were found, with their records; past those that are not kept."""
        pairs, waiting, seen = [], list(handle.arguments.parents), set[str]()
        while waiting:
            parent = waiting.pop()
            result = self._results.get(parent.fingerprint)
            if result is None or parent.fingerprint in seen:
                continue
            seen.add(parent.fingerprint)
            if result.kept is not None:
                pairs.append((parent, result.kept))
            else:
                waiting += parent.arguments.parents
        return pairs

    def _keep(self, *_: Any) -> None:
        """Keep nothing."""
