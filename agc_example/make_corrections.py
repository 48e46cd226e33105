"""Write the event weights of the systematics as a correctionlib file: ``python -m agc_example.make_corrections``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

CORRECTIONS = Path(__file__).parent / "corrections.json"
B_TAG_SLOPE = 0.075 / 50
"""Relative change of the event weight per GeV of jet pt (AGC ttbar task: 7.5 % at 50 GeV)."""
SCALE = 0.025
"""Relative change of the event weight by the scale of W+jets (AGC ttbar task)."""
_SIGNS = {"up": 1, "down": -1}


def by_direction(value_of: Any) -> dict[str, Any]:
    """Return a node that chooses by ``direction``; any other direction is an error."""
    content = [{"key": direction, "value": value_of(sign)} for direction, sign in _SIGNS.items()]
    return {"nodetype": "category", "input": "direction", "content": content}


def linear_in_pt(sign: int) -> dict[str, Any]:
    """Return the formula ``1 +- slope * pt``."""
    expression = f"1 {'+' if sign > 0 else '-'} {B_TAG_SLOPE:g}*x"
    return {"nodetype": "formula", "expression": expression, "parser": "TFormula", "variables": ["pt"]}


def corrections() -> dict[str, Any]:
    """Return the corrections in version 2 of correctionlib's schema.

    Examples
    --------
    >>> [c["name"] for c in corrections()["corrections"]]
    ['event_systematics']
    """
    kinds = [
        {"key": "btag_var", "value": by_direction(linear_in_pt)},
        {"key": "scale_var", "value": by_direction(lambda sign: round(1 + sign * SCALE, 6))},
    ]
    inputs = [
        {"name": "syst", "type": "string", "description": "btag_var or scale_var"},
        {"name": "direction", "type": "string", "description": "up or down"},
        {"name": "pt", "type": "real", "description": "pt of the jet that btag_var is about, GeV; unused by scale_var"},
    ]
    correction = {
        "name": "event_systematics",
        "version": 1,
        "description": (
            "Event weights of systematic variations of the CMS ttbar task of the Analysis Grand Challenge: sizes as "
            "in its description (b-tagging 7.5 % per 50 GeV of jet pt, scale of W+jets 2.5 %)"
        ),
        "inputs": inputs,
        "output": {"name": "weight", "type": "real", "description": "Factor on the event weight"},
        "data": {"nodetype": "category", "input": "syst", "content": kinds},
    }
    return {"schema_version": 2, "corrections": [correction]}


def main(out: Annotated[Path, typer.Argument(help="File to write.")] = CORRECTIONS) -> None:
    """Write the corrections."""
    from correctionlib.schemav2 import CorrectionSet

    text = CorrectionSet.model_validate(corrections()).model_dump_json(exclude_unset=True, indent=1)
    out.write_text(text + "\n")
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
