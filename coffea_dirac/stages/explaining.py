"""Why a result is not kept: what is asked for now, compared with what earlier runs have kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from coffea_dirac import codecs
from coffea_dirac.fingerprint import Ingredients, diff
from coffea_dirac.interfaces import Json, Outcome, Record, Row
from coffea_dirac.redact import tree_without_secrets


class Records(Protocol):
    """What is kept, as a `StageCache` has it."""

    def look_up(self, keys: Iterable[str]) -> dict[str, list[Row]]: ...  # noqa: D102 - as StageCache has it
    def load(self, rows: Sequence[Row]) -> dict[Row, Any]: ...  # noqa: D102
    def keep_records(self, records: Sequence[Record]) -> list[Row]: ...  # noqa: D102
    def earlier(self, stages: Iterable[str]) -> dict[str, list[Row]]: ...  # noqa: D102


def template_key(stage: str) -> str:
    """Return the key under which the templates of a stage are kept."""
    return hashlib.sha256(b"templates of stage 1\0" + stage.encode()).hexdigest()


def why_new(records: Records, stage: str, ingredients: Ingredients) -> Mapping[str, Json]:
    """Return why a template has no records: how it differs from the one used last for the same stage.

    A template that is new is kept, so that a later miss can be explained as the difference to it.
    """
    key = template_key(stage)
    rows = records.look_up([key]).get(key, [])
    if any(row.info.get("template") == ingredients.digest for row in rows):
        return {"reason": "new input"}
    why = why_other(records, rows, ingredients)
    records.keep_records([template_record(stage, ingredients)])
    return why


def template_record(stage: str, ingredients: Ingredients) -> Record:
    """Return a template as it is kept; others may read the store."""
    payload = codecs.encode(tree_without_secrets(ingredients.tree))
    info = {"template": ingredients.digest, "created_s": round(time.time(), 3)}
    return Record(template_key(stage), payload.data, payload.codec, info=info)


def why_other(records: Records, rows: Sequence[Row], ingredients: Ingredients) -> Mapping[str, Json]:
    """Return how a template differs from the latest of those that `rows` have."""
    if not rows:
        return {"reason": "first run"}
    last = max(rows, key=lambda row: float(row.info.get("created_s", 0.0)))
    old = records.load([last]).get(last)
    changes = diff(old, ingredients.tree) if old is not None else []
    if not changes:
        return {"reason": "new fingerprint"}
    kinds = {change.kind for change in changes}
    reason = f"new {kinds.pop()}" if len(kinds) == 1 else "new code"
    texts = [change.text.removeprefix(f"{reason}: ") for change in changes]
    return {
        "reason": reason,
        "where": "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else ""),
    }


class Explainer:
    """Explains outcomes of stages in one run, asking about each template and each stage once.

    Parameters
    ----------
    records : Records
        What is kept.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._whys: dict[tuple[str, str], Mapping[str, Json]] = {}
        self._arguments: dict[str, dict[str, set[str]]] = {}

    def explained(self, outcomes: Iterable[Outcome], ingredients: Mapping[str, Ingredients]) -> list[Outcome]:
        """Return outcomes with a reason in place of the template and the arguments they had.

        Parameters
        ----------
        ingredients : mapping
            Template -> what it came from.
        """
        found = []
        for outcome in outcomes:
            reason = dict(outcome.reason or {})
            template, arguments = str(reason.pop("template", "")), reason.pop("arguments", {})
            if template in ingredients and reason.get("reason") == "new input":
                why = self._why_new(outcome.stage, template, ingredients[template])
                reason = reason if why["reason"] == "new input" else dict(why)
            if arguments and reason == {"reason": "new input"}:
                reason = self._new_argument(outcome.stage, arguments) or reason
            found.append(replace(outcome, reason=reason or None))
        return found

    def _why_new(self, stage: str, template: str, ingredients: Ingredients) -> Mapping[str, Json]:
        why = self._whys.get((stage, template))
        if why is None:
            why = self._whys[stage, template] = why_new(self._records, stage, ingredients)
        return why

    def _new_argument(self, stage: str, arguments: Mapping[str, str]) -> dict[str, Json] | None:
        """Return which argument of a stage has a value that none of its records has, None if there is none."""
        known = self._arguments.get(stage)
        if known is None:
            known = self._arguments[stage] = {}
            for row in self._records.earlier([stage]).get(stage, ()):
                for name, digest in row.info.get("arguments", {}).items():
                    known.setdefault(name, set()).add(digest)
        for name, digest in arguments.items():
            if digest not in known.get(name, {digest}):
                file = digest.rpartition(" ")[0]
                return {"reason": "new content", "where": file} if file else {"reason": "new argument", "where": name}
        return None
