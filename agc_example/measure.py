"""Measure in real NanoAOD files what the generator needs: ``python -m agc_example.measure FOLDER``.

The files are small public samples: two of ttbar (coffea's tests) and one of W+jets in the AGC's own format (test data
of scikit-hep). Only summary numbers are kept, no events.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import awkward as ak
import numpy as np
import typer
import uproot
from numpy.typing import NDArray

MEASURED = Path(__file__).parent / "measured.json"
SEEDS = {
    "ttbar_v12": "nano_tt_v12.root",
    "ttbar_v15": "nano_tt_v15.root",
    "wjets_2015": "nanoAOD_2015_CMS_Open_Data_ttbar.root",
}
"""Seed -> file. The last one holds W+jets, whatever its name says: no event has a top quark, nearly all have a W."""
POINTS = 21
"""Quantiles kept of each distribution, at evenly spaced probabilities from 0 to 1."""
FLAVOURS = {"b": 5, "c": 4, "light": 0}
_LAST_COPY = 1 << 13
_B_TAGS = ("Jet_btagCSVV2", "Jet_btagDeepFlavB")
_QGLS = ("Jet_qgl", "Jet_btagPNetQvG")

Values = NDArray[np.float64]


class MeasureError(ValueError):
    """A seed file that cannot be measured; the message names it."""


def quantiles(values: Any) -> list[float]:
    """Return `POINTS` quantiles of a flat or jagged array, four digits each; none of an empty one.

    Examples
    --------
    >>> quantiles([[0.0, 2.0], [1.0]])[::10]
    [0.0, 1.0, 2.0]
    """
    flat = np.asarray(ak.flatten(ak.Array(values), axis=None), dtype=np.float64)
    if not len(flat):
        return []
    return [float(f"{x:.4g}") for x in np.quantile(flat, np.linspace(0, 1, POINTS))]


def fractions(values: Any) -> dict[str, float]:
    """Return how often each integer occurs, as a fraction.

    Examples
    --------
    >>> fractions([4, 4, 0, 1])
    {'0': 0.25, '1': 0.25, '4': 0.5}
    """
    found, counts = np.unique(np.asarray(ak.flatten(ak.Array(values), axis=None)).astype(int), return_counts=True)
    return {str(value): round(float(count / counts.sum()), 4) for value, count in zip(found, counts, strict=True)}


def measure_leptons(tree: Any, name: str, identity: tuple[str, ...], spectra: tuple[str, ...]) -> dict[str, Any]:
    """Return spectra and identification of prompt leptons (from W or tau) and of the other ones."""
    kind = tree[f"{name}_genPartFlav"].array()
    prompt = (kind == 1) | (kind == 15)
    found: dict[str, Any] = {}
    for label, mask in (("prompt", prompt), ("other", ~prompt)):
        columns = {field: quantiles(tree[f"{name}_{field}"].array()[mask]) for field in ("pt", "eta", *spectra)}
        ids = {field: fractions(tree[f"{name}_{field}"].array()[mask]) for field in identity}
        found[label] = {"count": fractions(ak.sum(mask, axis=1)), **columns, **ids}
    return found


def measure_jets(tree: Any, names: set[str]) -> dict[str, Any]:
    """Return multiplicity and spectra of jets, and the discriminators of central ones by flavour."""
    pt, eta, mass = (tree[f"Jet_{field}"].array() for field in ("pt", "eta", "mass"))
    flavour = tree["Jet_hadronFlavour"].array()
    btag = tree[next(name for name in _B_TAGS if name in names)].array()
    qgl = tree[next(name for name in _QGLS if name in names)].array()
    quarks = from_top(tree)
    near = _nearest(eta, tree["Jet_phi"].array(), quarks["eta"], quarks["phi"])
    extra = ak.fill_none(near > 0.4, True)
    central = (pt > 30) & (abs(eta) < 2.4)
    found = {
        "count": fractions(ak.num(pt)),
        "extra": {"count": fractions(ak.sum(extra, axis=1)), "pt": quantiles(pt[extra]), "eta": quantiles(eta[extra])},
        "mass_over_pt": quantiles(mass / pt),
        "jetId": fractions(tree["Jet_jetId"].array()) if "Jet_jetId" in names else {},
        "response": quantiles(response(pt, eta, tree["Jet_phi"].array(), quarks)),
        "flavour": fractions(flavour[central]),
    }
    for label, value in FLAVOURS.items():
        mask = central & (flavour == value)
        found[label] = {"jets": int(ak.sum(mask)), "btag": quantiles(btag[mask]), "qgl": quantiles(qgl[mask])}
    return found


def from_top(tree: Any) -> Any:
    """Return the generated quarks whose mother is a top quark or a W, in their first copy."""
    pdg, mother = tree["GenPart_pdgId"].array(), tree["GenPart_genPartIdxMother"].array()
    above = abs(pdg[ak.mask(mother, mother >= 0)])
    chosen = ak.fill_none((abs(pdg) < 6) & ((above == 6) | (above == 24)), False)
    return ak.zip({field: tree[f"GenPart_{field}"].array()[chosen] for field in ("pt", "eta", "phi")})


def response(pt: Any, eta: Any, phi: Any, quarks: Any) -> Any:
    """Return jet pt over quark pt, for quarks above 20 GeV with a jet within 0.2."""
    quarks = quarks[quarks.pt > 20]
    pairs = ak.cartesian({"q": quarks, "j": ak.zip({"pt": pt, "eta": eta, "phi": phi})}, nested=True)
    distance = _distance(pairs.q.eta - pairs.j.eta, pairs.q.phi - pairs.j.phi)
    close = pairs[ak.argmin(distance, axis=2, keepdims=True)]
    return (close.j.pt / close.q.pt)[ak.fill_none(ak.min(distance, axis=2, keepdims=True) < 0.2, False)]


def measure_heavy(tree: Any, pdg_id: int) -> dict[str, Any]:
    """Return pt (GeV) and rapidity of generated tops or Ws, and pt of their sum in an event."""
    chosen = (abs(tree["GenPart_pdgId"].array()) == pdg_id) & (tree["GenPart_statusFlags"].array() & _LAST_COPY != 0)
    pt, eta, phi, mass = (tree[f"GenPart_{field}"].array()[chosen] for field in ("pt", "eta", "phi", "mass"))
    longitudinal = pt * np.sinh(eta)
    rapidity = np.arcsinh(longitudinal / np.sqrt(mass**2 + pt**2))
    system = np.hypot(ak.sum(pt * np.cos(phi), axis=1), ak.sum(pt * np.sin(phi), axis=1))
    return {
        "count": fractions(ak.num(pt)),
        "pt": quantiles(pt),
        "rapidity": quantiles(rapidity),
        "sum_pt": quantiles(system),
    }


def measure_file(path: Path) -> dict[str, Any]:
    """Return all that is measured in one file.

    Raises
    ------
    MeasureError
        The file is missing.
    """
    if not path.exists():
        raise MeasureError(f"no file {path}; the folder must hold {', '.join(SEEDS.values())}")
    with uproot.open(path) as file:
        tree = file["Events"]
        return {
            "events": tree.num_entries,
            "top": measure_heavy(tree, 6),
            "w": measure_heavy(tree, 24),
            "electron": measure_leptons(tree, "Electron", ("cutBased",), ("sip3d",)),
            "muon": measure_leptons(tree, "Muon", ("tightId",), ("sip3d", "pfRelIso04_all")),
            "jet": measure_jets(tree, set(tree.keys())),
        }


def main(folder: Annotated[Path, typer.Argument(help="Folder with the real files.")], out: Path = MEASURED) -> None:
    """Measure the seed files of a folder and write the numbers."""
    found = {name: {"file": file, **measure_file(folder / file)} for name, file in SEEDS.items()}
    out.write_text(as_text(found) + "\n")
    typer.echo(f"measured {len(found)} files; wrote {out}")


def as_text(value: Any, indent: str = "") -> str:
    """Return JSON with one line for each list or mapping of numbers.

    Examples
    --------
    >>> print(as_text({"a": {"b": [1, 2]}}))
    {
     "a": {
      "b": [1, 2]
     }
    }
    """
    if not isinstance(value, dict) or not any(isinstance(v, dict | list) for v in value.values()):
        return json.dumps(value)
    rows = [f"{indent} {json.dumps(key)}: {as_text(v, indent + ' ')}" for key, v in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def _distance(eta: Any, phi: Any) -> Any:
    return np.hypot(eta, (phi + np.pi) % (2 * np.pi) - np.pi)


def _nearest(eta: Any, phi: Any, other_eta: Any, other_phi: Any) -> Any:
    """Return the distance of each object to the nearest other one; None where there is none."""
    mine, theirs = ak.unzip(
        ak.cartesian([ak.zip({"e": eta, "p": phi}), ak.zip({"e": other_eta, "p": other_phi})], nested=True)
    )
    return ak.min(_distance(mine.e - theirs.e, mine.p - theirs.p), axis=2)


if __name__ == "__main__":
    typer.run(main)
