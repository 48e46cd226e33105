"""Run coffea analyses on DIRAC resources and recompute only what really changed."""

from coffea_dirac.cache import StageCache
from coffea_dirac.errors import CoffeaDiracError
from coffea_dirac.executor import DiracExecutor

__all__ = ["CoffeaDiracError", "DiracExecutor", "StageCache"]
