"""Filesets from lists of input files, and the numbers that turn counts into expected events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LUMINOSITY = 3378.0
"""Integrated luminosity of the AGC ttbar task, 1/pb."""

TREE = "Events"
"""The tree of NanoAOD."""

CROSS_SECTIONS = {
    "ttbar": 396.87 + 332.97,
    "single_top_s_chan": 2.0268 + 1.2676,
    "single_top_t_chan": (36.993 + 22.175) / 0.252,
    "single_top_tW": 37.936 + 37.906,
    "wjets": 61457 * 0.252,
}
"""Process -> cross section, pb (AGC ttbar task, utils/file_input.py of iris-hep/analysis-grand-challenge)."""


class InputListError(ValueError):
    """A list of input files that cannot be used; the message says what it lacks."""


def fileset_from(path: Path, *, files: int | None = None) -> dict[str, Any]:
    """Return the fileset of a JSON file: the AGC's own list of inputs, or a coffea fileset.

    Parameters
    ----------
    path : Path
        The AGC's form is ``{process: {variation: {"nevts_total": .., "files": [{"path": .., "nevts": ..}]}}}``; a
        coffea fileset has metadata ``process``, ``variation`` and ``nevts``.
    files : int, optional
        At most so many files of each sample.

    Raises
    ------
    InputListError
        The file is missing, is no JSON, or has neither form.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputListError(
            f"{path} is missing: generate data with --generate, or name a list with --inputs"
        ) from error
    except ValueError as error:
        raise InputListError(f"{path} is no JSON ({error})") from error
    if not isinstance(found, dict) or not found:
        raise InputListError(f"{path} holds no mapping of samples: the AGC's list or a coffea fileset is needed")
    if all(isinstance(sample, dict) and "files" in sample for sample in found.values()):
        return {name: _of_coffea(path, name, sample, files) for name, sample in found.items()}
    return _of_agc(path, found, files)


def _of_agc(path: Path, found: dict[str, Any], files: int | None) -> dict[str, Any]:
    fileset = {}
    for process, variations in found.items():
        if process not in CROSS_SECTIONS:
            raise InputListError(
                f"{path}: no cross section is known for {process!r}; known are {', '.join(CROSS_SECTIONS)}"
            )
        try:
            samples = {variation: sample["files"][:files] for variation, sample in variations.items()}
            for variation, chosen in samples.items():
                metadata = {"process": process, "variation": variation, "nevts": sum(file["nevts"] for file in chosen)}
                places = [_place(path, file["path"]) for file in chosen]
                fileset[f"{process}__{variation}"] = {"files": places, "metadata": metadata}
        except (AttributeError, KeyError, TypeError) as error:
            raise InputListError(
                f"{path}: {process!r} has not the AGC's form, "
                '{variation: {"nevts_total": .., "files": [{"path": .., "nevts": ..}]}}'
            ) from error
    return fileset


def _place(path: Path, name: str) -> str:
    return name if "://" in name or Path(name).is_absolute() else str(path.parent / name)


def _of_coffea(path: Path, name: str, sample: dict[str, Any], files: int | None) -> dict[str, Any]:
    metadata = sample.get("metadata") or {}
    lacking = [key for key in ("process", "variation") if key not in metadata]
    if lacking:
        raise InputListError(f"{path}: dataset {name!r} has no metadata {' and '.join(map(repr, lacking))}")
    if metadata["process"] not in CROSS_SECTIONS:
        raise InputListError(f"{path}: no cross section is known for {metadata['process']!r} of dataset {name!r}")
    listed = list(sample["files"])
    chosen = listed[:files]
    if len(chosen) < len(listed):
        # The number of events is that of all files.
        metadata = {key: value for key, value in metadata.items() if key != "nevts"}
    return {"files": chosen, "treename": _tree(path, name, sample), "metadata": metadata}


def _tree(path: Path, name: str, sample: dict[str, Any]) -> str:
    """Return the tree of a dataset: coffea's Runner takes one, and looks at no tree named beside a file."""
    if "treename" in sample:
        return str(sample["treename"])
    beside = sample["files"].values() if isinstance(sample["files"], dict) else ()
    named = [tree.get("object_path") if isinstance(tree, dict) else tree for tree in beside]
    found = {str(tree) for tree in named if tree is not None}
    if len(found) > 1:
        trees = ", ".join(sorted(found))
        raise InputListError(
            f"{path}: the files of dataset {name!r} have the trees {trees}; make it a dataset for each"
        )
    return next(iter(found), TREE)
