"""Results to canonical bytes and back, without loss and without pickle.

`tree` walks over a result and knows Python's own values by `plain`; `standard` (the standard library), `arrays`
(numpy), `columns` (awkward), `histograms`, `accumulators` (coffea's, and ``collections``) and `frames` (pandas) know
the types of one library each, imported when one is met; `objects` knows classes of the user's, `factories` what a
``defaultdict`` calls, and `live` finds both.
"""

from __future__ import annotations

from coffea_dirac.codecs.live import offer
from coffea_dirac.codecs.tree import Payload, decode, encode, register_codec

__all__ = ["Payload", "decode", "encode", "offer", "register_codec"]
