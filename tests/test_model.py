"""The executor against a model of it: random filesets, edits, failures, interrupts and damage, one run after the other.

User code tells what it does by an audit event, and the hook that listens raises what a step asks for: so executions are
counted, and failures injected, without touching the code whose fingerprint is taken.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea import processor
from coffea.nanoevents import BaseSchema
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from coffea_dirac import DiracExecutor, StageCache
from coffea_dirac.cache import CacheWarning
from coffea_dirac.errors import ProcessingError

pytestmark = pytest.mark.core
EVENT = "coffea_dirac_model.ran"
FILES = 5
ENTRIES = (0, 7, 20, 33, 60)


class Analysis(processor.ProcessorABC):  # type: ignore[misc]
    def __init__(self, version: int) -> None:
        self.version = version

    def process(self, events: Any) -> Any:
        m = events.metadata
        xsec = m["xsec"]
        sys.audit(EVENT, int(events.first[0]) if len(events) else -1, len(events))
        return {
            "n": len(events),
            "ids": int(ak.sum(events.id)),
            "sum": float(ak.sum(events.x * xsec * self.version)),
            "versions": {self.version},
        }

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator


class Listener:
    """Counts what ran, and raises what it was told to."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, int]] = []
        self.raises: dict[tuple[int, int], BaseException] = {}
        self.after: int | None = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != EVENT:
            return
        place = (args[0], args[1])
        if self.after is not None and len(self.ran) >= self.after:
            raise KeyboardInterrupt
        if place in self.raises:
            raise self.raises[place]
        self.ran.append(place)


listener = Listener()
sys.addaudithook(listener)


@dataclass
class Step:
    """What changes, and how the run after it goes."""

    datasets: dict[str, list[int]]
    replaced: int | None
    version: int
    xsec: float
    chunksize: int
    maxchunks: int | None
    errors: str
    fails: int | None
    memory: int | None
    stops_after: int | None
    damage: str
    savemetrics: bool


steps = st.lists(
    st.builds(
        Step,
        datasets=st.dictionaries(
            st.sampled_from(["ttbar", "wjets", "qcd"]), st.lists(st.integers(0, FILES - 1), max_size=4), min_size=1
        ),
        replaced=st.none() | st.integers(0, FILES - 1),
        version=st.integers(1, 2),
        xsec=st.sampled_from([1.0, 0.3]),
        chunksize=st.sampled_from([5, 20, 100]),
        maxchunks=st.none() | st.integers(1, 2),
        errors=st.sampled_from(["fail", "collect"]),
        fails=st.none() | st.integers(0, 10),
        memory=st.none() | st.integers(0, 10),
        stops_after=st.none() | st.integers(0, 8),
        damage=st.sampled_from(["", "", "", "one pack", "all packs", "an index", "delete"]),
        savemetrics=st.booleans(),
    ),
    min_size=2,
    max_size=5,
)


