"""``coffea-dirac``: the command line.

Every command writes a table, or with ``--json`` the same as JSON.  Nothing is unpickled; only ``plan`` runs user code.
"""

from __future__ import annotations

import typer

from coffea_dirac.cli.cache import cache_app
from coffea_dirac.cli.plan import plan

app = typer.Typer(help="Look into a cache of coffea_dirac and keep it in order.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.command("plan")(plan)


@app.callback()
def _main() -> None:
    """Look into a cache of coffea_dirac and keep it in order."""
