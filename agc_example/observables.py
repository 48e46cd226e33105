"""The observable of each region, of awkward arrays; of dask-awkward ones by partition."""

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
    three = ak.combinations(ak.zip(parts), 3)
    has_b, px, py, pz, energy = _sums(*ak.unzip(ak.flatten(three)))
    per_event = ak.sum(ak.unflatten(has_b, ak.num(three)), axis=1)
    best = ak.argmax(ak.unflatten(np.sqrt(px**2 + py**2), per_event), axis=1, keepdims=True)
    mass2 = ak.unflatten(energy**2 - px**2 - py**2 - pz**2, per_event)[best]
    # An event without a combination would be None: dropped, its weight has no partner and filling fails.
    return np.sqrt(np.maximum(ak.values_astype(ak.drop_none(ak.flatten(mass2)), np.float64), 0.0))


def _sums(a: Any, b: Any, c: Any) -> tuple[Any, ...]:
    """Return which combinations have a b jet, shape (combinations,), and the summed momenta of those that have."""
    btag = np.maximum(_flat(a.btag), np.maximum(_flat(b.btag), _flat(c.btag)))
    has_b = btag > B_TAG_THRESHOLD
    sums = (_flat(a[name]) + _flat(b[name]) + _flat(c[name]) for name in ("px", "py", "pz", "energy"))
    return has_b, *(total[has_b] for total in sums)


def _flat(array: Any) -> Any:
    """Return a flat array as numpy's, which is far quicker; one of a typetracer, which has no data, as it is."""
    return np.asarray(array) if isinstance(array, ak.Array) and ak.backend(array) == "cpu" else array


OBSERVABLES = {"4j1b": sum_of_jet_pt, "4j2b": trijet_mass}
"""Region -> observable of its selected jets."""
