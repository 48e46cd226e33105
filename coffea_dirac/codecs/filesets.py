"""What `coffea_dirac` itself gives as a result: filesets of what was written."""

from __future__ import annotations

from collections.abc import Mapping

from coffea_dirac.codecs.plain import pairs, read_pairs
from coffea_dirac.codecs.tree import Reader, Writer
from coffea_dirac.inputs.filesets import Fileset

_TAG = "coffea_dirac:fileset"


def writer(kind: type) -> Writer | None:
    """Return how a fileset is written, or None."""
    return (lambda encoder, value: [_TAG, *pairs(encoder, value)]) if kind is Fileset else None


READERS: Mapping[str, Reader] = {_TAG: lambda decoder, args: Fileset(read_pairs(decoder, args))}
