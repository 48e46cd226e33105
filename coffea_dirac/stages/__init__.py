"""Functions whose results are worth keeping: the decorator `stage`, handles of calls, and how they are pulled."""

from coffea_dirac.stages.stage import Stage, stage

__all__ = ["Stage", "stage"]
