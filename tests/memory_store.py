"""What tests of packs share: stores that count what they are asked, in a dict and in a folder, a key, a pack."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Blob, Record, Row, Store
from coffea_dirac.packs import PackWriter
from coffea_dirac.stores import LocalStore


class MemoryStore:
    url = "memory://test"

    def __init__(self, blobs: Mapping[str, bytes] | None = None) -> None:
        self.blobs = dict(blobs or {})
        self.calls: Counter[str] = Counter()

    def list(self, prefix: str = "") -> list[Blob]:
        self.calls["list"] += 1
        return sorted(Blob(name, len(data), 0.0) for name, data in self.blobs.items() if name.startswith(prefix))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        self.calls["read"] += 1
        data = self.blobs.get(name)
        return None if data is None else data[start:stop]

    def create(self, name: str, data: bytes) -> None:
        self.calls["create"] += 1
        if name in self.blobs:
            raise StoreError(f"{name} is there already")
        self.blobs[name] = data

    def delete(self, name: str) -> None:
        self.blobs.pop(name, None)


class CountedStore(LocalStore):
    """A store in a folder that notes what it is asked, also by other processes."""

    def _note(self, verb: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".calls").open("a") as file:
            file.write(f"{verb}\n")

    def calls(self) -> list[str]:
        """Return the verbs so far."""
        return (self.path / ".calls").read_text().split()

    def list(self, prefix: str = "") -> list[Blob]:  # type: ignore[valid-type]
        self._note("list")
        return super().list(prefix)


def key(i: int | str) -> str:
    """Return a key that looks like a fingerprint."""
    return hashlib.sha256(f"key {i}".encode()).hexdigest()


def keep(store: Store, session: str, records: Sequence[Record], worker: str = "w") -> list[Row]:
    """Write records as one pack and return their rows."""
    writer = PackWriter(store, session, worker)
    for one in records:
        writer.add(one)
    return writer.close()
