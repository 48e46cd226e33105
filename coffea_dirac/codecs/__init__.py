"""Results to canonical bytes and back, without loss and without pickle.

`tree` walks plain Python values; `arrays` (numpy), `columns` (awkward), `histograms` and `accumulators` (coffea's, and the
containers of ``collections``) know the types of one library each and are imported when one is met.
"""

from __future__ import annotations

from coffea_dirac.codecs.tree import Payload, decode, encode, register_codec

__all__ = ["Payload", "decode", "encode", "register_codec"]
