"""The ttbar analysis as a dask graph gives the processor's histograms, and loads them in other processes and schedulers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from agc_example.generate import generate
from agc_example.inputs import fileset_from
from agc_example.run import Executor, analyse, executor_for

pytest.importorskip("dask_awkward")
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).parents[1]
CHUNKSIZE = 500
SOME = ("ttbar__scaleup", "wjets__nominal")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [tuple(name.split("__")) for name in SOME]
    return generate(tmp_path_factory.mktemp("data"), files=1, events=1000, enriched=True, samples=samples)


def by_executor(inputs: Path) -> dict[str, Any]:
    executor = executor_for(Executor.iterative, workers=None, cache=None, status=False)
    return analyse(fileset_from(inputs), executor=executor, chunksize=CHUNKSIZE).out


def run(folder: Path, inputs: Path, scheduler: str, seed: int) -> dict[str, int]:
    """Run in a new process with a hash seed of its own; histograms go to ``<folder>/<scheduler>``."""
    command = [sys.executable, "-W", "ignore", "-m", "agc_example.graph", "--inputs", str(inputs)]
    command += ["--scheduler", scheduler, "--cache", str(folder / "cache"), "--chunksize", str(CHUNKSIZE)]
    command += ["--output", str(folder / scheduler), "--summary", str(folder / f"{scheduler}.json")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, int] = json.loads((folder / f"{scheduler}.json").read_text())
    return counts


def assert_same_files(one: Path, two: Path) -> None:
    with uproot.open(one) as a, uproot.open(two) as b:
        assert a.keys() == b.keys()
        for name in a.keys():  # noqa: SIM118 - not a dict
            for part in ("values", "variances"):
                assert np.array_equal(getattr(a[name], part)(flow=True), getattr(b[name], part)(flow=True)), name


def assert_equal(graph: dict[str, Any], executor: dict[str, Any]) -> None:
    """Counts are equal to the bit; weighted sums of other partitions may be added in another order."""
    assert graph["events"] == executor["events"]
    for region, histogram in executor["hist_dict"].items():
        other = graph["hist_dict"][region]
        assert sorted(histogram.axes["process"]) == sorted(other.axes["process"])
        assert sorted(histogram.axes["variation"]) == sorted(other.axes["variation"])
        for process in histogram.axes["process"]:
            for variation in histogram.axes["variation"]:
                a, b = (h[:, process, variation].view(flow=True) for h in (histogram, other))
                is_weight = "btag" in variation or "scale_var" in variation
                for part in ("value", "variance"):
                    if is_weight:
                        np.testing.assert_allclose(a[part], b[part], rtol=1e-12, atol=0)
                    else:
                        assert np.array_equal(a[part], b[part])


def test_the_graph_gives_the_histograms_of_the_processor(inputs: Path) -> None:
    import dask

    from agc_example.graph import graph_of, merged, preprocessed

    (computed,) = dask.compute(graph_of(preprocessed(fileset_from(inputs), chunksize=CHUNKSIZE)), scheduler="sync")
    found = merged(computed)
    assert sum(h.sum(flow=True).value for h in found["hist_dict"].values()) > 100
    assert_equal(found, by_executor(inputs))


def test_outputs_are_loaded_in_other_processes_by_other_schedulers(inputs: Path, tmp_path: Path) -> None:
    cold = run(tmp_path, inputs, "sync", seed=1)
    assert cold["loaded"] == 0
    assert cold["computed"] > 0
    for seed, scheduler in enumerate(("threads", "distributed"), start=2):
        warm = run(tmp_path, inputs, scheduler, seed)
        assert warm["computed"] == 0, scheduler
        assert warm["loaded"] > 0
        assert_same_files(tmp_path / "sync" / "histograms.root", tmp_path / scheduler / "histograms.root")
