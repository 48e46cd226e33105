"""A toy of the processes of the ttbar analysis: random events in the shape of measured ones.

Tops and Ws get the momenta measured in real simulated events and decay isotropically; quarks become jets with the
measured response, discriminators and identification; jets and leptons of other origin are added as often as measured.
Not measured are only the numbers of `agc_example.processes`.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from agc_example.measure import MEASURED, POINTS
from agc_example.processes import Process

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

TOP_MASS, W_MASS, W_WIDTH, B_MASS = 172.5, 80.4, 2.1, 4.8
"""GeV (Particle Data Group, rounded)."""
JET_PT_MIN = 15.0
"""NanoAOD keeps jets above this pt, GeV."""
HADRONIC, ELECTRON, MUON = 0.676, 0.111 + 0.111 * 0.178, 0.106 + 0.113 * 0.174
"""Branching fractions of the W: to quarks, to e and to mu (directly or by a tau); the rest is not seen."""
B, C, QUARK, GLUON = 5, 4, 1, 21
_SEED_OF_TAGS = {
    B: ("ttbar_v12", "b"),
    C: ("wjets_2015", "c"),
    QUARK: ("wjets_2015", "light"),
    GLUON: ("wjets_2015", "light"),
}


_MOST_EXTRA = 10
_EXTRA_C = 0.05


class Particles(NamedTuple):
    """Four-momenta, GeV, each component of shape (events,)."""

    px: Floats
    py: Floats
    pz: Floats
    energy: Floats


class Quarks(NamedTuple):
    """Quarks or jets, each array of shape (events, slots); where `present` is false a slot is empty."""

    pt: Floats
    eta: Floats
    phi: Floats
    flavour: NDArray[np.int64]
    present: NDArray[np.bool_]


@cache
def measured() -> dict[str, Any]:
    """Return the measured numbers, by seed."""
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def simulate(chosen: Process, count: int, rng: np.random.Generator) -> dict[str, ak.Array]:
    """Return jagged records ``Electron``, ``Muon`` and ``Jet`` of `count` events, by descending pt.

    ``slot`` of a jet tells the truth: which quark it comes from, counted in the order in which they were made.

    Examples
    --------
    >>> from agc_example.processes import model
    >>> events = simulate(model("ttbar", "nominal"), 10, np.random.default_rng(1))
    >>> len(events["Jet"]), events["Jet"].fields
    (10, ['pt', 'eta', 'phi', 'mass', 'btagCSVV2', 'jetId', 'qgl', 'slot'])
    """
    heavy = _heavy_quarks(chosen, count, rng)
    extra = _extra_quarks(chosen, count, rng)
    quarks = Quarks(*(np.concatenate(parts, axis=1) for parts in zip(heavy.quarks, extra, strict=True)))
    return {
        "Electron": _leptons("electron", heavy.electrons, chosen, rng),
        "Muon": _leptons("muon", heavy.muons, chosen, rng),
        "Jet": _jets(quarks, chosen, rng),
    }


class _Hard(NamedTuple):
    quarks: Quarks
    electrons: Quarks
    muons: Quarks


def _heavy_quarks(chosen: Process, count: int, rng: np.random.Generator) -> _Hard:
    """Return quarks and leptons of the hard process."""
    always = np.ones(count, dtype=bool)
    found: list[tuple[Particles, Any, Any]] = []
    leptons: list[tuple[Particles, Any]] = []
    azimuth = rng.uniform(-np.pi, np.pi, count)
    for i in range(chosen.tops):
        # Two tops fly apart in azimuth, but for the recoil.
        phi = azimuth + np.pi * i + rng.normal(0, 0.3, count)
        top = _produced("top", "ttbar_v15", TOP_MASS, phi, chosen.top_pt, rng)
        w, b = _decay(top, np.full(count, TOP_MASS), rng.normal(W_MASS, W_WIDTH, count), B_MASS, rng)
        found.append((b, B, always))
        _decay_w(w, _fates(chosen, i, rng.random(count)), found, leptons, rng)
    for i in range(chosen.ws):
        w = _produced("w", chosen.seed, W_MASS, azimuth + np.pi, 1.0, rng)
        _decay_w(w, _fates(chosen, chosen.tops + i, rng.random(count)), found, leptons, rng)
    for _ in range(chosen.b_quarks):
        found.append((_produced("top", "ttbar_v15", B_MASS, azimuth + np.pi, 0.6, rng), B, always))
    for _ in range(chosen.forward_quarks):
        found.append((_produced("w", "wjets_2015", 1.0, azimuth + np.pi, 2.0, rng), QUARK, always))
    electrons = [(p, QUARK, is_muon == 0) for p, is_muon in leptons]
    muons = [(p, QUARK, is_muon == 1) for p, is_muon in leptons]
    return _Hard(_stacked(found), _stacked(electrons), _stacked(muons))


def _fates(chosen: Process, w: int, uniform: Floats) -> Floats:
    """Return how W number `w` of each event decays: numbers in (0, 1), divided by the branching fractions."""
    if chosen.enriched:
        return HADRONIC + (ELECTRON + MUON) * uniform if w == 0 else HADRONIC * uniform
    return HADRONIC + (1 - HADRONIC) * uniform if chosen.w_leptonic else uniform


def _decay_w(w: Particles, fate: Floats, quarks: list[Any], leptons: list[Any], rng: np.random.Generator) -> None:
    """Decay Ws, and append their quarks and leptons; `fate` in (0, 1) tells the channel."""
    mass = np.sqrt(np.maximum(w.energy**2 - w.px**2 - w.py**2 - w.pz**2, 1.0))
    first, second = _decay(w, mass, np.zeros(len(mass)), 0.0, rng)
    hadronic = fate < HADRONIC
    charm = np.where(rng.random(len(mass)) < 0.5, C, QUARK)
    quarks.append((first, charm, hadronic))
    quarks.append((second, QUARK, hadronic))
    is_muon = np.where(fate < HADRONIC + ELECTRON, 0, np.where(fate < HADRONIC + ELECTRON + MUON, 1, 2))
    leptons.append((first, np.where(hadronic, 2, is_muon)))


def _produced(name: str, seed: str, mass: float, phi: Floats, scale: float, rng: np.random.Generator) -> Particles:
    """Return particles with the pt and rapidity measured for tops or Ws."""
    shape = measured()[seed][name]
    pt, rapidity = drawn(shape["pt"], rng.random(len(phi))) * scale, drawn(shape["rapidity"], rng.random(len(phi)))
    transverse = np.hypot(pt, mass)
    return Particles(pt * np.cos(phi), pt * np.sin(phi), transverse * np.sinh(rapidity), transverse * np.cosh(rapidity))


def _decay(
    mother: Particles, mass: Floats, first_mass: Floats, second_mass: float, rng: np.random.Generator
) -> tuple[Particles, Particles]:
    """Return the two daughters of an isotropic decay."""
    first_energy = (mass**2 + first_mass**2 - second_mass**2) / (2 * mass)
    momentum = np.sqrt(np.maximum(first_energy**2 - first_mass**2, 0))
    cosine, phi = rng.uniform(-1, 1, len(mass)), rng.uniform(-np.pi, np.pi, len(mass))
    sine = np.sqrt(1 - cosine**2)
    x, y, z = momentum * sine * np.cos(phi), momentum * sine * np.sin(phi), momentum * cosine
    first = _boosted(x, y, z, first_energy, mother, mass)
    second = Particles(*(whole - part for whole, part in zip(mother, first, strict=True)))
    return first, second


def _boosted(x: Floats, y: Floats, z: Floats, energy: Floats, frame: Particles, mass: Floats) -> Particles:
    """Return a momentum, given in the rest frame of a particle, in the laboratory."""
    along = (x * frame.px + y * frame.py + z * frame.pz) / mass
    factor = along / (frame.energy + mass) + energy / mass
    lab_energy = (frame.energy * energy) / mass + along
    return Particles(x + factor * frame.px, y + factor * frame.py, z + factor * frame.pz, lab_energy)


def _stacked(found: list[tuple[Particles, Any, Any]]) -> Quarks:
    """Return particles of (events,) side by side."""
    if not found:
        raise ValueError("nothing is produced: a process needs a top, a W or a quark")
    px, py, pz = (np.stack([getattr(p, name) for p, _, _ in found], axis=1) for name in ("px", "py", "pz"))
    flavour = np.stack([np.broadcast_to(f, px.shape[:1]) for _, f, _ in found], axis=1)
    pt = np.maximum(np.hypot(px, py), 1e-3)
    return Quarks(pt, np.arcsinh(pz / pt), np.arctan2(py, px), flavour, np.stack([m for _, _, m in found], axis=1))


def _extra_quarks(chosen: Process, count: int, rng: np.random.Generator) -> Quarks:
    """Return jets of other origin, with the measured spectra; their response is in there already."""
    shape = measured()[chosen.seed]["jet"]["extra"]
    number = np.minimum(rng.poisson(chosen.extra * drawn_integer(shape["count"], rng.random(count))), _MOST_EXTRA)
    present = np.arange(_MOST_EXTRA) < number[:, None]
    uniform = rng.random((4, int(number.sum())))
    kind = np.where(uniform[0] < chosen.extra_b, B, np.where(uniform[0] < chosen.extra_b + _EXTRA_C, C, GLUON))
    pt, eta, phi = np.ones(present.shape), np.ones(present.shape), np.ones(present.shape)
    flavour = np.full(present.shape, GLUON, dtype=np.int64)
    flavour[present] = kind
    pt[present], eta[present] = drawn(shape["pt"], uniform[1]), drawn(shape["eta"], uniform[2])
    phi[present] = np.pi * (2 * uniform[3] - 1)
    return Quarks(pt, eta, phi, flavour, present)


def _jets(quarks: Quarks, chosen: Process, rng: np.random.Generator) -> ak.Array:
    """Return the jets of quarks."""
    heavy = quarks.present & (quarks.flavour != GLUON)
    pt = quarks.pt.copy()
    pt[heavy] *= chosen.response * drawn(measured()["ttbar_v12"]["jet"]["response"], rng.random(int(heavy.sum())))
    keep = quarks.present & (pt > JET_PT_MIN) & (abs(quarks.eta) < 5)
    flavour = quarks.flavour[keep]
    found: Columns = {"pt": pt[keep], "eta": quarks.eta[keep], "phi": quarks.phi[keep]}
    shape = measured()[chosen.seed if chosen.seed == "wjets_2015" else "ttbar_v12"]["jet"]
    number = len(flavour)
    found["mass"] = found["pt"] * np.maximum(drawn(shape["mass_over_pt"], rng.random(number)), 0.0)
    found["btagCSVV2"] = _by_flavour("btag", flavour, rng.random(number))
    found["jetId"] = drawn_integer(shape["jetId"], rng.random(number)).astype(np.int32)
    # Quark jets have the larger values of the measured mixture of quark and gluon jets.
    pair = np.sort(rng.random((2, number)), axis=0)
    found["qgl"] = _by_flavour("qgl", flavour, np.where(flavour == GLUON, pair[0], pair[1]))
    found["slot"] = np.broadcast_to(np.arange(keep.shape[1]), keep.shape)[keep]
    return _sorted(found, keep)


def _by_flavour(name: str, flavour: NDArray[np.int64], uniform: Floats) -> Floats:
    found = np.empty(len(flavour))
    for value, (seed, label) in _SEED_OF_TAGS.items():
        mask = flavour == value
        found[mask] = drawn(measured()[seed]["jet"][label][name], uniform[mask])
    return found


def _leptons(name: str, prompt: Quarks, chosen: Process, rng: np.random.Generator) -> ak.Array:
    """Return leptons from Ws, as far as they are found, and those of other origin."""
    shape = measured()[chosen.seed][name]
    good = measured()["ttbar_v12"][name]["prompt"]
    count = len(prompt.pt)
    number = drawn_integer(shape["other"]["count"], rng.random(count))
    slots = np.arange(1 + max(map(int, shape["other"]["count"])))
    others = slots < number[:, None]
    found = prompt.present & (rng.random(prompt.pt.shape) < chosen.lepton_efficiency)
    keep = np.concatenate([found & (abs(prompt.eta) < 2.4) & (prompt.pt > 5), others], axis=1)
    is_prompt = np.broadcast_to(np.arange(keep.shape[1]) < prompt.pt.shape[1], keep.shape)[keep]
    uniform = rng.random((2, *others.shape))
    columns = {
        "pt": np.concatenate([prompt.pt, drawn(shape["other"]["pt"], uniform[0])], axis=1)[keep],
        "eta": np.concatenate([prompt.eta, drawn(shape["other"]["eta"], uniform[1])], axis=1)[keep],
        "phi": np.concatenate([prompt.phi, rng.uniform(-np.pi, np.pi, others.shape)], axis=1)[keep],
    }
    columns["pt"] = columns["pt"] * rng.normal(1, 0.02, len(columns["pt"]))
    columns["mass"] = np.full(len(is_prompt), {"electron": 0.000511, "muon": 0.10566}[name])
    columns["charge"] = np.where(rng.random(len(is_prompt)) < 0.5, 1, -1).astype(np.int32)
    for field in ("cutBased", "tightId", "sip3d", "pfRelIso04_all"):
        if field in good:
            columns[field] = _identity(field, good[field], shape["other"][field], is_prompt, rng)
    return _sorted(columns, keep)


def _identity(
    field: str, good: Any, other: Any, is_prompt: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[Any]:
    """Return an identification variable of leptons, as measured for leptons from a W and for the others."""
    uniform = rng.random(len(is_prompt))
    draw = drawn_integer if isinstance(good, dict) else drawn
    values = np.where(is_prompt, draw(good, uniform), draw(other, uniform))
    return values.astype({"cutBased": np.int32, "tightId": np.bool_}.get(field, np.float64))


def drawn(shape: list[float], uniform: Floats) -> Floats:
    """Return values distributed as measured quantiles, for uniform numbers.

    Examples
    --------
    >>> drawn([0.0] * 20 + [10.0], np.array([0.5, 1.0]))
    array([ 0., 10.])
    """
    place = uniform * (POINTS - 1)
    below = np.minimum(place.astype(np.int64), POINTS - 2)
    values = np.asarray(shape)
    return values[below] + (place - below) * np.diff(values)[below]


def drawn_integer(shape: dict[str, float], uniform: Floats) -> NDArray[np.int64]:
    """Return integers as often as measured, for uniform numbers.

    Examples
    --------
    >>> drawn_integer({"2": 0.3, "6": 0.7}, np.array([0.1, 0.9]))
    array([2, 6])
    """
    edges, values = np.cumsum(list(shape.values())), np.array([int(value) for value in shape])
    return values[np.minimum(np.searchsorted(edges / edges[-1], uniform, side="right"), len(values) - 1)]


def _sorted(columns: Columns, keep: NDArray[np.bool_]) -> ak.Array:
    """Return jagged records by descending pt; `keep`, of shape (events, slots), tells which event each belongs to."""
    counts = keep.sum(axis=1)
    event = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((-columns["pt"], event))
    flat = ak.zip({name: _short(values[order]) for name, values in columns.items()})
    return ak.unflatten(flat, counts)


def _short(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats in single precision with 12 bits of mantissa, as NanoAOD keeps them; other types as they are."""
    if values.dtype != np.float64:
        return values
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 10)) & np.uint32(0xFFFFF800)).view(np.float32)
