"""The AGC's own ``TtbarAnalysis``, for comparisons: taken out of its script as it stands.

It is not in this repository: a checkout of iris-hep/analysis-grand-challenge is named by ``AGC_ORIGINAL``.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

MODULE = "agc_class"
_WANTED = {"ak", "correctionlib", "hist", "np", "processor", "PackedSelection", "copy", "utils", "NanoAODSchema"}


def folder() -> Path | None:
    """Return the folder of the analysis in the checkout that ``AGC_ORIGINAL`` names, None if there is none."""
    named = os.environ.get("AGC_ORIGINAL", "")
    found = Path(named) / "analyses" / "cms-open-data-ttbar"
    return found if named and found.is_dir() else None


def write_module(script: Path) -> Path:
    """Write the class and the imports above it as the module `MODULE` beside its script; return where.

    It is imported with that folder as working directory: it reads files there.
    """
    source = script.read_text()
    tree = ast.parse(source)
    kept = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TtbarAnalysis"]
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and _WANTED & {name.asname or name.name.split(".")[0] for name in node.names}
    ]
    path = script.with_name(f"{MODULE}.py")
    path.write_text("\n".join(filter(None, (ast.get_source_segment(source, node) for node in [*imports, *kept]))))
    return path
