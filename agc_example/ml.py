"""Which jet is which quark of a ttbar decay: features of each assignment, and the best one by boosted decision trees.

The task is that of version 2 of the AGC's ttbar analysis. An assignment gives four of the six leading jets the parts of
the two jets of the W and the b jet of the top that decays to quarks, and of the b jet of the other, leptonic top.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import xgboost
from numpy.typing import NDArray

MAX_JETS = 6
"""Softer jets are not assigned (AGC ttbar task)."""
FEATURES = (
    ("deltar_leptonbtoplep", 0.0, 6.0, r"$\Delta R$ of lepton and leptonic top's b jet"),
    ("deltar_w1w2", 0.0, 6.0, r"$\Delta R$ of the W's jets"),
    ("deltar_w1btophad", 0.0, 6.0, r"$\Delta R$ of the W's first jet and hadronic top's b jet"),
    ("deltar_w2btophad", 0.0, 6.0, r"$\Delta R$ of the W's second jet and hadronic top's b jet"),
    ("mass_leptonbtoplep", 50.0, 300.0, "Mass of lepton and leptonic top's b jet [GeV]"),
    ("mass_w1w2", 50.0, 300.0, "Mass of the W's jets [GeV]"),
    ("mass_w1w2btophad", 50.0, 550.0, "Mass of the hadronic top's jets [GeV]"),
    ("pt_w1w2btophad", 50.0, 550.0, r"$p_T$ of the hadronic top's jets [GeV]"),
    ("pt_w1", 25.0, 300.0, r"$p_T$ of the W's first jet [GeV]"),
    ("pt_w2", 25.0, 300.0, r"$p_T$ of the W's second jet [GeV]"),
    ("pt_btophad", 25.0, 300.0, r"$p_T$ of the hadronic top's b jet [GeV]"),
    ("pt_btoplep", 25.0, 300.0, r"$p_T$ of the leptonic top's b jet [GeV]"),
    ("btag_w1", 0.0, 1.0, "b tag of the W's first jet"),
    ("btag_w2", 0.0, 1.0, "b tag of the W's second jet"),
    ("btag_btophad", 0.0, 1.0, "b tag of the hadronic top's b jet"),
    ("btag_btoplep", 0.0, 1.0, "b tag of the leptonic top's b jet"),
    ("qgl_w1", -1.0, 1.0, "Quark-gluon likelihood of the W's first jet"),
    ("qgl_w2", -1.0, 1.0, "Quark-gluon likelihood of the W's second jet"),
    ("qgl_btophad", -1.0, 1.0, "Quark-gluon likelihood of the hadronic top's b jet"),
    ("qgl_btoplep", -1.0, 1.0, "Quark-gluon likelihood of the leptonic top's b jet"),
)
"""(name, low, high, label) of each feature; names and ranges are those of the AGC's configuration."""

Features = NDArray[np.float32]
Values = NDArray[np.float64]


@cache
def assignments(jets: int) -> NDArray[np.intp]:
    """Return all assignments of so many jets, each as places of W's first, W's second, hadronic b and leptonic b jet.

    The two jets of a W are alike, and the harder one is called the first.

    Examples
    --------
    >>> [len(assignments(n)) for n in (3, 4, 5, 6)]
    [0, 12, 60, 180]
    >>> assignments(4)[0]
    array([0, 1, 2, 3])
    """
    found = [
        (first, second, *b)
        for first, second in combinations(range(jets), 2)
        for b in permutations([place for place in range(jets) if place not in (first, second)], 2)
    ]
    return np.array(found, dtype=np.intp).reshape(-1, 4)


def features(jets: Any, electrons: Any, muons: Any) -> tuple[Features, NDArray[np.int64]]:
    """Return the features of all assignments of all events.

    Parameters
    ----------
    jets : awkward array
        Selected jets by descending pt, with pt, eta, phi, mass (GeV), ``btag`` and ``qgl``.
    electrons, muons : awkward array
        Selected leptons, together one in each event.

    Returns
    -------
    features : array of float32, shape (assignments of all events, 20)
        In the order of `FEATURES`.
    counts : array of int, shape (events,)
        How many of the rows belong to each event: 12, 60 or 180 for 4, 5, or 6 and more jets; none for fewer.

    Raises
    ------
    ValueError
        An event has no lepton or several.
    """
    lepton = _one_lepton(electrons, muons)
    leading = jets[:, :MAX_JETS]
    number = ak.to_numpy(ak.num(leading, axis=1))
    counts = np.array([len(assignments(n)) for n in range(MAX_JETS + 1)], dtype=np.int64)[number]
    found = np.empty((int(counts.sum()), len(FEATURES)), dtype=np.float32)
    first_row = np.cumsum(counts) - counts
    columns = {name: ak.to_numpy(ak.flatten(leading[name])) for name in ("pt", "eta", "phi", "mass", "btag", "qgl")}
    first_jet = np.cumsum(number) - number
    for n in np.unique(number[counts > 0]):
        events = np.flatnonzero(number == n)
        places = first_jet[events, None] + np.arange(n)
        rows = first_row[events, None] + np.arange(len(assignments(n)))
        alike = _of_events({k: v[places] for k, v in columns.items()}, {k: v[events] for k, v in lepton.items()})
        for i, values in enumerate(alike):
            found[rows, i] = values
    return found, counts


