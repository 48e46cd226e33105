"""A, B from it, C, D from it, Y of both: ``python four_cases.py CACHE FORM EDITED``, for a process of its own.

FORM is ``delayed``, ``dict`` or ``awkward``; EDITED is the function whose body is another one, or ``nothing``.  It prints,
as JSON, the value with a cache and without, and the stages that were loaded and computed.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import dask

from coffea_dirac import StageCache, stage

BODIES = {"A": "a * 2", "B": "a + 1", "C": "a * 3", "D": "a - 1", "Y": "b * d"}
Functions = dict[str, Callable[..., Any]]


def functions(edited: str) -> Functions:
    """Return the five functions, one of them with another body."""
    found = {}
    for name, body in BODIES.items():
        arguments = "b, d" if name == "Y" else "a"
        names: dict[str, Any] = {"__name__": "analysis"}
        exec(f"def {name}({arguments}):\n    return {body}{' + 5' if name == edited else ''}\n", names)
        found[name] = names[name]
    return found


def of_delayed(f: Functions) -> Any:
    """Return the value by delayed calls."""
    f = {name: dask.delayed(func) for name, func in f.items()}
    return f["Y"](f["B"](f["A"](1)), f["D"](f["C"](2))).compute(scheduler="sync")


def of_dict(f: Functions) -> Any:
    """Return the value of a graph that is a dict."""
    graph = {"a": (f["A"], 1), "b": (f["B"], "a"), "c": (f["C"], 2), "d": (f["D"], "c"), "y": (f["Y"], "b", "d")}
    return dask.get(graph, "y")


def of_awkward(f: Functions) -> Any:
    """Return the value of partitions of awkward arrays."""
    import awkward as ak
    import dask_awkward as dak

    one, two = (dak.from_awkward(ak.Array([[n, 2.0], [], [3.0]]), npartitions=1) for n in (1.0, 2.0))
    b = dak.map_partitions(f["B"], dak.map_partitions(f["A"], one))
    d = dak.map_partitions(f["D"], dak.map_partitions(f["C"], two))
    return dak.map_partitions(f["Y"], b, d).compute(scheduler="sync").to_list()


FORMS = {"delayed": of_delayed, "dict": of_dict, "awkward": of_awkward}


def main() -> None:
    """Compute with and without a cache, and print."""
    cache, form, edited = sys.argv[1:]
    warnings.simplefilter("ignore")
    made = functions(edited)
    plain = FORMS[form](made)
    with StageCache(cache) as opened:
        value = FORMS[form]({name: stage(func) for name, func in made.items()})
    told = {kind: sorted(o.stage for o in getattr(opened.report, kind)) for kind in ("loaded", "computed")}
    print(json.dumps({"value": value, "plain": plain, **told, "reasons": [r for r, _ in opened.report.reasons]}))


if __name__ == "__main__":
    main()
