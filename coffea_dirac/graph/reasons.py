"""Why results of a graph are not kept: their own function is another one, or one that they come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from coffea_dirac.fingerprint import Ingredients
from coffea_dirac.graph import nodes
from coffea_dirac.graph.layers import bottom_up
from coffea_dirac.graph.literals import Values, by_form, changed, digest_of, operations, unit, values_record
from coffea_dirac.graph.nodes import Key
from coffea_dirac.graph.plan import Plan, below
from coffea_dirac.graph.prints import Prints
from coffea_dirac.interfaces import Json, Record, Row
from coffea_dirac.stages.explaining import Records, template_key, template_record, why_other

Reason = Mapping[str, Json]
_NEW_INPUT: Reason = {"reason": "new input"}
_MOST_NAMED, _MOST_GRAPHS = 3, 8


class Function(NamedTuple):
    """Code that a task calls: its name, and the digest of all that it is."""

    name: str
    digest: str


class Functions:
    """Tells the functions of keys, each looked at once.

    Parameters
    ----------
    prints : Prints
        Of the graph.
    """

    def __init__(self, prints: Prints) -> None:
        self._view, self._values = prints.view, prints.values
        self._known: dict[int, Function] = {}
        self._of_keys: dict[Key, Function] = {}

    def __call__(self, key: Key) -> Function:
        """Return the function of a key, without the wrappers of collections."""
        found = self._of_keys.get(key)
        if found is None:
            found = self._of_keys[key] = self._function(key)
        return found

    def _function(self, key: Key) -> Function:
        layer = self._view.layer(key)
        node = self._view.node(key) if layer is None else layer.task
        func = node.func if nodes.tells_by_itself(node) else nodes.innermost(node)
        found = self._known.get(id(func))
        if found is None:
            digest = self._values.described(nodes.innermost(node)).digest
            found = self._known[id(func)] = Function(nodes.name_of(node), digest)
        return found


class Reasons:
    """Explains what is computed in the graphs of one door, asking about each function once.

    Parameters
    ----------
    records : Records
        What is kept.
    ingredients : mapping
        Digest of a function -> what it came from.
    """

    def __init__(self, records: Records, ingredients: Mapping[str, Ingredients]) -> None:
        self._records, self._ingredients = records, ingredients
        self._whys: dict[Function, Reason] = {}

    def of(self, plan: Plan, prints: Prints, own: Mapping[Key, Function]) -> dict[Key, Reason]:
        """Return why each key that is kept is computed; `own` are the functions of these keys."""
        units = {unit(prints.view, key) for key in plan.computed}
        met = {digest for one in units for digest in prints.functions.get(one, ())}
        names = prints.values.names
        self._ask({*own.values(), *(Function(names[digest], digest) for digest in met)})
        changes = self._changed(units, prints, own)
        causes: dict[Key, list[Reason]] = {u: [{"reason": "new argument", "where": t}] for u, t in changes.items()}
        for one in units.intersection(prints.functions):
            whys = [self._whys[Function(names[digest], digest)] for digest in sorted(prints.functions[one])]
            if others := list(filter(_is_other, whys)):
                causes[one] = [*causes.get(one, ()), *others]
        # What has another function itself needs no other reason.
        doubtful = [key for key in plan.keeps if not _is_other(self._whys[own[key]])] if causes else []
        reached = _reached(doubtful, plan, prints, causes)
        return {
            key: self._reason(own[key], [why for one in reached.get(key, ()) for why in causes[one]])
            for key in plan.keeps
        }

    def _changed(self, units: Iterable[Key], prints: Prints, own: Mapping[Key, Function]) -> dict[Key, str]:
        """Return which operations are given other values than in earlier graphs, and how they differ."""
        found = operations(prints.view, units)
        now = by_form(found.values())
        if not now:
            return {}
        name = "values in graphs of " + ", ".join(sorted({function.name for function in own.values()}))
        rows = self._records.look_up([template_key(name)]).get(template_key(name), [])
        if any(row.info.get("template") == digest_of(now) for row in rows):
            return {}
        before: Values = {}
        latest = sorted(rows, key=lambda row: float(row.info.get("created_s", 0.0)), reverse=True)[:_MOST_GRAPHS]
        for _, forms in sorted(self._records.load(latest).items(), key=lambda pair: latest.index(pair[0])):
            before = {**forms, **before}
        self._records.keep_records([values_record(name, now)])
        told = {one: changed(o, now, before) for one, o in found.items()}
        return {one: text for one, text in told.items() if text}

    def _reason(self, own: Function, others: list[Reason]) -> Reason:
        why = self._whys[own]
        if why["reason"] == "first run":
            return {"reason": "first run"}
        if _is_other(why) or not others:
            return why
        edited = [other for other in others if other["reason"] != "first run"] or others
        kinds = {str(other["reason"]) for other in edited}
        places = sorted({str(other["where"]) for other in edited if other.get("where")})
        more = f" and {len(places) - _MOST_NAMED} more" if len(places) > _MOST_NAMED else ""
        return {
            "reason": kinds.pop() if len(kinds) == 1 else "new code",
            "where": "; ".join(places[:_MOST_NAMED]) + more,
        }

    def _ask(self, functions: Iterable[Function]) -> None:
        """Find out how functions differ from those of their name that were used last; the new ones are kept."""
        asked = sorted(f for f in functions if f not in self._whys)
        if not asked:
            return
        rows = self._records.look_up({template_key(f.name) for f in asked})
        in_use = {f.digest for f in (*asked, *self._whys)}
        new = list[Record]()
        for function in asked:
            kept = rows.get(template_key(function.name), [])
            if any(row.info.get("template") == function.digest for row in kept):
                self._whys[function] = _NEW_INPUT
                continue
            self._whys[function] = self._why(function, [r for r in kept if r.info.get("template") not in in_use])
            new.append(template_record(function.name, self._ingredients[function.digest]))
        self._records.keep_records(new)

    def _why(self, function: Function, others: list[Row]) -> Reason:
        # A function of the same name that is in use beside it is not what it was.
        why = why_other(self._records, others, self._ingredients[function.digest])
        return {**why, "where": function.name} if why["reason"] == "first run" else why


def _is_other(why: Reason) -> bool:
    return str(why["reason"]) != "new input"


def _reached(starts: Iterable[Key], plan: Plan, prints: Prints, causes: Collection[Key]) -> dict[Key, frozenset[Key]]:
    """Return which of some layers and single tasks computed keys come from."""
    found = dict[Key, frozenset[Key]]()

    def needed(key: Key) -> list[Key]:
        return [k for k in below(prints.view, key) if k in plan.computed]

    for key in bottom_up(starts, needed, found):
        own = {unit(prints.view, key)}.intersection(causes)
        found[key] = frozenset(own).union(*(found[k] for k in needed(key) if k in found))
    return found