def _of_events(jets: Mapping[str, Any], lepton: Mapping[str, Any]) -> list[Any]:
    """Return the features of events with the same number of jets, each of shape (events, assignments)."""
    w1, w2, had, lep = assignments(jets["pt"].shape[1]).T
    p4 = _p4(jets)
    lepton_p4 = _p4({name: values[:, None] for name, values in lepton.items()})
    angle = _distance(jets["eta"][:, :, None] - jets["eta"][:, None], jets["phi"][:, :, None] - jets["phi"][:, None])
    to_lepton = _distance(jets["eta"] - lepton["eta"][:, None], jets["phi"] - lepton["phi"][:, None])
    w = p4[:, :, :, None] + p4[:, :, None]  # all pairs of jets: there are fewer of them than assignments
    top = w[:, :, w1, w2] + p4[:, :, had]
    return [
        to_lepton[:, lep],
        angle[:, w1, w2],
        angle[:, w1, had],
        angle[:, w2, had],
        _mass(p4 + lepton_p4)[:, lep],
        _mass(w)[:, w1, w2],
        _mass(top),
        np.hypot(top[0], top[1]),
        *(jets[name][:, part] for name in ("pt", "btag", "qgl") for part in (w1, w2, had, lep)),
    ]


def best(
    features: Features, counts: NDArray[np.int64], even_mask: NDArray[np.bool_], models: Mapping[str, Any]
) -> Features:
    """Return the features of the assignment with the largest score in each event.

    Parameters
    ----------
    features, counts
        As `features` returns them.
    even_mask : array of bool, shape (events,)
        Whether the event has an even number.
    models : mapping
        ``even`` and ``odd``: the models trained on events with even and odd numbers. Each is used for the others.

    Returns
    -------
    array of float32, shape (events, 20)

    Raises
    ------
    ValueError
        An event has no assignment.
    """
    if len(counts) and counts.min() == 0:
        raise ValueError("an event has no assignment: it has fewer than four jets; select events with at least four")
    is_even = np.repeat(np.asarray(even_mask, dtype=bool), counts)
    scores = np.empty(len(features), dtype=np.float32)
    for rows, name in ((is_even, "odd"), (~is_even, "even")):
        if rows.any():
            scores[rows] = models[name].inplace_predict(features[rows], predict_type="margin")
    first_row = np.cumsum(counts) - counts
    chosen = np.empty(len(counts), dtype=np.int64)
    for count in np.unique(counts):
        events = np.flatnonzero(counts == count)
        chosen[events] = first_row[events] + scores[first_row[events, None] + np.arange(count)].argmax(axis=1)
    return features[chosen]


def load_model(path: Path) -> Any:
    """Return the model of a file, read once for each content; it uses one thread, since workers share a machine.

    Examples
    --------
    >>> load_model(Path(__file__).parent / "models" / "even.json").num_features()
    20
    """
    return _model(path.read_bytes())


@lru_cache(maxsize=8)
def _model(content: bytes) -> Any:
    model = xgboost.Booster({"nthread": 1})
    model.load_model(bytearray(content))
    model.set_param({"nthread": 1})
    return model


def _one_lepton(electrons: Any, muons: Any) -> dict[str, Values]:
    number = ak.num(electrons, axis=1) + ak.num(muons, axis=1)
    if not ak.all(number == 1):
        raise ValueError("an event has no lepton or several; select events with exactly one before")
    names = ("pt", "eta", "phi", "mass")
    return {name: ak.to_numpy(ak.flatten(ak.concatenate([electrons[name], muons[name]], axis=1))) for name in names}


def _p4(columns: Mapping[str, Any]) -> Values:
    """Return (px, py, pz, energy) along the first axis, in double precision."""
    pt, eta, phi, mass = (columns[name].astype(np.float64) for name in ("pt", "eta", "phi", "mass"))
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return np.stack([px, py, pz, np.sqrt(px**2 + py**2 + pz**2 + mass**2)])


def _mass(p4: Values) -> Values:
    mass2: Values = p4[3] ** 2 - p4[0] ** 2 - p4[1] ** 2 - p4[2] ** 2
    return np.sqrt(np.maximum(mass2, 0.0))


def _distance(eta: Any, phi: Any) -> Any:
    return np.hypot(eta, (phi + np.pi) % (2 * np.pi) - np.pi)
