"""``python -m coffea_dirac`` is ``coffea-dirac``."""

from coffea_dirac.cli import app

if __name__ == "__main__":
    app(prog_name="coffea-dirac")
