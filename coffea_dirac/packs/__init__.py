"""Records and where they lie: packs, their footers, and the index over all of them, on any store.

`format` turns records and rows into bytes and back, `pack` writes and reads packs, `index` knows which rows there are.
"""

from __future__ import annotations

from coffea_dirac.packs.index import Index
from coffea_dirac.packs.pack import SESSIONS, PackWriter, bundle_rows, read

__all__ = ["SESSIONS", "Index", "PackWriter", "bundle_rows", "read"]
