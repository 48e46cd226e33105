"""The metadata of a work item, with a note of which of them user code reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import digest_value
from coffea_dirac.inputs.discovery import Window, window_at_hand
from coffea_dirac.inputs.paths import ABSENT, names_digest

_MISSING = object()


class RecordingMetadata(dict[str, Any]):
    """The metadata of a work item, noting in its window which keys are read; iterating counts as reading all.

    What the schema of the events puts there, `of_schema`, counts with the schema.
    """

    def __init__(self, values: Mapping[str, Any], window: Window, of_schema: Collection[str] = ()) -> None:
        super().__init__(values)
        self._window, self._of_schema = window, frozenset(of_schema)
        self._replaced: set[str] = set()

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has put anything into it."""
        return not self._replaced

    @property
    def _at_hand(self) -> Window:
        """The window that is open here: inside a stage it is that of the stage."""
        return window_at_hand() or self._window

    def _note(self, key: Any) -> None:
        window = self._at_hand
        if isinstance(key, str) and key not in window.metadata and key not in self._replaced | self._of_schema:
            try:
                window.metadata[key] = metadata_digest(self, key)
            except FingerprintError as error:
                window.unchecked = f"metadata[{key!r}] cannot be fingerprinted: {error}"

    def _note_all(self) -> None:
        for key in dict.keys(self):
            self._note(key)
        self._at_hand.metadata.setdefault("*", metadata_digest(self, "*"))

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._replaced.add(key)
        super().__setitem__(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self._note(key)
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._note_all()
        return super().popitem()

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._note_all()
        return super().__reversed__()

    def __len__(self) -> int:
        self._note_all()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._note_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def of_user(self, others: Collection[str]) -> dict[str, Any]:
        """Return all but the entries named, which are not read."""
        self._at_hand.metadata.setdefault("*", metadata_digest(self, "*"))
        return {key: self[key] for key in dict.keys(self) if key not in others}

    def __repr__(self) -> str:
        return repr(self.copy())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def copy(self) -> dict[str, Any]:
        self._note_all()
        return dict(dict.items(self))

    def keys(self) -> Any:
        self._note_all()
        return super().keys()

    def values(self) -> Any:
        self._note_all()
        return super().values()

    def items(self) -> Any:
        self._note_all()
        return super().items()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (self.copy(),)

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        import copy

        return copy.deepcopy(self.copy(), memo)


def metadata_digest(values: dict[str, Any], key: str) -> str:
    """Return the digest of one metadata value, of the names of all for ``"*"``.

    Raises
    ------
    FingerprintError
        The value cannot be fingerprinted.
    """
    if key == "*":
        of_schema = values._of_schema if isinstance(values, RecordingMetadata) else ()
        return names_digest(name for name in dict.keys(values) if name not in of_schema)
    value = dict.get(values, key, _MISSING)
    return ABSENT if value is _MISSING else digest_value(value)
