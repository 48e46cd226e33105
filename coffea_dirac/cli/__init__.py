"""``coffea-dirac``: the command line.

Every command writes a table, or with ``--json`` the same as JSON.  Nothing is unpickled; only ``plan`` runs user code.
"""

from __future__ import annotations

import typer

from coffea_dirac.cli.cache import cache_app
from coffea_dirac.cli.doctor import doctor
from coffea_dirac.cli.grid import grid_app
from coffea_dirac.cli.plan import plan

app = typer.Typer(help="Caches of coffea_dirac, plans of runs, a grid in a box.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(grid_app, name="grid")
app.command("plan")(plan)
app.command("doctor")(doctor)


@app.callback()
def _main() -> None:
    """Look into caches, plan runs, start a grid in a box."""
