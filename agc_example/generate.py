"""Write files like NanoAOD with the branches of the ttbar analysis: ``python -m agc_example.generate FOLDER``.

What is in a file follows, to the byte, from the seed, the sample, the number of the file and its size: generated again,
in any order, by any process, it is the same file for a cache.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest import mock
from uuid import UUID

import awkward as ak
import numpy as np
import typer
import uproot

from agc_example.processes import PROCESSES, VARIATIONS, model
from agc_example.simulate import simulate

SAMPLES = tuple((process, v) for process in PROCESSES for v in ("nominal", *VARIATIONS.get(process, {})))
"""All samples, as (process, variation)."""
CLUSTER = 10_000
"""Events in a basket of each branch, so that work items of this size or a multiple read nothing twice."""
_UUID = UUID("c0ffea00-d17a-4c00-8000-0123456789ab")
_DATE = (20 << 26) | (1 << 22) | (1 << 17)
"""A date in ROOT's code: 2015-01-01 00:00:00."""


class GenerateError(ValueError):
    """Files that cannot be generated as asked; the message gives the call that works."""


def generate(
    folder: Path,
    *,
    files: int,
    events: int,
    seed: int = 1,
    enriched: bool = False,
    samples: Iterable[tuple[str, str]] | None = None,
    progress: Callable[[], None] | None = None,
) -> Path:
    """Generate input files of the ttbar analysis and their list.

    Parameters
    ----------
    folder : Path
        Files go to ``<process>__<variation>/<process>__<variation>_<number>.root`` in it.
    files, events : int
        Files of each sample, and events in each file.
    seed : int
        Other seeds give other events.
    enriched : bool
        Let so many more events pass the selection that no region is empty from some hundred events on, for tests.
    samples : iterable of (process, variation), optional
        Which samples; all of `SAMPLES` if not given.
    progress : callable, optional
        Called after each file.

    Returns
    -------
    Path
        ``nanoaod_inputs.json`` in the folder, in the AGC's format.

    Raises
    ------
    GenerateError
        A number is not positive, or a sample is unknown.

    Examples
    --------
    >>> import tempfile
    >>> found = generate(Path(tempfile.mkdtemp()), files=1, events=10, samples=[("wjets", "nominal")])
    >>> json.loads(found.read_text())["wjets"]["nominal"]["nevts_total"]
    10
    """
    chosen = SAMPLES if samples is None else tuple(samples)
    _check(files=files, events=events, samples=chosen)
    inputs: dict[str, dict[str, Any]] = {}
    for process, variation in chosen:
        found = []
        for number in range(files):
            path = write_file(folder, (process, variation), number=number, events=events, seed=seed, enriched=enriched)
            found.append({"path": str(path.absolute()), "nevts": events})
            if progress is not None:
                progress()
        inputs.setdefault(process, {})[variation] = {"nevts_total": files * events, "files": found}
    listed = folder / "nanoaod_inputs.json"
    listed.write_text(json.dumps(inputs, indent=1) + "\n")
    return listed


def write_file(
    folder: Path, sample: tuple[str, str], *, number: int, events: int, seed: int = 1, enriched: bool = False
) -> Path:
    """Write one file of a sample and return its path; it is complete or absent.

    Parameters
    ----------
    folder : Path
        Where the folder of the sample is made.
    sample : tuple
        Process and variation.
    number : int
        Of the file in its sample, from 0.
    events : int
        How many to write.
    """
    name = "__".join(sample)
    path = folder / name / f"{name}_{number:04d}.root"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(file_bytes(sample, number=number, events=events, seed=seed, enriched=enriched))
    partial.replace(path)
    return path


def file_bytes(sample: tuple[str, str], *, number: int, events: int, seed: int = 1, enriched: bool = False) -> bytes:
    """Return the bytes of one file; its UUID is a digest of all the others."""
    target = io.BytesIO()
    starts = range(0, events, CLUSTER)
    with _without_clock(), uproot.recreate(target, compression=uproot.ZSTD(3), uuid_function=lambda: _UUID) as file:
        tree = None
        for start in starts:
            stop = min(start + CLUSTER, events)
            columns = make_events(sample, number=number, start=start, stop=stop, seed=seed, enriched=enriched)
            if tree is None:
                types = {
                    name: values.dtype if isinstance(values, np.ndarray) else values.type
                    for name, values in columns.items()
                }
                tree = file.mktree("Events", types, initial_basket_capacity=len(starts))
            tree.extend(columns)
        raw = target.getvalue()  # complete after each extend; uproot closes it on leaving
    return raw.replace(_UUID.bytes, hashlib.sha256(raw).digest()[:16])


def make_events(
    sample: tuple[str, str], *, number: int, start: int, stop: int, seed: int = 1, enriched: bool = False
) -> dict[str, Any]:
    """Return the columns of the events from `start` to `stop` of a file.

    Examples
    --------
    >>> made = make_events(("wjets", "nominal"), number=2, start=0, stop=3)
    >>> made["event"]
    array([200000001, 200000002, 200000003], dtype=uint64)
    """
    key = "/".join(map(str, (seed, *sample, number, start)))
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key.encode()).digest())))
    count = stop - start
    simulated = simulate(model(*sample, enriched=enriched), count, rng)
    simulated["Jet"] = ak.without_field(simulated["Jet"], "slot")
    return {
        "run": np.ones(count, dtype=np.uint32),
        "luminosityBlock": np.full(count, number + 1, dtype=np.uint32),
        "event": np.arange(start + 1, stop + 1, dtype=np.uint64) + np.uint64(number * 10**8),
        "genWeight": np.ones(count, dtype=np.float32),
        **simulated,
    }


@contextmanager
def _without_clock() -> Iterator[None]:
    """Write a fixed date: uproot offers no option, but all its dates pass one function on their way into a file."""
    with mock.patch("uproot._util.datetime_to_code", return_value=_DATE):
        yield


def _check(*, files: int, events: int, samples: tuple[tuple[str, str], ...]) -> None:
    if files < 1 or events < 1:
        raise GenerateError(f"files={files}, events={events}: both must be at least 1, as in files=2, events=10000")
    unknown = [sample for sample in samples if sample not in SAMPLES]
    if unknown:
        raise GenerateError(f"no sample {unknown[0]!r}; choose from {', '.join(map(repr, SAMPLES))}")


def main(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    files: Annotated[int, typer.Option(min=1, help="Files of each sample.")] = 2,
    events: Annotated[int, typer.Option(min=1, help="Events in each file.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Another seed, other events.")] = 1,
    enriched: Annotated[bool, typer.Option(help="Let many more events pass the selection, for tests.")] = False,
) -> None:
    """Generate input files of the ttbar analysis."""
    from rich.progress import Progress

    with Progress() as bars:
        bar = bars.add_task("Generating", total=files * len(SAMPLES))
        found = generate(
            folder, files=files, events=events, seed=seed, enriched=enriched, progress=lambda: bars.advance(bar)
        )
    typer.echo(f"wrote {found}")


if __name__ == "__main__":
    typer.run(main)
