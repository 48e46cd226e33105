"""The metadata of a work item, which arrays of its events refer to: what is kept of a stage only names them.

So they are those of the work item that loads it, and count for the stage that reads them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from coffea_dirac.errors import PayloadError

ITEM_METADATA: ContextVar[Any] = ContextVar("coffea_dirac_item_metadata", default=None)
"""Those of the work item at hand while results of its stages are written and read."""
MARK = "coffea_dirac: metadata of the work item"


def marked(metadata: Any) -> Any:
    """Return the mark for what is the metadata of the work item at hand; all else as it is."""
    found = ITEM_METADATA.get()
    return MARK if found is not None and type(metadata) is type(found) and metadata.is_untouched else metadata


def at_hand(metadata: Any) -> Any:
    """Return the metadata of the work item at hand for the mark; all else as it is.

    Raises
    ------
    PayloadError
        There is no work item.
    """
    if metadata != MARK:
        return metadata
    if (found := ITEM_METADATA.get()) is None:
        raise PayloadError("it has arrays of a work item, and is read without one")
    return found


def refers_to_metadata(data: bytes | memoryview) -> bool:
    """Return whether a payload can be read only where the metadata of its work item are at hand."""
    return MARK.encode() in bytes(data)
