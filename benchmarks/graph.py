"""Dask graphs through the cache: planning, what a task costs cold, what a graph costs warm, and the ttbar graph.

The peers that keep results of graphs are dask-dirac and graphchain, in an environment of their own: they need an older
dask.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

from agc_example.generate import SAMPLES, generate
from benchmarks.pairs import Line

ROOT = Path(__file__).parent.parent
DRIVER = Path(__file__).with_name("graph_driver.py")
PLANNING_S = {5_000: 0.5, 100_000: 12.0}
OVERHEAD_MS, WARM_S, AGC_S, AGC_SHARE = 0.3, 0.3, 1.0, 0.1
AGC = """
import sys, time
from pathlib import Path
import dask
from agc_example.graph import graph_of, preprocessed
from agc_example.inputs import fileset_from
from coffea_dirac import StageCache
cache, inputs, what = sys.argv[1:]
ready = preprocessed(fileset_from(Path(inputs)))
started = time.process_time()
out = graph_of(ready)
build_s = time.process_time() - started
def never(dsk, keys, **options):
    raise KeyboardInterrupt
with StageCache(cache):
    dask.delayed(int)(1).compute(scheduler="sync")
    started = time.process_time()
    try:
        dask.compute(out, scheduler=never if what == "plan" else "sync")
    except KeyboardInterrupt:
        pass
    spent_s = time.process_time() - started
print("SPENT", build_s, spent_s)
"""


class Seconds(NamedTuple):
    """What one process measured: wall time and processor time; of the ttbar graph: building and planning."""

    wall: float
    cpu: float


def measured(command: list[str]) -> Seconds:
    """Run a program that prints its two numbers at the end."""
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=3600)
    if done.returncode or "SPENT" not in done.stdout:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    wall, cpu = done.stdout.rpartition("SPENT ")[2].split()[:2]
    return Seconds(float(wall), float(cpu))


def driven(who: str, cache: Path, tasks: int, what: str, python: str = sys.executable) -> Seconds:
    """Run the driver once."""
    cache.mkdir(parents=True, exist_ok=True)
    return measured([python, "-W", "ignore", str(DRIVER), who, str(cache), str(tasks), what])


def python_of_peers() -> str:
    """Return the interpreter of the peers' environment, set up if it is not there."""
    command = ["scripts/set-up", ".venv-peers", "requirements/peers.lock"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, check=True, timeout=1800)
    return str(ROOT / ".venv-peers" / "bin" / "python")


