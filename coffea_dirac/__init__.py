"""Run coffea analyses on DIRAC resources and recompute only what really changed."""

from coffea_dirac.cache import StageCache
from coffea_dirac.cluster import DiracCluster
from coffea_dirac.codecs import register_codec
from coffea_dirac.errors import CoffeaDiracError
from coffea_dirac.executor import DiracExecutor
from coffea_dirac.stages import File
from coffea_dirac.stores import open_store

__all__ = [
    "CoffeaDiracError",
    "DiracCluster",
    "DiracExecutor",
    "File",
    "StageCache",
    "open_store",
    "register_codec",
]
