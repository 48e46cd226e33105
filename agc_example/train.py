"""Train the models of the jet assignment on simulated ttbar events: ``python -m agc_example.train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import awkward as ak
import numpy as np
import typer
import xgboost
from numpy.typing import NDArray

from agc_example import ml
from agc_example.processes import model
from agc_example.selection import in_region, select_with_lepton
from agc_example.simulate import simulate

MODELS = Path(__file__).parent / "models"
SEED, CLUSTER = 1, 10_000
"""Seed of the simulation, and events simulated at once."""
LEPTONIC_B, HADRONIC_B, W_QUARKS = 0, 3, (4, 5)
"""Slots of the quarks where the first of two tops decays to a lepton, the second to quarks, as in enriched events."""
PARAMETERS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 4,
    "eta": 0.3,
    "max_bin": 64,
    "nthread": 1,
    "seed": SEED,
}
ROUNDS = 50


def training_events(events: int) -> tuple[dict[str, Any], Any]:
    """Return selected ttbar events of region 4j2b, and the slot of each of their jets, which tells the truth."""
    chosen, slots = [], []
    for start in range(0, events, CLUSTER):
        rng = np.random.default_rng([SEED, start])
        simulated = simulate(model("ttbar", "nominal", enriched=True), min(CLUSTER, events - start), rng)
        jets = simulated["Jet"]
        simulated["event"] = np.arange(start, start + len(jets))
        chosen.append(_selected(simulated))
        # The selection hands on only what the analysis needs: the truth passes it in place of another number.
        slots.append(_selected({**simulated, "Jet": ak.with_field(jets, jets.slot, "qgl")})["jets"].qgl)
    return {name: ak.concatenate([c[name] for c in chosen]) for name in chosen[0]}, ak.concatenate(slots)


def _selected(columns: dict[str, Any]) -> dict[str, Any]:
    return in_region(select_with_lepton(ak.zip(columns, depth_limit=1), columns["Jet"].pt), "4j2b")


def truth(slots: Any, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each assignment of each event whether it is the true one.

    Parameters
    ----------
    slots : awkward array
        Slots of the selected jets of each event.
    counts : array of int
        Assignments of each event.

    Examples
    --------
    >>> int(truth(ak.Array([[3, 4, 0, 5]]), np.array([12])).nonzero()[0][0])
    8
    >>> ml.assignments(4)[8]
    array([3, 1, 0, 2])
    """
    found = []
    padded = ak.to_numpy(ak.fill_none(ak.pad_none(slots, ml.MAX_JETS, clip=True), -1))
    number = ak.to_numpy(np.minimum(ak.num(slots), ml.MAX_JETS))
    for event, n in zip(padded, number, strict=True):
        part = event[ml.assignments(int(n))]
        is_w = np.sort(part[:, :2], axis=1) == W_QUARKS
        found.append(is_w.all(axis=1) & (part[:, 2] == HADRONIC_B) & (part[:, 3] == LEPTONIC_B))
    result = np.concatenate(found)
    if len(result) != counts.sum():
        raise ValueError(f"{len(result)} assignments of the jets, but {counts.sum()} were counted")
    return result


def train(features: ml.Features, labels: NDArray[np.bool_]) -> Any:
    """Return a trained model; the same from the same numbers."""
    data = xgboost.DMatrix(features, label=labels, nthread=1)
    wrong_per_right = float((~labels).sum() / max(labels.sum(), 1))
    return xgboost.train({**PARAMETERS, "scale_pos_weight": wrong_per_right}, data, num_boost_round=ROUNDS)


def efficiency(best: ml.Features, features: ml.Features, counts: NDArray[np.int64], labels: NDArray[np.bool_]) -> float:
    """Return in which fraction of the events that have a true assignment it is the best one."""
    event = np.repeat(np.arange(len(counts)), counts)
    right = (features[labels] == best[event[labels]]).all(axis=1)
    return float(right.mean())


def main(
    events: Annotated[int, typer.Option(help="Simulated events, before the selection.")] = 200_000,
    folder: Annotated[Path, typer.Option(help="Where even.json and odd.json go.")] = MODELS,
) -> None:
    """Train both models and write them."""
    found, slots = training_events(events)
    features, counts = ml.features(found["jets"], found["lepton"])
    labels = truth(slots, counts)
    is_even = ak.to_numpy(found["is_even"])
    even_rows = np.repeat(is_even, counts)
    models = {name: train(features[r], labels[r]) for name, r in (("even", even_rows), ("odd", ~even_rows))}
    best = ml.best(features, counts, is_even, models)
    share = efficiency(best, features, counts, labels)
    typer.echo(f"{len(counts)} events, {labels.sum()} with a true assignment, found in {share:.0%} of them")
    folder.mkdir(parents=True, exist_ok=True)
    for name, trained in models.items():
        (folder / f"{name}.json").write_bytes(bytes(trained.save_raw("json")) + b"\n")


if __name__ == "__main__":
    typer.run(main)
