"""A world in which an analysis is run, edited, interrupted and damaged, and the model that says what each run may do.

User code tells what it does by an audit event, and the hook that listens raises what a step asks for: so executions are
counted, and failures injected, without touching the code whose fingerprint is taken.
"""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import sys
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from coffea import processor
from coffea.nanoevents import BaseSchema
from hypothesis import strategies as st

from coffea_dirac import DiracExecutor, StageCache
from coffea_dirac.cache import CacheWarning
from coffea_dirac.errors import ProcessingError

EVENT = "coffea_dirac_model.ran"
FILES = 5
ENTRIES = (0, 7, 20, 33, 60)
FACTORS = {"ttbar": 1.0, "wjets": 1.0, "qcd": 0.7}

ANALYSIS = '''
import sys
import awkward as ak
from coffea import processor
import model_helper


class Analysis(processor.ProcessorABC):
    def process(self, events):
        xsec = events.metadata["xsec"]
        sys.audit("{event}", int(events.first[0]) if len(events) else -1, len(events), xsec)
        return {{
            "n": len(events),
            "ids": int(ak.sum(events.id)),
            "sum": float(ak.sum(model_helper.scaled(events.x) * xsec)),
            "versions": {{model_helper.VERSION}},
        }}

    def postprocess(self, accumulator):
        """{comment}"""
        return accumulator
'''
HELPER = """
# {comment}
VERSION = {version}


def scaled(x):
    return x * VERSION
"""

Place = tuple[int, int, float]


class Listener:
    """Counts what ran, and raises what it was told to."""

    def __init__(self) -> None:
        self.listen()

    def listen(self, raises: dict[Place, BaseException] | None = None, after: int | None = None) -> None:
        self.ran: list[Place] = []
        self.raised: set[Place] = set()
        self.raises, self.after, self.exits = raises or {}, after, False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != EVENT:
            return
        place = (args[0], args[1], args[2])
        if self.after is not None and len(self.ran) >= self.after:
            if self.exits:
                os._exit(0)
            self.after = None
            raise KeyboardInterrupt
        if place in self.raises:
            self.raised.add(place)
            raise self.raises[place]
        self.ran.append(place)


listener = Listener()
sys.addaudithook(listener)


@dataclass(frozen=True)
class Step:
    """How a run goes: what it is about, and what befalls it."""

    datasets: dict[str, list[int]] = field(default_factory=lambda: {"ttbar": [0, 1, 2], "wjets": [1, 3]})
    version: int = 1
    xsec: float = 1.0
    chunksize: int = 20
    maxchunks: int | None = None
    errors: str = "fail"
    savemetrics: bool = False
    replaced: int | None = None
    damage: tuple[str, int] = ("", 0)
    broken: int | None = None
    fails: int | None = None
    is_io: bool = False
    memory: int | None = None
    stops_after: int | None = None
    crashes: bool = False

    @property
    def skips(self) -> bool:
        return self.broken is not None or self.is_io


numbers = st.integers(0, FILES - 1)
# What is edited stays edited; a step edits two things at most, so that there is something to be found again.
_edits = {
    "datasets": st.dictionaries(st.sampled_from(list(FACTORS)), st.lists(numbers, max_size=4), min_size=1),
    "more": st.tuples(st.sampled_from(list(FACTORS)), numbers),
    "less": st.integers(0, 10),
    "turned": st.just(True),
    "version": st.integers(1, 2),
    "xsec": st.sampled_from([1.0, 0.3]),
    "chunksize": st.sampled_from([1, 5, 20, 100]),
    "maxchunks": st.none() | st.integers(1, 2),
    "back": st.integers(0, 10),
}
_edit = st.lists(st.one_of([st.tuples(st.just(name), value) for name, value in _edits.items()]), max_size=2)
_damage = st.sampled_from(["all packs", "an index", "lost pack", "lost index", "delete"] + 4 * ["one pack"])
_mild = {
    "errors": st.sampled_from(["fail", "collect"]),
    "savemetrics": st.booleans(),
    "replaced": st.none() | st.none() | numbers,
    "damage": st.just(("", 0)) | st.tuples(_damage, st.integers(0, 1000)),
    "broken": st.none() | st.none() | numbers,
}
_rough = {
    "fails": st.none() | st.none() | st.integers(0, 10),
    "is_io": st.booleans(),
    "memory": st.none() | st.none() | st.integers(0, 10),
    "stops_after": st.none() | st.none() | st.integers(0, 8),
    "crashes": st.booleans(),
}


