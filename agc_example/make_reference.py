"""Make the reference histograms: ``python -m agc_example.make_reference``.

coffea's own IterativeExecutor without any cache makes them, so that they do not depend on what they are to test.
"""

from __future__ import annotations

import json
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import typer

from agc_example import output
from agc_example.compare import as_json
from agc_example.generate import generate
from agc_example.inputs import fileset_from
from agc_example.run import Executor, Result, analyse, executor_for

REFERENCE = Path(__file__).parent / "reference" / "histograms.json"
FILES, EVENTS, SEED, CHUNKSIZE = 2, 1000, 20150613, 500
"""Files of each sample, events in each file, seed of the generator, and events in a work item of the reference."""


def reference_fileset(folder: Path) -> dict[str, Any]:
    """Generate the data of the reference below `folder` and return its fileset."""
    return fileset_from(generate(folder, files=FILES, events=EVENTS, seed=SEED, enriched=True))


def histograms_of(result: Result) -> dict[str, Any]:
    """Return all normalised histograms of a run in the AGC's format."""
    events = result.out["events"]
    every = {**result.out["hist_dict"], **result.out["ml_hist_dict"]}
    scaled = [output.named({name: output.normalised(h, events)}) for name, h in every.items()]
    return as_json(chain.from_iterable(scaled))


def main() -> None:
    """Write the reference histograms."""
    with tempfile.TemporaryDirectory() as folder:
        executor = executor_for(Executor.iterative, workers=None, cache=None)
        result = analyse(reference_fileset(Path(folder)), executor=executor, use_ml=True, chunksize=CHUNKSIZE)
    REFERENCE.parent.mkdir(exist_ok=True)
    found = {
        name: {part: [float(f"{x:.12g}") for x in v] for part, v in h.items()}
        for name, h in histograms_of(result).items()
    }
    REFERENCE.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")
    typer.echo(f"{len(found)} histograms written to {REFERENCE}")


if __name__ == "__main__":
    typer.run(main)