def lines(
    *,
    sizes: tuple[int, ...] = tuple(PLANNING_S),
    tasks: int = 5_000,
    few: int = 400,
    rounds: int = 3,
    events: int = 1_000,
    with_peers: bool = True,
    samples: tuple[tuple[str, str], ...] = SAMPLES,
) -> list[Line]:
    """Measure, and return the table's lines; peers run with `few` tasks, since theirs grow with the square."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        found = [planning(root / f"plan{size}", size, rounds) for size in sizes]
        found += [cold(root / "cold", tasks, rounds), warm(root / "warm", tasks, rounds)]
        if with_peers:
            python = python_of_peers()
            for peer in ("dask-dirac", "graphchain"):
                found += against(root / peer, peer, few, rounds, python)
        return [*found, ttbar(root, events, rounds, samples)]


def planning(root: Path, size: int, rounds: int) -> Line:
    """Measure how long a graph takes until the scheduler is asked, every task of it being looked up and none kept."""
    ours, plain = [], []
    for n in range(rounds):
        ours.append(driven("all", root / str(n), size, "plan"))
        plain.append(driven("plain", root / str(n), size, "plan"))
    wall = median(one.wall for one in ours)
    target = PLANNING_S.get(size)
    return Line(
        f"planning of a graph of {size:,} tasks, every one to be kept",
        f"{wall:.2f} s (CPU {median(one.cpu for one in ours):.2f} s)",
        f"{median(one.wall for one in plain):.2f} s plain dask",
        f"{rounds} processes each, in turn",
        "-" if target is None else f"under {target:g} s",
        target is None or wall < target,
    )


def cold(root: Path, tasks: int, rounds: int) -> Line:
    """Measure what keeping costs for each task, with small results."""
    extra = []
    for n in range(rounds):
        ours, plain = driven("all", root / str(n), tasks, "run"), driven("plain", root, tasks, "run")
        extra.append((ours.cpu - plain.cpu) / tasks * 1e3)
    each = median(extra)
    return Line(
        f"cold graph of {tasks:,} tasks with small results, every one kept, CPU for each task",
        f"{each:.2f} ms more",
        "plain dask",
        f"{min(extra):.2f} / {each:.2f} / {max(extra):.2f} ms; {rounds} rounds",
        f"at most {OVERHEAD_MS} ms more",
        each <= OVERHEAD_MS,
    )


def warm(root: Path, tasks: int, rounds: int) -> Line:
    """Measure a graph that was computed before, merged into one result, in a new process after its imports."""
    driven("ours", root, tasks, "run")
    ours, plain = [], []
    for _ in range(rounds):
        ours.append(driven("ours", root, tasks, "run"))
        plain.append(driven("plain", root, tasks, "run"))
    wall = median(one.wall for one in ours)
    ratios = sorted(b.wall / a.wall for a, b in zip(ours, plain, strict=True))
    return Line(
        f"warm graph of {tasks:,} tasks merged into one result, new process",
        f"{wall:.2f} s (CPU {median(one.cpu for one in ours):.2f} s)",
        f"{median(one.wall for one in plain):.2f} s plain dask",
        f"{ratios[0]:.1f} / {median(ratios):.1f} / {ratios[-1]:.1f} times faster; {rounds} rounds",
        f"under {WARM_S} s",
        wall < WARM_S,
    )


def against(root: Path, peer: str, tasks: int, rounds: int, python: str) -> list[Line]:
    """Measure a small graph cold and warm, with ours and with a peer that keeps every task."""
    found = []
    for what in ("cold", "warm"):
        ours, theirs = [], []
        for n in range(rounds):
            ours.append(driven("all", root / "ours" / str(n), tasks, "run"))
            theirs.append(driven(peer, root / "peer" / str(n), tasks, "run", python))
        ratios = sorted(b.wall / a.wall for a, b in zip(ours, theirs, strict=True))
        found.append(
            Line(
                f"{what} graph of {tasks:,} small tasks, every one kept",
                f"{median(one.wall for one in ours):.2f} s (CPU {median(one.cpu for one in ours):.2f} s)",
                f"{median(one.wall for one in theirs):.2f} s {peer}",
                f"{ratios[0]:.1f} / {median(ratios):.1f} / {ratios[-1]:.1f} times faster; {rounds} rounds",
                "-",
                True,
            )
        )
    return found


def ttbar(root: Path, events: int, rounds: int, samples: tuple[tuple[str, str], ...]) -> Line:
    """Measure the planning of the whole ttbar graph with everything kept, against dask-awkward's building of it."""
    inputs = generate(root / "data", files=1, events=events, samples=samples)
    program = [sys.executable, "-W", "ignore", "-c", AGC, str(root / "agc"), str(inputs)]
    measured([*program, "run"])
    found = [measured([*program, "plan"]) for _ in range(rounds)]
    plan, share = median(one.cpu for one in found), median(one.cpu / one.wall for one in found)
    return Line(
        f"ttbar as a dask-awkward graph, {len(samples)} datasets, all variations: planning, everything kept, CPU",
        f"{plan:.2f} s",
        f"{median(one.wall for one in found):.2f} s building it, dask-awkward",
        f"ratio {share:.2f}; {rounds} processes",
        f"under {AGC_S:g} s, at most {AGC_SHARE:.0%} of building",
        plan < AGC_S and share <= AGC_SHARE,
    )