def _sequence(found: list[tuple[list[tuple[str, Any]], dict[str, Any]]]) -> list[Step]:
    seen, steps = [Step()], []
    for edits, befalls in found:
        about = seen[-1]
        for name, value in edits:
            about = seen[value % len(seen)] if name == "back" else _edited(about, name, value)
        seen.append(about)
        steps.append(replace(about, **befalls))
    return steps


def _edited(step: Step, name: str, value: Any) -> Step:
    datasets = {dataset: list(files) for dataset, files in step.datasets.items()}
    if name == "more":
        datasets.setdefault(value[0], []).append(value[1])
    elif name == "less":
        dataset = list(datasets)[value % len(datasets)]
        del datasets[dataset][value % 3 :]
    elif name == "turned":
        datasets = dict(reversed(datasets.items()))
    else:
        return replace(step, **{name: value})
    return replace(step, datasets=datasets)


def _sequences(befalls: dict[str, Any], n: int) -> st.SearchStrategy[list[Step]]:
    """Return lists of steps of which every other goes undisturbed."""
    step = st.tuples(_edit, st.just({}) | st.fixed_dictionaries(befalls))
    return st.lists(step, min_size=2, max_size=n).map(_sequence)


mild_steps = _sequences(_mild, 4)
steps = _sequences({**_mild, **_rough}, 6)


