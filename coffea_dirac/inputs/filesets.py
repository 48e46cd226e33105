"""Filesets as results: what work items have written, merged into something that the next Runner takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


class Fileset(dict[str, Any]):
    """Files by dataset, ``{dataset: {"files": {path: tree}, "metadata": {...}}}``; sums hold the files of both.

    Examples
    --------
    >>> one = Fileset({"ttbar": {"files": {"a.root": "Events"}, "metadata": {"xsec": 831.8}}})
    >>> two = Fileset({"ttbar": {"files": {"b.root": "Events"}, "metadata": {"xsec": 831.8}}})
    >>> (one + two)["ttbar"]["files"]
    {'a.root': 'Events', 'b.root': 'Events'}
    """

    def __add__(self, other: Mapping[str, Any]) -> Fileset:
        return copy.deepcopy(self).__iadd__(other)

    def __radd__(self, other: Mapping[str, Any] | int) -> Fileset:
        return copy.deepcopy(self) if isinstance(other, int) else Fileset(copy.deepcopy(dict(other))) + self

    def __iadd__(self, other: Mapping[str, Any]) -> Fileset:
        for dataset, new in other.items():
            known = self.setdefault(dataset, {"files": {}, "metadata": copy.deepcopy(new["metadata"])})
            if known["metadata"] != new["metadata"]:
                raise ValueError(
                    f"dataset {dataset!r} has other metadata in one work item than in another: {new['metadata']!r} and "
                    f"{known['metadata']!r}. Give cache.write(..., dataset=...) a name for each"
                )
            known["files"].update(new["files"])
        return self
