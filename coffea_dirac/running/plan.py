"""What is known before anything is computed: which results exist, and why the others do not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coffea_dirac.cache import StageCache
from coffea_dirac.calls import ProcessingCall, item_metadata
from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import Ingredients
from coffea_dirac.inputs.discovery import Checker
from coffea_dirac.inputs.identity import FileIdentity, Reading, local_path
from coffea_dirac.inputs.memo import IdentityMemo
from coffea_dirac.inputs.metadata import metadata_digest
from coffea_dirac.inputs.paths import files_named
from coffea_dirac.interfaces import Json, Row, Versions
from coffea_dirac.merge import Leaf
from coffea_dirac.records import warn
from coffea_dirac.running.messages import stale_plan
from coffea_dirac.running.workers import Workers
from coffea_dirac.stages.explaining import why_new
from coffea_dirac.stages.rows import choose
from coffea_dirac.worker.task import template_of

# Metadata that all work items of a file have in common, as texts, beside what the fileset says.
_OF_FILES = ("dataset", "filename", "treename")


@dataclass
class Run:
    """What one call works with."""

    workers: Workers
    cache: StageCache | None
    memo: IdentityMemo
    told: set[str]
    io_retries: int = 2
    collect: bool = False
    status: bool = True
    desc: str = "Processing"
    unit: str = "items"

    @property
    def versions(self) -> Versions:
        """How versions of installed packages count: a setting of the cache."""
        return self.cache.versions if self.cache is not None else "exact"

    def warn_once(self, text: str) -> None:
        """Warn, once in the life of an executor."""
        if text not in self.told:
            self.told.add(text)
            warn(text)


@dataclass
class Plan:
    """What is known before anything is computed: of each work item the key, and its row or why it has none."""

    items: list[Any]
    identities: Mapping[str, FileIdentity]
    template: Ingredients | None = None
    not_kept: str = ""
    named_files: Mapping[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    reasons: dict[int, Mapping[str, Json]] = field(default_factory=dict)


def stage_name(call: ProcessingCall) -> str:
    """Return the name under which results of a processor are reported: that of its class, or of the function."""
    processor = call.processor
    return str(getattr(processor, "__qualname__", type(processor).__qualname__))


def make_plan(run: Run, call: ProcessingCall, items: list[Any]) -> Plan:
    """Find for each work item where its result is, or the reason why there is none."""
    plan = Plan(items, identify(run, call, items))
    try:
        plan.template = template_of(call, versions=run.versions)
        plan.named_files = named_files(plan.template.strings, items)
    except FingerprintError as error:
        plan.not_kept = f"{stage_name(call)} is computed and not kept, since a part of it has no fingerprint: {error}"
    if call.arguments.get("checkpointer") is not None:
        plan.not_kept = (
            "results are computed and not kept: Runner(checkpointer=...) may return any result; leave it out"
        )
    if plan.not_kept and run.cache is not None:
        run.warn_once(plan.not_kept)
    plan.keys = [_key(plan, item) for item in items]
    if run.cache is not None:
        look_up(run.cache, plan, stage_name(call))
    return plan


def _key(plan: Plan, item: Any) -> str:
    identity = plan.identities.get(item.filename + "\0" + item.treename)
    if plan.not_kept or plan.template is None or identity is None:
        return ""
    return item_key(
        plan.template.digest,
        identity.digest,
        item.treename,
        item.entrystart,
        item.entrystop,
        getattr(item, "preload", None),
    )


def item_key(template: str, identity: str, treename: str, start: int, stop: int, preload: Iterable[str] | None) -> str:
    """Return the key of a work item: H(template, identity of the data).

    Examples
    --------
    >>> item_key("t", "i", "Events", 0, 10, None) != item_key("t", "i", "Events", 0, 11, None)
    True
    """
    parts = ("work item 1", template, identity, treename, str(start), str(stop), *sorted(preload or ()))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def identify(run: Run, call: ProcessingCall, items: Sequence[Any]) -> dict[str, FileIdentity]:
    """Return the identity of every input file, by file and tree; a file that cannot be read has none.

    Raises
    ------
    InputError
        A file holds other entries than its work items were planned for.
    """
    wanted = {(item.filename, item.treename): item for item in items}
    # The worker that processes a file reports what is wrong with it.
    answers = run.memo.identify_all(wanted, Reading(call.file_format, call.uproot_options))
    found = {name: answer if isinstance(answer, FileIdentity) else None for name, answer in answers.items()}
    last_stop: dict[tuple[str, str], int] = {}
    for item in items:
        name = (item.filename, item.treename)
        last_stop[name] = max(last_stop.get(name, 0), item.entrystop)
    whole = _whole_files(items)
    for name, identity in found.items():
        planned = planned_entries(wanted[name]) or last_stop[name]
        is_short = (
            (name in whole or planned_entries(wanted[name]) is not None) and identity and planned != identity.entries
        )
        if identity is not None and (is_short or last_stop[name] > identity.entries):
            raise stale_plan(wanted[name], planned, identity.entries)
    return {"\0".join(name): identity for name, identity in found.items() if identity is not None}


def _whole_files(items: Sequence[Any]) -> set[tuple[str, str]]:
    """Return the files that the plan covers to the end: ``maxchunks`` may cut only the last file of a dataset."""
    last = {item.dataset: (item.filename, item.treename) for item in items}
    return {(item.filename, item.treename) for item in items} - set(last.values())


def planned_entries(item: Any) -> int | None:
    """Return the entries that coffea's own metadata cache says the file of `item` has, None if it says nothing."""
    from coffea.processor.executor import DEFAULT_METADATA_CACHE, FileMeta

    known = DEFAULT_METADATA_CACHE.get(FileMeta(item.dataset, item.filename, item.treename))
    return int(known["numentries"]) if known and known.get("uuid") == item.fileuuid else None