@dataclass
class World:
    """Files on disk, and what the model knows to be kept."""

    folder: Path
    content: dict[int, int] = field(default_factory=dict)
    kept: set[Any] = field(default_factory=set)
    doubtful: set[Any] = field(default_factory=set)

    def write(self, number: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n = ENTRIES[(number + seed) % len(ENTRIES)]
        with uproot.recreate(self.folder / f"{number}.root") as file:
            tree = file.mktree("Events", {"x": "f8", "id": "i8", "first": "i8"})
            if n:
                ids = np.arange(n) + 1000 * seed
                tree.extend({"x": rng.lognormal(0, 3, n), "id": ids, "first": ids})
        self.content[number] = seed


def items_of(step: Step, fileset: Any) -> list[tuple[str, int, int, int]]:
    """Return (dataset, file, start, stop) as coffea divides the fileset."""
    plan = runner(processor.IterativeExecutor(status=False), step).preprocess(fileset)
    return [(item.dataset, int(Path(item.filename).stem), item.entrystart, item.entrystop) for item in plan]


def runner(executor: Any, step: Step) -> processor.Runner:
    return processor.Runner(
        executor=executor,
        schema=BaseSchema,
        chunksize=step.chunksize,
        maxchunks=step.maxchunks,
        metadata_cache={},
        savemetrics=step.savemetrics,
    )


def damage(world: World, how: str) -> None:
    cache = world.folder / "cache" / "v1"
    packs = sorted(cache.rglob("*.pack"))
    if not how or not packs:
        return
    world.doubtful |= world.kept
    world.kept.clear()
    if how == "delete":
        shutil.rmtree(cache)
        world.doubtful.clear()
    for path in {"one pack": packs[len(packs) // 2 :][:1], "all packs": packs}.get(how, []):
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 255
        path.write_bytes(data)
    for path in cache.rglob("*.idx") if how == "an index" else []:
        path.write_bytes(path.read_bytes()[:-3])


def take(world: World, step: Step) -> None:
    """Run one step and compare everything with the model."""
    if step.replaced is not None:
        world.write(step.replaced, seed=world.content[step.replaced] + FILES)
    damage(world, step.damage)
    fileset = {
        name: {"files": {str(world.folder / f"{i}.root"): "Events" for i in files}, "metadata": {"xsec": step.xsec}}
        for name, files in step.datasets.items()
    }
    items = items_of(step, fileset)
    if not items:
        return
    place = {
        item: (1000 * world.content[item[1]] + item[2], item[3] - item[2]) if item[3] > item[2] else (-1, 0)
        for item in items
    }
    key = {item: (step.version, step.xsec, world.content[item[1]], item[2], item[3]) for item in items}
    listener.ran, listener.raises, listener.after = [], {}, step.stops_after
    failing = {items[step.fails % len(items)]} if step.fails is not None else set()
    failing = {item for item in items if place[item] in {place[i] for i in failing}}
    short = items[step.memory % len(items)] if step.memory is not None else None
    is_halved = short is not None and short not in failing and place[short][1] > 3
    listener.raises.update({place[item]: ValueError("no luck") for item in failing})
    if is_halved and short is not None:
        listener.raises[place[short]] = MemoryError("no room")
    executor = DiracExecutor(cache=StageCache(world.folder / "cache"), inline=True, status=False, errors=step.errors)
    out, caught = None, None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CacheWarning)
        try:
            out = runner(executor, step)(fileset, Analysis(step.version))
        except (ProcessingError, KeyboardInterrupt) as error:
            caught = error
    ran, report = list(listener.ran), executor.report
    listener.ran, listener.raises, listener.after = [], {}, None
    assert report is not None
    check(world, step, items, place, key, failing, short if is_halved else None, ran, report, out, caught, fileset)


def check(
    world: World,
    step: Step,
    items: list[Any],
    place: dict[Any, tuple[int, int]],
    key: dict[Any, Any],
    failing: set[Any],
    halved: Any,
    ran: list[tuple[int, int]],
    report: Any,
    out: Any,
    caught: BaseException | None,
    fileset: Any,
) -> None:
    missing = [item for item in items if key[item] not in world.kept]
    whole = {place[item] for item in items}
    done = [p for p in ran if p in whole]
    surely = [item for item in missing if key[item] not in world.doubtful]
    assert set(done) <= {place[item] for item in missing}, "something was computed that was kept"
    assert len(done) <= len(missing)
    halved_now = halved is not None and (place[halved] not in ran) and any(p not in whole for p in ran)
    if caught is None:
        assert not failing & set(surely), "a failure was swallowed"
        assert report.complete
        assert report.missing == {}
        assert report.work_items["hits"] + report.work_items["misses"] == len(items)
        assert len(surely) <= report.work_items["misses"] <= len(missing)
        assert report.events == sum(item[3] - item[2] for item in items)
        values, *metrics = out if step.savemetrics else (out,)
        plain = runner(DiracExecutor(cache=None, inline=True, status=False), step)(fileset, Analysis(step.version))
        expected, *plain_metrics = plain if step.savemetrics else (plain,)
        if halved_now:
            assert values["sum"] == pytest.approx(expected["sum"], rel=1e-12)
            values = {**values, "sum": expected["sum"]}
        assert values == expected
        assert values["n"] == report.events
        if metrics:
            assert metrics[0]["entries"] == plain_metrics[0]["entries"]
            assert set(metrics[0]["columns"]) == set(plain_metrics[0]["columns"])
        listener.ran = []
        world.kept |= {key[item] for item in items if not (halved_now and place[item] == place[halved])}
        return
    assert not report.complete
    assert report.missing
    partial = getattr(caught, "partial_output", None)
    if isinstance(caught, KeyboardInterrupt) or step.errors == "collect":
        assert (partial or {"n": 0})["n"] == report.events
    if step.errors == "collect" and isinstance(caught, ProcessingError) and surely == missing:
        assert report.events == sum(i[3] - i[2] for i in items if i not in failing or key[i] in world.kept)
    world.kept |= {key[item] for item in items if place[item] in done}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_the_executor_does_what_its_model_does(sequence: list[Step]) -> None:
    run_sequence(sequence)


@pytest.mark.long
@pytest.mark.timeout(3000)
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_the_executor_does_what_its_model_does_at_length(sequence: list[Step]) -> None:
    run_sequence(sequence)


def run_sequence(sequence: list[Step]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        world = World(folder)
        for number in range(FILES):
            world.write(number, seed=number)
        for step in sequence:
            note(str(step))
            take(world, step)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
