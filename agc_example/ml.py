"""Which jet is which quark of a ttbar decay: features of each assignment, and the best one by boosted decision trees.

The task is that of version 2 of the AGC's ttbar analysis. An assignment gives four of the six leading jets the parts of
the two jets of the W and the b jet of the top that decays to quarks, and of the b jet of the other, leptonic top.
Definitions are those of the AGC, with its order of the two jets of a W and its angles, which do not go round.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import xgboost
from numpy.typing import NDArray

from agc_example.selection import numpy_p4

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

Features = NDArray[np.floating]
Places = NDArray[np.intp]


@cache
def assignments(jets: int) -> Places:
    """Return all assignments of so many jets, each as places of W's first, W's second, hadronic b and leptonic b jet.

    The two jets of a W are alike, and the one that comes later in the event, the softer one, is called the first.

    Examples
    --------
    >>> [len(assignments(n)) for n in (3, 4, 5, 6)]
    [0, 12, 60, 180]
    >>> assignments(4)[0]
    array([1, 0, 2, 3])
    """
    found = [places for places in permutations(range(jets), 4) if places[0] > places[1]]
    return np.array(found, dtype=np.intp).reshape(-1, 4)


@cache
def _shared(jets: int) -> tuple[Places, Places, Places, Places]:
    """Return what assignments of so many jets have in common, so that each sum of momenta is made once.

    That is: the pairs of jets of a W; of each such pair with a b jet, which pair and which jet they are; and which of
    these triples each assignment has.
    """
    places = assignments(jets)
    pairs, pair_of = np.unique(places[:, :2], axis=0, return_inverse=True)
    triples, first, triple_of = np.unique(places[:, :3], axis=0, return_index=True, return_inverse=True)
    return pairs, pair_of.ravel()[first], triples[:, 2], triple_of.ravel()  # numpy 2.0 gives them a second axis


def features(jets: Any, leptons: Any) -> tuple[Features, NDArray[np.int64]]:
    """Return the features of all assignments of all events.

    Parameters
    ----------
    jets : awkward array
        Selected jets by descending pt, with pt, eta, phi, mass (GeV), ``btag`` and ``qgl``.
    leptons : awkward array, shape (events,)
        The selected lepton of each event.

    Returns
    -------
    features : array, shape (assignments of all events, 20)
        In the order of `FEATURES`, as precise as pt of the jets.
    counts : array of int, shape (events,)
        How many of the rows belong to each event: 12, 60 or 180 for 4, 5, or 6 and more jets; none for fewer.

    Raises
    ------
    ValueError
        There are more or fewer leptons than events.
    """
    if len(leptons) != len(jets):
        raise ValueError(f"{len(leptons)} leptons for {len(jets)} events; give the one lepton of each selected event")
    lepton = numpy_p4(leptons)
    leading = jets[:, :MAX_JETS]
    number = ak.to_numpy(ak.num(leading, axis=1))
    counts = np.array([len(assignments(n)) for n in range(MAX_JETS + 1)], dtype=np.int64)[number]
    flat = ak.flatten(leading)
    p4, columns = numpy_p4(flat), {name: ak.to_numpy(flat[name]) for name in ak.fields(flat)}
    found = np.empty((int(counts.sum()), len(FEATURES)), dtype=columns["pt"].dtype)
    first_row, first_jet = np.cumsum(counts) - counts, np.cumsum(number) - number
    for n in np.unique(number[counts > 0]):
        events = np.flatnonzero(number == n)
        places = first_jet[events, None] + np.arange(n)
        rows = first_row[events, None] + np.arange(len(assignments(n)))
        for i, values in enumerate(_of_events(places, p4, columns, lepton[events])):
            found[rows, i] = values
    return found, counts


def _of_events(places: Places, p4: Any, columns: Mapping[str, Any], lepton: Any) -> list[Any]:
    """Return the features of events with the same number of jets, each of shape (events, assignments).

    `places` of shape (events, jets) are those in `p4` and `columns`. Momenta are added in the AGC's order and in the
    precision of the file, so that features are the same to the bit.
    """
    w1, w2, had, lep = assignments(places.shape[1]).T
    pairs, pair_of, b_jet, triple_of = _shared(places.shape[1])
    jet = [part[places] for part in (p4.x, p4.y, p4.z, p4.t)]
    w = [part[:, pairs[:, 0]] + part[:, pairs[:, 1]] for part in jet]
    top = [of_w[:, pair_of] + part[:, b_jet] for of_w, part in zip(w, jet, strict=True)]
    with_lepton = lepton[np.repeat(np.arange(len(places)), places.shape[1])] + p4[places.ravel()]
    eta, phi = columns["eta"][places], columns["phi"][places]
    angle = _distance(eta[:, :, None] - eta[:, None], phi[:, :, None] - phi[:, None])
    to_lepton = _distance(lepton.eta[:, None] - eta, lepton.phi[:, None] - phi)
    return [
        to_lepton[:, lep],
        angle[:, w1, w2],
        angle[:, w1, had],
        angle[:, w2, had],
        with_lepton.mass.reshape(places.shape)[:, lep],
        _mass(*w)[:, pair_of[triple_of]],
        _mass(*top)[:, triple_of],
        np.sqrt(top[0] ** 2 + top[1] ** 2)[:, triple_of],
        *(columns[name][places][:, part] for name in ("pt", "btag", "qgl") for part in (w1, w2, had, lep)),
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
    array, shape (events, 20)

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
            scores[rows] = models[name].inplace_predict(features[rows])
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


def _mass(x: Any, y: Any, z: Any, t: Any) -> Any:
    mass2 = t**2 - (x**2 + y**2 + z**2)
    return np.copysign(np.sqrt(np.abs(mass2)), mass2)


def _distance(eta: Any, phi: Any) -> Any:
    return np.sqrt(eta**2 + phi**2)
