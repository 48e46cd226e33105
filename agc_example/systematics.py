"""Systematic variations: of the jets' momenta, and of event weights; of awkward and of dask-awkward arrays."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from agc_example.selection import as_numpy

PT_SCALE = 1.03
"""Jet energy scale varied up (AGC ttbar task)."""
PT_RESOLUTION = 0.05
"""Width of the relative smearing of jet pt (AGC ttbar task)."""
_UINT64 = np.uint64


def _mixed(x: Any) -> Any:
    """Return splitmix64 of each number (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    with np.errstate(over="ignore"):
        x = x + _UINT64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> _UINT64(30))) * _UINT64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> _UINT64(27))) * _UINT64(0x94D049BB133111EB)
        return x ^ (x >> _UINT64(31))


def _uniform(x: Any) -> Any:
    """Return numbers in (0, 1) from 53 bits of each integer."""
    return (ak.values_astype(x >> _UINT64(11), np.float64) + 0.5) * 2.0**-53


def gauss_by_event(run: Any, luminosity_block: Any, event: Any, place: Any) -> Any:
    """Return normally distributed numbers that follow from the event and the place of the jet in it.

    The same event gets the same numbers in whatever file, work item or order it is processed.

    Parameters
    ----------
    run, luminosity_block, event : array of int, shape (events,)
        What identifies an event.
    place : jagged array of int, shape (events, numbers)
        Place of each number in its event, as ``ak.local_index`` gives it.
    """
    seed = _mixed(ak.values_astype(run, _UINT64))
    for part in (luminosity_block, event):
        seed = _mixed(seed ^ ak.values_astype(part, _UINT64))
    base = _mixed(seed ^ _mixed(ak.values_astype(place, _UINT64)))
    radius = np.sqrt(-2.0 * np.log(_uniform(base)))
    return radius * np.cos(2.0 * np.pi * _uniform(_mixed(base)))


def pt_scale_up(events: Any) -> Any:
    """Return pt of all jets with the energy scale varied up, GeV, in double precision as the AGC's."""
    return events.Jet.pt * np.float64(PT_SCALE)


def pt_res_up(events: Any) -> Any:
    """Return pt of all jets smeared by the resolution, GeV, the same for an event wherever it is processed."""
    jets = events.Jet.pt
    noise = gauss_by_event(events.run, events.luminosityBlock, events.event, ak.local_index(jets))
    return jets * (1.0 + PT_RESOLUTION * noise)


def nominal(events: Any) -> Any:
    """Return pt of all jets as it is, GeV."""
    return events.Jet.pt


KINEMATIC = {"nominal": nominal, "pt_scale_up": pt_scale_up, "pt_res_up": pt_res_up}
"""Variation -> pt of the jets."""


def weight_names(process: str) -> tuple[str, ...]:
    """Return the weight systematics of a process.

    Examples
    --------
    >>> weight_names("wjets")[-1]
    'scale_var'
    """
    b_tag = tuple(f"btag_var_{i}" for i in range(4))
    return (*b_tag, "scale_var") if process == "wjets" else b_tag


def varied_pt(name: str, jets: Any) -> Any:
    """Return pt of the jet that a weight systematic depends on, GeV, shape (events,).

    Parameters
    ----------
    name : str
        ``btag_var_<i>`` (depends on jet i) or ``scale_var``.
    """
    place = int(name[-1]) if name.startswith("btag_var") else 0
    return as_numpy(ak.values_astype(jets["pt"][:, place], np.float64))


def weights(corrections: Any, name: str, direction: str, pt: Any) -> Any:
    """Return the event weights of a systematic, shape (events,).

    Parameters
    ----------
    corrections : correctionlib.CorrectionSet
        With the correction ``event_systematics``.
    name : str
        ``btag_var_<i>`` or ``scale_var``.
    direction : str
        ``up`` or ``down``.
    pt : array, shape (events,)
        What `varied_pt` returned.
    """
    kind = "btag_var" if name.startswith("btag_var") else name
    return corrections["event_systematics"].evaluate(kind, direction, pt)