class World:
    """Files on disk, and what the model knows to be kept.

    `kept` are the keys that must be hits, `doubtful` those that may be; all others must be computed.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.options = folder, options
        self.content: dict[int, int] = {}
        self.kept: set[Any] = set()
        self.doubtful: set[Any] = set()
        self._edits = itertools.count()
        for number in range(FILES):
            self.write(number, seed=number)

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.root"

    def write(self, number: int, seed: int) -> None:
        x, ids = content(number, seed)
        with uproot.recreate(self.path(number)) as file:
            tree = file.mktree("Events", {"x": "f8", "id": "i8", "first": "i8"})
            if len(x):
                tree.extend({"x": x, "id": ids, "first": ids})
        self.content[number] = seed

    def edit(self, version: int) -> Any:
        """Write the code anew, with other comments each time, and return it as a new session would import it."""
        comment = "x" * next(self._edits)
        (self.folder / "model_analysis.py").write_text(ANALYSIS.format(event=EVENT, comment=comment))
        (self.folder / "model_helper.py").write_text(HELPER.format(version=version, comment=comment))
        for name in ("model_analysis", "model_helper"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("model_analysis").Analysis()

    def damage(self, how: str, which: int) -> None:
        cache = self.folder / "cache" / "v1"
        packs, indexes = sorted(cache.rglob("*.pack")), sorted(cache.rglob("*.idx"))
        if not how or not packs:
            return
        self.doubtful |= self.kept
        self.kept.clear()
        one = [packs[which % len(packs)]]
        if how == "delete":
            shutil.rmtree(cache)
            self.doubtful.clear()
        for path in {"one pack": one, "all packs": packs}.get(how, []):
            data = bytearray(path.read_bytes())
            data[which * 97 % len(data)] ^= 255
            path.write_bytes(data)
        for path in indexes if how == "an index" else []:
            path.write_bytes(path.read_bytes()[:-3])
        for path in {"lost pack": one, "lost index": indexes}.get(how, []):
            path.unlink()

    def fileset(self, step: Step) -> dict[str, Any]:
        return {
            name: {
                "files": [str(self.path(i)) for i in files],
                "treename": "Events",
                "metadata": {"xsec": step.xsec * FACTORS[name], "unread": next(self._edits)},
            }
            for name, files in step.datasets.items()
        }

    def runner(self, executor: Any, step: Step) -> processor.Runner:
        return processor.Runner(
            executor=executor,
            schema=BaseSchema,
            chunksize=step.chunksize,
            maxchunks=step.maxchunks,
            metadata_cache={},
            savemetrics=step.savemetrics,
            skipbadfiles=step.skips,
        )

    def executor(self, step: Step, **options: Any) -> DiracExecutor:
        made = {"inline": True, "status": False, "errors": step.errors, "io_retries": 0, **self.options, **options}
        return DiracExecutor(**{"cache": StageCache(self.folder / "cache"), **made})


def content(number: int, seed: int) -> tuple[Any, Any]:
    """Return the columns x and id of a file."""
    n = ENTRIES[(number + seed) % len(ENTRIES)]
    return np.random.default_rng(seed).lognormal(0, 3, n), np.arange(n) + 1000 * seed


@dataclass
class Item:
    """A work item as the model sees it: `key` says what determines its result, `place` what the listener hears of it."""

    dataset: str
    number: int
    start: int
    stop: int
    key: Any
    place: Place

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class Ran:
    """One run: what was asked for, what happened and what came of it."""

    items: list[Item]
    failing: set[Place]
    halved: Place | None
    out: Any = None
    caught: BaseException | None = None
    is_empty: bool = False
    report: Any = None
    executed: list[Place] = field(default_factory=list)
    raised: set[Place] = field(default_factory=set)


def items_of(world: World, step: Step, fileset: Any) -> list[Item]:
    """Return the work items as coffea divides the fileset."""
    found = []
    with warnings.catch_warnings():
        # coffea says that it skips a bad file.
        warnings.simplefilter("ignore", UserWarning)
        plan = list(world.runner(processor.IterativeExecutor(status=False), step).preprocess(fileset))
    for item in plan:
        number, start, stop = int(Path(item.filename).stem), item.entrystart, item.entrystop
        seed, xsec = world.content[number], step.xsec * FACTORS[item.dataset]
        first = 1000 * seed + start if stop > start else -1
        key = (step.version, xsec, seed, number, start, stop)
        found.append(Item(item.dataset, number, start, stop, key, (first, stop - start, xsec)))
    return found


def take(world: World, step: Step) -> Ran | None:
    """Make the changes of a step and run; None if there is nothing to run, or if the run crashed."""
    if step.replaced is not None:
        world.write(step.replaced, seed=world.content[step.replaced] + FILES)
    world.damage(*step.damage)
    analysis, fileset = world.edit(step.version), world.fileset(step)
    sound = world.path(step.broken).read_bytes() if step.broken is not None else b""
    if step.broken is not None:
        world.path(step.broken).write_bytes(sound[:200])
    try:
        items = items_of(world, step, fileset)
        if not items:
            return None
        run = Ran(items, set(), None)
        raises = troubles(step, run)
        if step.crashes and step.stops_after is not None:
            crash(world, step, analysis, fileset)
            world.doubtful |= {item.key for item in items} - world.kept
            return None
        perform(world, step, run, analysis, fileset, raises)
    finally:
        if step.broken is not None:
            world.path(step.broken).write_bytes(sound)
    return run


def troubles(step: Step, run: Ran) -> dict[Place, BaseException]:
    """Choose what fails in a run, and how."""
    raises: dict[Place, BaseException] = {}
    if step.memory is not None:
        short = run.items[step.memory % len(run.items)].place
        if short[1] > 3:
            run.halved, raises[short] = short, MemoryError("no room")
    if step.fails is not None:
        place = run.items[step.fails % len(run.items)].place
        run.failing = {place}
        raises[place] = OSError("no luck") if step.is_io else ValueError("no luck")
        run.halved = None if run.halved == place else run.halved
    return raises


def perform(world: World, step: Step, run: Ran, analysis: Any, fileset: Any, raises: Any) -> None:
    executor = world.executor(step)
    listener.listen(raises, step.stops_after)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CacheWarning)
        try:
            run.out = world.runner(executor, step)(fileset, analysis)
        except (ProcessingError, KeyboardInterrupt) as error:
            run.caught = error
        except ValueError as error:
            # What coffea says where all was skipped.
            run.is_empty = str(error).startswith("No chunks returned results")
            if not run.is_empty:
                raise
    run.executed, run.raised, run.report = listener.ran, listener.raised, executor.report
    listener.listen()


def crash(world: World, step: Step, analysis: Any, fileset: Any) -> None:
    """Run in a copy of this process that ends at once at its n-th work item, or is done before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        try:
            listener.listen(after=step.stops_after)
            listener.exits = True
            world.runner(world.executor(step), step)(fileset, analysis)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def plain(world: World, step: Step, run: Ran) -> Any:
    """Return what a run without a cache makes of what was asked for, without the work items that were skipped."""
    analysis, fileset = importlib.import_module("model_analysis").Analysis(), world.fileset(step)
    broken = step.broken
    if broken is not None:
        fileset = {
            name: {**about, "files": [file for file in about["files"] if file != str(world.path(broken))]}
            for name, about in fileset.items()
        }
    listener.listen({place: OSError("no luck") for place in run.raised & run.failing})
    executor = world.executor(step, cache=None, inline=True, workers=None)
    found = world.runner(executor, replace(step, broken=None, is_io=True))(fileset, analysis)
    listener.listen()
    return found
