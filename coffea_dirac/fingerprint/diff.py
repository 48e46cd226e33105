"""What became different between two fingerprints, as data first and one line of text last."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coffea_dirac.interfaces import Json
from coffea_dirac.redact import tree_without_secrets

Kind = Literal["code", "value", "version", "file", "behavior", "setting"]
_TOKEN = re.compile(r'b?"(?:[^"\\]|\\.)*"|[^\s()\[\]=]+|[()\[\]=]')
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: of which kind, where, what was there and what is now, at which line (0: none).

    Examples
    --------
    >>> Difference("code", "select_jets", "30", "25", 14).text
    'new code: select_jets, line 14: `30` became `25`'
    """

    kind: Kind
    where: str
    old: str = ""
    new: str = ""
    line: int = 0

    @property
    def text(self) -> str:
        """The difference in one line."""
        if self.kind == "version" and self.old and self.new:
            return f"new version: {self.where} {self.old} -> {self.new}"
        place = f"{self.where}, line {self.line}" if self.line else self.where
        if not self.old:
            change = f"`{_short(self.new)}` is new" if self.new else "is new"
        elif not self.new:
            change = f"`{_short(self.old)}` is gone"
        else:
            change = f"`{_short(self.old)}` became `{_short(self.new)}`"
        return f"new {self.kind}: {place}: {change}"


def diff(old_tree: Mapping[str, Json], new_tree: Mapping[str, Json]) -> list[Difference]:
    """Return how two trees of ingredients differ.

    Parameters
    ----------
    old_tree, new_tree : mapping
        `Ingredients.tree` of two fingerprints; JSON round trips do them no harm.

    Returns
    -------
    list of Difference
        Edited code first, then values, versions and files, then code that came or went; empty if the digests agree.
        Secrets are not shown.

    Examples
    --------
    >>> from coffea_dirac.fingerprint import describe
    >>> [d.text for d in diff(describe({"cut": 30}).tree, describe({"cut": 25}).tree)]
    ['new value: cut: `30` became `25`']
    """
    if (old := old_tree.get("versions", "exact")) != (new := new_tree.get("versions", "exact")):
        # All else that differs may follow from this.
        return [Difference("setting", "versions", old, new)]
    old_tree, new_tree = tree_without_secrets(old_tree), tree_without_secrets(new_tree)
    found = [*_roots(old_tree, new_tree), *_nodes(old_tree, new_tree)]
    for part, kind in (("packages", "version"), ("files", "file"), ("behavior", "behavior")):
        found.extend(_parts(kind, old_tree.get(part) or {}, new_tree.get(part) or {}))  # type: ignore[arg-type]
    if not found and _content(old_tree) != _content(new_tree):
        found.append(Difference("value", "scheme", str(old_tree.get("scheme")), str(new_tree.get("scheme"))))
    return sorted(found, key=lambda d: (d.kind != "code" or not (d.old and d.new), d.kind))


def _content(tree: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in tree.items() if not key.startswith("@")}


def _roots(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[Difference]:
    yield from _values("", old.get("roots", {}), new.get("roots", {}))


def _nodes(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[Difference]:
    before, after = old.get("nodes", {}), new.get("nodes", {})
    places = new.get("@places", {})
    old_places = old.get("@places", {})
    for label in sorted({*before, *after}):
        if label not in before:
            yield Difference("code" if "()" not in label else "value", label)
        elif label not in after:
            yield Difference("code" if "()" not in label else "value", label, label)
        elif before[label] != after[label]:
            one, two = dict(before[label]) if isinstance(before[label], dict) else {}, after[label]
            if isinstance(two, dict) and one.get("code") != two.get("code"):
                yield _code(label, (one.get("code", []), two.get("code", [])), old_places.get(label), places.get(label))
            one.pop("code", None)
            rest = {k: v for k, v in two.items() if k != "code"} if isinstance(two, dict) else two
            yield from _values(label, one or before[label], rest)


def _code(label: str, lines: tuple[list[str], list[str]], old_place: Any, place: Any) -> Difference:
    """Return the first changed statement: by its one changed token if there is but one, else by its source line."""
    old, new = lines
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for _, a, a_end, b, b_end in (o for o in matcher.get_opcodes() if o[0] != "equal"):
        line = _at(place, "numbers", b) or _at(place, "numbers", b - 1) or 0
        if a_end > a and b_end > b:
            pair = _tokens(old[a], new[b])
            if pair is not None:
                return Difference("code", label, *pair, line)
        before = _at(old_place, "text", a) or old[a].strip() if a_end > a else ""
        after = _at(place, "text", b) or new[b].strip() if b_end > b else ""
        if before == after:  # an edit further down in a statement of several lines
            before, after = old[a].strip(), new[b].strip()
        return Difference("code", label, before, after, line)
    return Difference("code", label, "code", "code")


def _at(place: Any, name: str, position: int) -> Any:
    values = (place or {}).get(name) or []
    return values[position] if 0 <= position < len(values) else None


def _tokens(old: str, new: str) -> tuple[str, str] | None:
    one, two = _TOKEN.findall(old), _TOKEN.findall(new)
    changed = [(a, b) for a, b in zip(one, two, strict=False) if a != b]
    return changed[0] if len(one) == len(two) and len(changed) == 1 else None


def _values(where: str, old: Json, new: Json) -> Iterator[Difference]:
    """Yield the leaves that differ."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            inner = _join(where, key)
            if key not in old or key not in new:
                yield Difference("value", inner, _show(old.get(key, "")), _show(new.get(key, "")))
            else:
                yield from _values(inner, old[key], new[key])
        return
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        if len(changed) == 1:
            yield from _values(_pair_name(where, old, changed[0]), *changed[0])
            return
    yield Difference("value", where, _show(old), _show(new))


def _pair_name(where: str, holder: list[Json], changed: tuple[Json, Json]) -> str:
    """Return a path that names the key, if a list is an item of a mapping."""
    if len(holder) == 2 and holder[1] == changed[0] and isinstance(holder[0], str):
        return f"{where}[{_show(holder[0])}]"
    return where


def _join(where: str, key: str) -> str:
    if key in ("names", "body", "roots"):
        return where
    return f"{where} -> {key}" if where else key


def _show(value: Json) -> str:
    if isinstance(value, str):
        kind, _, rest = value.partition(" ")
        return rest if kind in ("int", "float", "str", "complex") and rest else value
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _parts(kind: Kind, old: Any, new: Any) -> Iterator[Difference]:
    if isinstance(old, list) or isinstance(new, list):
        old, new = ({str(k): str(v) for k, v in part or []} for part in (old, new))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield Difference(kind, name, str(old.get(name, "")), str(new.get(name, "")))
