"""One session of an analyst in a process of its own: one Runner call; says as JSON what it spent and found.

Usage: ``python -m benchmarks.session '{"fileset": ..., "chunksize": ...}'``; `Session` says what can be asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pairs import Spent

ROOT = Path(__file__).parent.parent
DEADLINE_S = 900


@dataclass(frozen=True)
class Session:
    """What one process does.

    Attributes
    ----------
    cache, checkpoints : str
        A folder for DiracExecutor, or for coffea's SimpleCheckpointer under FuturesExecutor; one of them.
    knows_metadata : bool
        Preprocess first: coffea's metadata cache, which lives as long as a process, knows the files then.
    only_loads : bool
        Take the analysis that is sooner done, since it is about loading its results.
    die_at : float
        Kill this process when such a part of the work items is done; 0 for never.
    """

    fileset: dict[str, Any]
    chunksize: int
    cache: str = ""
    checkpoints: str = ""
    knows_metadata: bool = False
    only_loads: bool = False
    die_at: float = 0.0


@dataclass(frozen=True)
class Said:
    """What a process said: what its Runner call spent, a number to compare results by, and the work items loaded."""

    spent: Spent
    total: float
    hits: int


def run(session: Session) -> Said | None:
    """Run a session in a new process; None if it was killed, as it was told to be.

    Raises
    ------
    RuntimeError
        It failed.
    """
    command = [sys.executable, "-m", "benchmarks.session", json.dumps(asdict(session))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    if session.die_at and done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise RuntimeError(f"a session failed (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Said(Spent(*said["spent"]), said["total"], said["hits"])


def _die_at(executor: Any, part: float, n_items: int) -> None:
    def watch() -> None:
        while executor.report is None or executor.report.work_items["misses"] < part * n_items:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(session: Session) -> None:
    """Do what the session says, in this process."""
    from coffea import processor

    from benchmarks.small import TREE, CountAnalysis, JetAnalysis, Schema, run_once
    from coffea_dirac import DiracExecutor

    options: dict[str, Any] = {}
    if session.cache:
        executor = DiracExecutor(cache=session.cache, workers=2, status=False)
    else:
        executor = processor.FuturesExecutor(workers=2, status=False)
        options["checkpointer"] = processor.SimpleCheckpointer(session.checkpoints)
    if session.knows_metadata or session.die_at:
        before = processor.Runner(executor=executor, schema=Schema, chunksize=session.chunksize)
        n_items = len(list(before.preprocess(session.fileset, treename=TREE)))
        if session.die_at:
            _die_at(executor, session.die_at, n_items)
    analysis = CountAnalysis() if session.only_loads else JetAnalysis()
    spent, out = run_once(executor, session.fileset, chunksize=session.chunksize, analysis=analysis, **options)
    report = getattr(executor, "report", None)
    hits = report.work_items["hits"] if report is not None else 0
    print(json.dumps({"spent": spent, "total": float(out["pt"].sum().value), "hits": hits}))


if __name__ == "__main__":
    main(Session(**json.loads(sys.argv[1])))
