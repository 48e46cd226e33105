"""Compare histograms with the reference, in both directions: ``python -m agc_example.compare HISTOGRAMS REFERENCE``.

The reference is JSON in the AGC's format, ``{name: {"edges": .., "contents": ..}}`` with underflow and overflow in the
contents, and ``variances`` besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hist
import numpy as np
import typer
import uproot

RELATIVE = 1e-9
"""Relative tolerance: sums of the same numbers in another order agree far better."""


def as_json(histograms: Iterable[tuple[str, hist.Hist]]) -> dict[str, dict[str, list[float]]]:
    """Return 1D histograms in the AGC's format, with variances.

    Examples
    --------
    >>> h = hist.Hist.new.Reg(1, 0, 1).Weight()
    >>> as_json([("h", h)])["h"]["contents"]
    [0.0, 0.0, 0.0]
    """
    return {
        name: {
            "edges": histogram.axes[0].edges.tolist(),
            "contents": histogram.values(flow=True).tolist(),
            "variances": histogram.variances(flow=True).tolist(),
        }
        for name, histogram in sorted(histograms, key=lambda pair: pair[0])
    }


def differences(found: Mapping[str, Any], reference: Mapping[str, Any], *, relative: float = RELATIVE) -> list[str]:
    """Return one line for each histogram that is missing, too many, or different; empty if all agree.

    A reference without variances (the AGC's own) is compared without them.
    """
    lines = [f"{name}: missing" for name in sorted(set(reference) - set(found))]
    lines += [f"{name}: not in the reference" for name in sorted(set(found) - set(reference))]
    for name in sorted(set(found) & set(reference)):
        lines += _of_one(name, found[name], reference[name], relative)
    return lines


def _of_one(name: str, found: Mapping[str, Any], reference: Mapping[str, Any], relative: float) -> list[str]:
    for part in ("edges", "contents", "variances"):
        if part not in reference:
            continue
        a, b = np.asarray(found[part]), np.asarray(reference[part])
        if a.shape != b.shape:
            return [f"{name}: {len(a)} {part} where the reference has {len(b)}"]
        wrong = np.flatnonzero(~np.isclose(a, b, rtol=relative, atol=1e-12))
        if len(wrong):
            i = wrong[0]
            return [f"{name}: {part} differ in {len(wrong)} places, first at {i}: {a[i]:.10g}, reference {b[i]:.10g}"]
    return []


def read(path: Path) -> dict[str, Any]:
    """Return histograms of a ROOT or JSON file in the AGC's format."""
    if path.suffix == ".json":
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    with uproot.open(path) as file:
        return as_json((name, file[name].to_hist()) for name in file.keys(cycle=False))


def main(histograms: Path, reference: Path) -> None:
    """Compare two files of histograms; exit with 1 if they differ."""
    lines = differences(read(histograms), read(reference))
    for line in lines:
        typer.echo(line)
    typer.echo("all histograms agree" if not lines else f"{len(lines)} differences")
    raise typer.Exit(1 if lines else 0)


if __name__ == "__main__":
    typer.run(main)
