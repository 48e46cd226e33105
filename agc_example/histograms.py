"""Histograms of observables by process and variation, filled at once for all weights of the same events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hist
import numpy as np

Axis = tuple[int, float, float, str]
"""Bins, lowest and highest edge, label."""


def histograms(
    axes: Sequence[Axis], process: str, values: Mapping[str, Any], weights: Mapping[str, Any]
) -> list[hist.Hist]:
    """Return the histograms of observables by process and variation, one for each axis.

    Parameters
    ----------
    axes : sequence of tuple
        Bins, lowest and highest edge, label.
    process : str
        The only category of the axis ``process``.
    values : mapping
        Variation -> the observables of its events, shape (events, len(axes)).
    weights : mapping
        Variation -> weights of the nominal events, shape (events,).

    Examples
    --------
    >>> jets = {"nominal": np.array([[60.0], [90.0]]), "scaled": np.array([[66.0], [99.0]])}
    >>> [h] = histograms([(2, 50.0, 100.0, "pt")], "ttbar", jets, {"btag_up": np.array([1.5, 0.5])})
    >>> h.values()[:, 0].T.tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.5, 0.5]]
    """
    names = [*values, *weights]
    found = _empty(axes, process, names)
    views = [histogram.view(flow=True)[:, 0] for histogram in found]
    for name, of_events in values.items():
        further = weights if name == "nominal" else {}
        each = np.array([np.ones(len(of_events)), *further.values()])
        summed = {"value": each.ravel(), "variance": (each**2).ravel()}
        numbers = [names.index(variation) for variation in (name, *further)]
        for histogram, view, observable in zip(found, views, of_events.T, strict=True):
            # Which bin an event falls into is looked up once for all its weights; -1 is underflow.
            bins = histogram.axes[0].index(observable) + 1
            cells = (bins + len(view) * np.arange(len(each))[:, np.newaxis]).ravel()
            for field, terms in summed.items():
                sums = np.bincount(cells, terms, minlength=len(view) * len(each))
                view[field][:, numbers] = sums.reshape(len(each), len(view)).T
    return found


def _empty(axes: Sequence[Axis], process: str, variations: Sequence[str]) -> list[hist.Hist]:
    categories = [
        hist.axis.StrCategory([process], name="process", growth=True),
        hist.axis.StrCategory(variations, name="variation", growth=True),
    ]
    regular = [hist.axis.Regular(bins, low, high, name="observable", label=label) for bins, low, high, label in axes]
    return [hist.Hist(observable, *categories, storage=hist.storage.Weight()) for observable in regular]