def named_files(strings: Iterable[str], items: Sequence[Any]) -> dict[str, str]:
    """Return the files that strings in the code name, with the digest of their content; input files do not count."""
    # Thousands of work items are those of a few files.
    paths = map(local_path, {item.filename for item in items})
    return files_named(strings, {os.path.realpath(path) for path in paths if path})


def look_up(cache: StageCache, plan: Plan, stage: str) -> None:
    """Fill the plan with the rows of hits and with the reasons of the misses."""
    rows = cache.look_up({key for key in plan.keys if key})
    checker, digests = Checker(plan.named_files), dict[tuple[Any, str], str]()
    for position, (item, key) in enumerate(zip(plan.items, plan.keys, strict=True)):
        if key not in rows:
            continue
        row, reason = choose(rows[key], checker, metadata_of(item, digests), plan.named_files)
        if row is not None:
            plan.rows[position] = row
        elif reason is not None:
            plan.reasons[position] = reason
    if plan.template is not None and not plan.not_kept and len(plan.rows) < len(plan.items):
        why = why_new(cache, stage, plan.template)
        new = [i for i, key in enumerate(plan.keys) if key and i not in plan.rows and i not in plan.reasons]
        if why["reason"] == "new input":
            n = len({plan.items[i].filename for i in new})
            why = {**why, "where": f"{n} file{'s' * (n != 1)}"}
        plan.reasons.update(dict.fromkeys(new, why))
        for position in range(len(plan.items)):
            if position not in plan.rows:
                plan.reasons.setdefault(position, {"reason": "not kept"})


def leaves(plan: Plan) -> list[Leaf]:
    """Return the places of the work items in the merge; they tell the data, not the code."""
    found = []
    for position, item in enumerate(plan.items):
        identity = plan.identities.get(item.filename + "\0" + item.treename)
        data = identity.digest if identity else item.filename
        name = f"{data} {item.treename} {item.entrystart} {item.entrystop}"
        found.append(Leaf(item.dataset, item.filename, name, position))
    return found


def metadata_of(item: Any, digests: dict[tuple[Any, str], str]) -> Callable[[str], str]:
    """Return what digests the metadata of a work item by name; `digests` are those already made, of what items share.

    The items of a file share their ``usermeta``, by ``id``: the plan holds them all.
    """

    def digest(name: str) -> str:
        if name == "*" or name in (item.usermeta or ()):
            owner = id(item.usermeta)
        elif name in _OF_FILES:
            owner = getattr(item, name)
        else:
            return _metadata_digest(item, name)
        found = digests.get((owner, name))
        if found is None:
            found = digests[owner, name] = _metadata_digest(item, name)
        return found

    return digest


def _metadata_digest(item: Any, name: str) -> str:
    try:
        return metadata_digest(item_metadata(item), name)
    except FingerprintError:
        return "unfingerprintable"
