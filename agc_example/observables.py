"""The observable of each region, of awkward arrays; of dask-awkward ones by partition."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from agc_example.selection import B_TAG_THRESHOLD, as_numpy, numpy_p4


def sum_of_jet_pt(jets: Any) -> Any:
    """Return H_T of each event: the scalar sum of its jets' pt, GeV.

    Examples
    --------
    >>> sum_of_jet_pt(ak.Array([{"pt": [30.0, 40.0]}])).tolist()
    [70.0]
    """
    return ak.values_astype(ak.sum(jets["pt"], axis=-1), np.float64)


def trijet_mass(jets: Any) -> Any:
    """Return the mass of the hadronic top of each event, GeV.

    Among all combinations of three jets with at least one b jet it is the one with the largest transverse momentum.
    """
    number, each = ak.num(jets), ak.flatten(jets)
    # Worked out of each jet once, not in each of its combinations.
    p4 = numpy_p4(each)
    parts = [getattr(p4, name) for name in ("px", "py", "pz", "energy")]
    btag = as_numpy(each["btag"])
    three = ak.combinations(ak.unflatten(ak.local_index(each, axis=0), number), 3)
    places = [as_numpy(of_jet) for of_jet in ak.unzip(ak.flatten(three))]
    has_b = _of_three(np.maximum, btag, places) > B_TAG_THRESHOLD
    with_b = [of_jet[has_b] for of_jet in places]
    px, py, pz, energy = (_of_three(np.add, part, with_b) for part in parts)
    per_event = ak.sum(ak.unflatten(has_b, ak.num(three)), axis=1)
    best = ak.argmax(ak.unflatten(np.sqrt(px**2 + py**2), per_event), axis=1, keepdims=True)
    mass2 = ak.unflatten(energy**2 - px**2 - py**2 - pz**2, per_event)[best]
    # An event without a combination would be None: dropped, its weight has no partner and filling fails.
    found = as_numpy(ak.values_astype(ak.drop_none(ak.flatten(mass2)), np.float64))
    return np.sqrt(np.maximum(found, 0.0))


def _of_three(combined: Any, values: Any, places: list[Any]) -> Any:
    """Return what a function of two makes of the values of the three jets of each combination."""
    first, second, third = (values[of_jet] for of_jet in places)
    return combined(combined(first, second), third)


OBSERVABLES = {"4j1b": sum_of_jet_pt, "4j2b": trijet_mass}
"""Region -> observable of its selected jets."""
