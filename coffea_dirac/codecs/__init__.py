"""Results to canonical bytes and back, without loss and without pickle.

`tree` walks over a result and knows Python's own values by `plain`; `arrays` (numpy), `columns` (awkward), `histograms`
and `accumulators` (coffea's, and ``collections``) know the types of one library each, imported when one is met.
"""

from __future__ import annotations

from coffea_dirac.codecs.tree import Payload, decode, encode, register_codec

__all__ = ["Payload", "decode", "encode", "register_codec"]
