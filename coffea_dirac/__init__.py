"""Run coffea analyses on DIRAC resources and recompute only what really changed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coffea_dirac.cache import StageCache
    from coffea_dirac.catalogs import open_catalog
    from coffea_dirac.client import DiracClient
    from coffea_dirac.cluster.cluster import DiracCluster
    from coffea_dirac.codecs import register_codec
    from coffea_dirac.dirac.places import WorkerGroup
    from coffea_dirac.errors import CoffeaDiracError
    from coffea_dirac.executor import DiracExecutor
    from coffea_dirac.inputs.files import File
    from coffea_dirac.replicas import resolve
    from coffea_dirac.stages.stage import stage
    from coffea_dirac.stores import open_store

__all__ = [
    "CoffeaDiracError",
    "DiracClient",
    "DiracCluster",
    "DiracExecutor",
    "File",
    "StageCache",
    "WorkerGroup",
    "open_catalog",
    "open_store",
    "register_codec",
    "resolve",
    "stage",
]

# Each name is imported when it is first asked for: a scheduler needs no coffea, a full hit needs no distributed.
_ROOMS = {
    "CoffeaDiracError": "errors",
    "DiracClient": "client",
    "DiracCluster": "cluster.cluster",
    "DiracExecutor": "executor",
    "File": "inputs.files",
    "StageCache": "cache",
    "WorkerGroup": "dirac.places",
    "open_catalog": "catalogs",
    "open_store": "stores",
    "register_codec": "codecs",
    "resolve": "replicas",
    "stage": "stages.stage",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'coffea_dirac' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"coffea_dirac.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
