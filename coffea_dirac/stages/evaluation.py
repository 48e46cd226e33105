"""Pulling handles: what is kept is loaded, what would come out the same is cut, the rest is computed and kept.

Of a handle that is missing its inputs are pulled first, as far as their *digests*.  If a record of the same stage on
inputs with the same bytes is kept (its second key says so), the stage is cut: not run, though the code above it
changed.  Only what a stage is really run on is read and decoded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coffea_dirac import codecs
from coffea_dirac.codecs.item_metadata import ITEM_METADATA, refers_to_metadata
from coffea_dirac.context import let
from coffea_dirac.environment import environment
from coffea_dirac.errors import CodecError, StageError
from coffea_dirac.inputs.discovery import Checker, unrecorded
from coffea_dirac.interfaces import Discovered, Json, Outcome, Record, Row
from coffea_dirac.stages.arguments import Source
from coffea_dirac.stages.execution import execute
from coffea_dirac.stages.handles import Handle
from coffea_dirac.stages.keeper import Keeper, Kept
from coffea_dirac.stages.place import Place, runs_all
from coffea_dirac.stages.resources import Blocked
from coffea_dirac.stages.rows import choose

_UNREAD = object()
# Smaller ones are no longer as values of the whole that they are a part of.
_LARGE_BYTES = 1 << 10


@dataclass(slots=True)
class Result:
    """What came of a handle: its digest at once, its value when it is asked for.

    `inputs` are the discovered inputs of the stage and of all it came from; `columns` likewise those read; it is sure
    if all of these can be checked later.
    """

    digest: str
    inputs: frozenset[Discovered]
    columns: frozenset[str] = frozenset()
    kept: Kept | None = None
    payload: tuple[str, bytes] | None = None
    value: Any = _UNREAD
    is_counted: bool = True
    is_sure: bool = True


class Evaluator:
    """Pulls the handles of one graph.

    Parameters
    ----------
    keeper : Keeper
        Where records are.
    place : Place
        Where stages run.
    note : callable
        Takes a text for the user, once for each kind.

    Attributes
    ----------
    outcomes : list of Outcome
        What was loaded, computed and cut, in this order of events.
    verified : list of str
        What of it was computed again and came out the same.
    """

    def __init__(self, keeper: Keeper, place: Place, note: Callable[[str], None] = lambda text: None) -> None:
        self._keeper, self._place, self._note = keeper, place, note
        self._checker = Checker()
        self._results: dict[str, Result] = {}
        self._blocked: dict[str, Handle] = {}
        self._barred: list[Handle] = []
        self._is_published = True
        self._reasons: dict[str, Mapping[str, Json]] = {}
        self.outcomes: list[Outcome] = []
        self.verified: list[str] = []

    # ---------------------------------------------------------------- pulling

    def pull(self, handles: Iterable[Handle]) -> list[Result]:
        """Find or make the results of handles.

        Raises
        ------
        Blocked
            Some may not run here; the others are done.
        StageError
            A stage was written so that its result cannot be kept.
        """
        wanted = list(dict.fromkeys(handles))
        may_bar = self._place.can_run is not runs_all and not self._keeper.can_keep
        if may_bar and (barred := self._barred_in(wanted)):
            # What is done here could not be found elsewhere.
            self._barred, self._is_published = barred, False
        for handle in [] if self._barred else wanted:
            self._resolve(handle)
        if self._barred:
            # Also if ``process`` has gone on after it heard so: what it made then is not its result.
            raise Blocked([handle.stage for handle in self._barred], is_kept=self._is_published)
        return [self._results[handle.fingerprint] for handle in wanted]

    def value(self, handle: Handle) -> Any:
        """Return the result of a handle, for others to read."""
        result = self.pull([handle])[0]
        if result.value is _UNREAD:
            value = self._decoded(handle, result)
            # What could not be read has been made again: then the result is another one.
            self._results[handle.fingerprint].value = value
            return value
        return result.value

    def fresh(self, handle: Handle) -> Any:
        """Return the result of a handle, for the caller to change."""
        value = self.value(handle)
        result = self._results[handle.fingerprint]
        if result.payload is not None:
            # The next one who asks gets another.
            result.value = _UNREAD
        return value

    def part(self, handle: Handle) -> Any:
        """Return the result of a handle, for a caller who encodes it: a large one as the payload that it is kept as."""
        result = self.pull([handle])[0]
        # What is loaded has to be readable, else it is computed again.
        value = self.fresh(handle) if result.payload is None or not result.is_counted else _UNREAD
        payload = self._results[handle.fingerprint].payload
        if payload is not None and len(payload[1]) >= _LARGE_BYTES and not refers_to_metadata(payload[1]):
            return codecs.Payload(*payload)
        return self.fresh(handle) if value is _UNREAD else value

    def fetch(self, handles: Iterable[Handle]) -> None:
        """Read the results of pulled handles that are asked for next together: each request costs more than they do."""
        results = (self._results[handle.fingerprint] for handle in handles)
        waiting = {r.kept: r for r in results if isinstance(r.kept, Row) and r.payload is None and r.value is _UNREAD}
        for row, payload in self._keeper.payloads(waiting).items() if len(waiting) > 1 else ():
            waiting[row].payload = row.codec, payload

    def all_inputs(self) -> frozenset[Discovered]:
        """Return all that was discovered while results were computed, now or earlier."""
        return frozenset().union(*(result.inputs for result in self._results.values()))

    def all_columns(self) -> frozenset[str]:
        """Return the columns that results were computed from, now or earlier."""
        return frozenset().union(*(result.columns for result in self._results.values()))

    def _resolve(self, handle: Handle) -> None:
        """Find a result, or first those it needs and then make it; chains of stages may be long, so no recursion."""
        stack = [(handle, False)]
        while stack:
            current, has_parents = stack.pop()
            key = current.fingerprint
            if key in self._results or key in self._blocked:
                continue
            if not has_parents:
                if not self._find(current):
                    stack.append((current, True))
                    stack.extend((parent, False) for parent in reversed(current.arguments.parents))
            elif any(parent.fingerprint in self._blocked for parent in current.arguments.parents):
                self._blocked[key] = current
                # What it needs is blocked, it is not: others may go on without it.
            elif not self._cut(current):
                self._compute(current)

    def _barred_in(self, handles: Iterable[Handle]) -> list[Handle]:
        """Return the handles that would have to run and may not, among these and those that they come from."""
        waiting, seen = list(handles), set[str]()
        found = []
        while waiting:
            handle = waiting.pop()
            if handle.fingerprint in seen or handle.fingerprint in self._results or self._find(handle):
                continue
            seen.add(handle.fingerprint)
            waiting.extend(handle.arguments.parents)
            found += [] if self._place.can_run(handle.stage.resources) else [handle]
        return found

    def _bar(self, handle: Handle) -> None:
        """Leave a handle to another worker, and keep what it takes, for that to find."""
        self._blocked[handle.fingerprint] = handle
        self._barred.append(handle)
        for parent in handle.arguments.parents if handle.stage.resources else ():
            self._publish(parent, self._results[parent.fingerprint])

    def _publish(self, handle: Handle, result: Result) -> None:
        """Keep a result that is needed elsewhere, also that of a stage that is not kept otherwise."""
        if self._keeper.look_up(handle.fingerprint):
            return
        try:
            with let(ITEM_METADATA, handle._graph.metadata):
                payload = codecs.encode(result.value) if result.is_sure else None
        except CodecError:
            payload = None
        if payload is None:
            self._is_published = False
            return
        kept = replace(result, payload=(payload.codec, payload.data))
        self._keep(handle, kept, result.inputs, 0.0)

    # ---------------------------------------------------------------- loading and cutting

    def _find(self, handle: Handle) -> bool:
        if not handle.stage.keep and self._place.can_run({}):
            return False
        kept, reason = self._choose(self._keeper.look_up(handle.fingerprint), handle)
        if reason is not None:
            self._reasons[handle.fingerprint] = reason
        if kept is None:
            return False
        self._results[handle.fingerprint] = self._result_of(kept, is_counted=False)
        return True

    def _choose(self, rows: list[Kept], handle: Handle) -> tuple[Kept | None, Mapping[str, Json] | None]:
        return choose(rows, self._checker, self._place.metadata, self._named_files(handle))

    def _named_files(self, handle: Handle) -> Mapping[str, str]:
        in_arguments = handle._graph.templates.named_files(frozenset(handle.arguments.strings))
        return {**handle.template.named_files, **in_arguments} if in_arguments else handle.template.named_files

    def _result_of(self, kept: Kept, *, is_counted: bool) -> Result:
        digest = kept.digest if isinstance(kept, Row) else hashlib.sha256(kept.payload).hexdigest()
        columns = frozenset(kept.info.get("columns", ()))
        return Result(digest, frozenset(kept.inputs), columns, kept, is_counted=is_counted)

    def _cut(self, handle: Handle) -> bool:
        """Take the record of the same stage on the same bytes, if there is one, as that of this handle too."""
        if not (handle.stage.keep and handle.arguments.parents):
            return False
        for kept in reversed(self._keeper.look_up_second(self._second_key(handle))):
            own = _own(kept)
            if choose([_Inputs(own)], self._checker, self._place.metadata, self._named_files(handle))[0] is None:
                continue
            payload = self._keeper.payload(kept)
            if payload is None:
                continue
            result = Result(
                hashlib.sha256(payload).hexdigest(),
                self._from_parents(handle).union(own),
                self._columns(handle),
                payload=(kept.codec, payload),
            )
            self._keep(handle, result, frozenset(own), float(kept.info.get("seconds", 0.0)))
            self._results[handle.fingerprint] = result
            self.outcomes.append(self._outcome(handle, "cut"))
            return True
        return False

    def _second_key(self, handle: Handle) -> str:
        text = handle.arguments.text(lambda parent: self._results[parent.fingerprint].digest)
        text = f"stage by content 1 {handle.template.digest} {text}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _from_parents(self, handle: Handle) -> frozenset[Discovered]:
        return frozenset().union(*(self._results[p.fingerprint].inputs for p in handle.arguments.parents))

    def _columns(self, handle: Handle) -> frozenset[str]:
        above = [self._results[parent.fingerprint] for parent in handle.arguments.parents]
        reads = handle.arguments.has_source or any(result.value is not _UNREAD for result in above)
        return frozenset(self._place.columns() if reads else ()).union(*(result.columns for result in above))

    def _decoded(self, handle: Handle, result: Result) -> Any:
        """Return the value of a result; what cannot be read is computed again."""
        while True:
            if result.payload is None and result.kept is not None:
                payload = self._keeper.payload(result.kept)
                result.payload = None if payload is None else (result.kept.codec, payload)
            try:
                if result.payload is not None:
                    with let(ITEM_METADATA, handle._graph.metadata):
                        value = codecs.decode(*result.payload)
                    if not result.is_counted:
                        result.is_counted = True
                        self.outcomes.append(self._outcome(handle, "loaded"))
                    return value
            except CodecError:
                self._keeper.is_unreadable(result.kept) if result.kept is not None else None
            del self._results[handle.fingerprint]
            self._reasons[handle.fingerprint] = {"reason": "unreadable"}
            result = self.pull([handle])[0]
            if result.value is not _UNREAD:
                return result.value

    # ---------------------------------------------------------------- computing

    def _compute(self, handle: Handle) -> None:
        stage = handle.stage
        if not self._place.can_run(stage.resources):
            self._bar(handle)
            return
        self.fetch(handle.arguments.parents)
        done = execute(handle, self._value_of, ignored=self._place.ignored, named_files=self._named_files(handle))
        for name in done.written:
            self._note(f"{name} is written by stage {stage.name}: it is not written again on a hit")
        result = self._made(handle, done.value, done.inputs)
        if done.problem:
            result.is_sure = False
            self._note(f"the result of stage {stage.name} is computed and not kept: {done.problem}")
        elif result.payload is not None:
            self._keep(handle, result, done.inputs, done.seconds)
        self._results[handle.fingerprint] = result
        if stage.is_told:
            self.outcomes.append(self._outcome(handle, "computed", done.seconds))

    def _value_of(self, value: Any) -> Any:
        if type(value) is Handle:
            return self.value(value)
        source: Source | None = value if hasattr(type(value), "is_whole") else None
        return source.events() if source is not None else value

    def _made(self, handle: Handle, value: Any, own: frozenset[Discovered]) -> Result:
        """Return a result as those who load it later will find it: what is kept is read from its payload."""
        inputs = self._from_parents(handle) | own
        if isinstance(value, Iterator):
            raise StageError(
                f"stage {handle.stage.name} returns a {type(value).__name__}, which can be gone through only once and "
                "cannot be kept: return a list"
            )
        if not handle.stage.keep or not self._keeper.can_keep:
            return Result(f"made by {handle.fingerprint}", inputs, self._columns(handle), value=value)
        try:
            with let(ITEM_METADATA, handle._graph.metadata):
                payload = codecs.encode(value)
        except CodecError as error:
            raise StageError(
                f"stage {handle.stage.name} returns what cannot be kept: {error}; or mark it @stage(keep=False)"
            ) from error
        digest = hashlib.sha256(payload.data).hexdigest()
        # Asked for now: what a stage returns unread is read when it is encoded.
        return Result(digest, inputs, self._columns(handle), payload=(payload.codec, payload.data))

    def _keep(self, handle: Handle, result: Result, own: frozenset[Discovered], seconds: float) -> None:
        assert result.payload is not None, "only what has a payload is kept"
        with unrecorded():
            made_in = environment()
        info = {
            **self._place.info,
            "stage": handle.stage.name,
            "template": handle.template.digest,
            "seconds": round(seconds, 6),
            "created_s": round(time.time(), 3),
            "columns": sorted(result.columns),
            "environment": made_in,
            "own": sorted(f"{i.kind} {i.name}" for i in own),
            "arguments": handle.arguments.digests,
        }
        codec, data = result.payload
        second = self._second_key(handle) if handle.arguments.parents else ""
        self._keeper.keep(Record(handle.fingerprint, data, codec, tuple(sorted(result.inputs)), second, info))

    def _outcome(self, handle: Handle, outcome: Any, seconds: float = 0.0) -> Outcome:
        reason: Mapping[str, Json] | None = None
        if outcome != "loaded":
            made = {o.fingerprint for o in self.outcomes if o.outcome == "computed"}
            above = sorted({p.stage.name for p in handle.arguments.parents if p.fingerprint in made})
            reason = self._reasons.get(handle.fingerprint) or {
                "reason": "new input",
                **({"where": ", ".join(above)} if above else {"arguments": handle.arguments.digests}),
            }
            reason = {**reason, "template": handle.template.digest}
        return Outcome(handle.stage.name, handle.fingerprint, outcome, reason, seconds, work_items=0)


@dataclass(frozen=True)
class _Inputs:
    inputs: tuple[Discovered, ...]


def _own(kept: Kept) -> tuple[Discovered, ...]:
    """Return what a stage itself read, without what the stages above it read."""
    own = kept.info.get("own")
    return kept.inputs if own is None else tuple(i for i in kept.inputs if f"{i.kind} {i.name}" in own)
