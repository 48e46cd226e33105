"""The observable of each region, of awkward and of dask-awkward arrays."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from agc_example.selection import B_TAG_THRESHOLD


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
    # Worked out of each jet once, not in each of its combinations.
    parts = {name: getattr(jets, name) for name in ("px", "py", "pz", "energy", "btag")}
    three = ak.combinations(ak.zip(parts), 3, fields=["a", "b", "c"])
    btag = np.maximum(three.a.btag, np.maximum(three.b.btag, three.c.btag))
    three = three[btag > B_TAG_THRESHOLD]
    px = three.a.px + three.b.px + three.c.px
    py = three.a.py + three.b.py + three.c.py
    pz = three.a.pz + three.b.pz + three.c.pz
    energy = three.a.energy + three.b.energy + three.c.energy
    best = ak.argmax(np.sqrt(px**2 + py**2), axis=1, keepdims=True)
    mass2 = (energy**2 - px**2 - py**2 - pz**2)[best]
    # An event without a combination would be None: dropped, its weight has no partner and filling fails.
    return np.sqrt(np.maximum(ak.values_astype(ak.drop_none(ak.flatten(mass2)), np.float64), 0.0))


OBSERVABLES = {"4j1b": sum_of_jet_pt, "4j2b": trijet_mass}
"""Region -> observable of its selected jets."""
