"""Objects and events that the ttbar analysis selects.

Cuts are those of version 2 of the AGC ttbar task (docs/versionsdescription.rst of iris-hep/analysis-grand-challenge).
Arrays are awkward or dask-awkward ones: what is written here serves both.
"""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
import vector
from coffea.nanoevents.methods import vector as coffea_vector
from numpy.typing import NDArray

PT_MIN = 30.0
"""Smallest transverse momentum of leptons and jets, GeV."""
B_TAG_THRESHOLD = 0.5
"""A jet with a larger discriminator counts as a b jet."""
_TIGHT_LEPTON_VETO = 4


def with_p4(pt: Any, collection: Any, **more: Any) -> Any:
    """Return the four-momenta of a collection with the given pt, and further fields."""
    fields = {"pt": pt, "eta": collection.eta, "phi": collection.phi, "mass": collection.mass, **more}
    return ak.zip(fields, with_name="PtEtaPhiMLorentzVector", behavior=coffea_vector.behavior)


def as_numpy(array: Any) -> Any:
    """Return a flat array as numpy's, which is far quicker; a lazy one, or one that has no data, as it is."""
    return np.asarray(array) if isinstance(array, ak.Array) and ak.backend(array) == "cpu" else array


def numpy_p4(flat: Any) -> Any:
    """Return the four-momenta of a flat array in numpy's arrays, with the same numbers; without data, as they are."""
    columns = {name: as_numpy(flat[name]) for name in ("pt", "eta", "phi", "mass")}
    return vector.array(columns) if isinstance(columns["pt"], np.ndarray) else flat


def field(collection: Any, *names: str) -> Any:
    """Return the first of the named fields that a collection has: NanoAOD renames them between versions.

    Raises
    ------
    ValueError
        It has none of them.
    """
    for name in names:
        if name in ak.fields(collection):
            return collection[name]
    raise ValueError(
        f"the collection has none of the fields {', '.join(names)}; it has {', '.join(ak.fields(collection))}"
    )


def is_good_electron(electrons: Any) -> Any:
    """Whether an electron is tight and central."""
    tight = (electrons.cutBased == 4) & (electrons.sip3d < 4)
    return (electrons.pt > PT_MIN) & (abs(electrons.eta) < 2.1) & tight


def is_good_muon(muons: Any) -> Any:
    """Whether a muon is tight, isolated and central."""
    tight = muons.tightId & (muons.sip3d < 4) & (muons.pfRelIso04_all < 0.15)
    return (muons.pt > PT_MIN) & (abs(muons.eta) < 2.1) & tight


def is_good_jet(pt: Any, jets: Any) -> Any:
    """Whether a jet of the given pt is central and no lepton (NanoAOD v15 keeps tight jets only and has no jetId)."""
    found = (pt > PT_MIN) & (abs(jets.eta) < 2.4)
    return found & (jets.jetId & _TIGHT_LEPTON_VETO != 0) if "jetId" in ak.fields(jets) else found


def good_leptons(events: Any) -> dict[str, Any]:
    """Return which electrons and which muons are good, shape (events, leptons)."""
    return {"Electron": is_good_electron(events.Electron), "Muon": is_good_muon(events.Muon)}


def has_one_lepton(good: dict[str, Any]) -> Any:
    """Whether an event has one good lepton."""
    return ak.sum(good["Electron"], axis=1) + ak.sum(good["Muon"], axis=1) == 1


def momenta_of_leptons(events: Any, good: dict[str, Any], one: Any) -> Any:
    """Return the four-momenta of the good leptons of events that have `one`, a flat array."""
    found = [with_p4(events[name].pt, events[name])[of_some][one] for name, of_some in good.items()]
    return ak.flatten(ak.concatenate(found, axis=1))


def select(events: Any, one_lepton: Any, jet_pt: Any, **more: Any) -> dict[str, Any]:
    """Return the selected jets of events with one lepton, four jets and a b jet.

    Parameters
    ----------
    events : NanoEvents
        Events of one work item.
    one_lepton : array of bool, shape (events,)
        Whether an event has one good lepton; no variation of the jets changes that.
    jet_pt : awkward array
        pt of each jet, GeV, after a variation.
    **more : array, shape (events, ...)
        What else the selected events need.

    Returns
    -------
    dict
        ``jets`` (in the order of the file, with ``btag`` and ``qgl``), ``b_jets`` (their number), ``is_even`` (of the
        event number) and what was given besides, for the selected events.
    """
    jet = is_good_jet(jet_pt, events.Jet)
    btag = field(events.Jet, "btagCSVV2", "btagDeepFlavB")
    qgl = field(events.Jet, "qgl", "btagPNetQvG")
    b_jets = ak.sum(btag[jet] > B_TAG_THRESHOLD, axis=1)
    keep = one_lepton & (ak.sum(jet, axis=1) >= 4) & (b_jets >= 1)
    jets = with_p4(jet_pt, events.Jet, btag=btag, qgl=qgl)
    return {
        "jets": jets[jet][keep],
        "b_jets": b_jets[keep],
        "is_even": events.event[keep] % 2 == 0,
        **{name: values[keep] for name, values in more.items()},
    }


def select_with_lepton(events: Any, jet_pt: Any) -> dict[str, Any]:
    """Return the selected jets as `select` does, and the ``lepton`` of each of their events."""
    good = good_leptons(events)
    one = np.asarray(has_one_lepton(good))
    found = select(events, one, jet_pt, lepton=place_among(one))
    return {**found, "lepton": momenta_of_leptons(events, good, one)[found["lepton"]]}


def place_among(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the place that each chosen event has among the chosen ones; what it says of others means nothing.

    Examples
    --------
    >>> place_among(np.array([True, False, True]))[[0, 2]].tolist()
    [0, 1]
    """
    return np.cumsum(chosen) - 1


def in_region(selected: dict[str, Any], region: str) -> dict[str, Any]:
    """Return what is selected in region ``4j1b`` (one b jet) or ``4j2b`` (two or more)."""
    b_jets = selected["b_jets"]
    mask = b_jets == 1 if region == "4j1b" else b_jets >= 2
    return {name: values[mask] for name, values in selected.items()}
