"""Small datasets for a data lake in a box: muons in files like NanoAOD."""

from __future__ import annotations

from pathlib import Path

FILES, EVENTS = 2, 1000
DATASETS = ("mc:dimuon", "mc:muons")


def write_sample(folder: Path) -> dict[str, list[str]]:
    """Write the files of small datasets and return them by the datasets' names; the same bytes hold the same events."""
    found: dict[str, list[str]] = {}
    for number, did in enumerate(DATASETS):
        name = did.partition(":")[2]
        found[did] = []
        for part in range(FILES):
            path = folder / f"{name}_{part}.root"
            _write(path, seed=FILES * number + part, mean=2 - number)
            found[did].append(str(path))
    return found


def _write(path: Path, *, seed: int, mean: int) -> None:
    import awkward as ak
    import numpy as np
    import uproot

    random = np.random.default_rng(seed)
    counts = random.poisson(mean, EVENTS)
    n = int(counts.sum())
    values = {
        "pt": random.exponential(30, n),
        "eta": random.normal(0, 1.5, n),
        "phi": random.uniform(-np.pi, np.pi, n),
        "mass": np.full(n, 0.10566),
    }
    muons = ak.zip({name: ak.unflatten(of_all.astype("f4"), counts) for name, of_all in values.items()})
    muons["charge"] = ak.unflatten(random.choice(np.array([-1, 1], "i4"), n), counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        ids = {"run": "u4", "luminosityBlock": "u4", "event": "u8"}
        tree = file.mktree("Events", {"Muon": muons.type, **{name: np.dtype(kind) for name, kind in ids.items()}})
        tree.extend({"Muon": muons, **{name: np.arange(EVENTS, dtype=kind) for name, kind in ids.items()}})
