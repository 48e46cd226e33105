"""A thousand ways to damage a store: no wrong payload comes out, nothing but a miss happens, the rest is still found."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import pickle
import random
import struct
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from memory_store import MemoryStore, keep, key

from coffea_dirac import codecs
from coffea_dirac.errors import CorruptRecordError, PayloadError
from coffea_dirac.interfaces import Discovered, Record
from coffea_dirac.packs import Index, PackWriter, bundle_rows, read
from coffea_dirac.packs.format import TRAILER_SIZE, read_table, table_bytes, table_size

Blobs = dict[str, bytes]
Damage = Callable[[random.Random, Blobs, str], None]


@cache
def undamaged() -> tuple[Blobs, dict[tuple[str, tuple[Discovered, ...]], bytes]]:
    """Two closed sessions and a dead one, with several packs each; and the payloads that belong to keys and inputs."""
    store = MemoryStore()
    truth: dict[tuple[str, tuple[Discovered, ...]], bytes] = {}
    for session_number in range(3):
        index = Index(store)
        session, rows = index.open_session(), []
        for pack in range(3):
            records = []
            for i in range(4):
                number = 100 * session_number + 10 * pack + i
                inputs = (Discovered("file", "corrections.json", str(number % 2)),)
                # One key with other inputs has another result; many are of the same size, so that swaps fit.
                value = codecs.encode({"number": number, "bins": bytes(range(40)) * (1 + i % 2)})
                records.append(Record(key(number // 2), value.data, value.codec, inputs, info={"entries": number}))
                truth[records[-1].key, inputs] = value.data
            rows += keep(store, session, records, f"w{pack}")
        if session_number < 2:
            index.close_session(session, rows)
    return store.blobs, truth


def flip(rng: random.Random, blobs: Blobs, name: str) -> None:
    data = bytearray(blobs[name])
    for _ in range(rng.choice([1, 1, 1, 2, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    blobs[name] = bytes(data)


def truncate(rng: random.Random, blobs: Blobs, name: str) -> None:
    blobs[name] = blobs[name][: rng.randrange(len(blobs[name]))]


def cut_out(rng: random.Random, blobs: Blobs, name: str) -> None:
    data = blobs[name]
    begin = rng.randrange(len(data))
    blobs[name] = data[:begin] + data[begin + rng.randrange(1, 200) :]


def append(rng: random.Random, blobs: Blobs, name: str) -> None:
    blobs[name] += rng.randbytes(rng.randrange(1, 300))


def zero(rng: random.Random, blobs: Blobs, name: str) -> None:
    begin = rng.randrange(len(blobs[name]))
    end = min(len(blobs[name]), begin + rng.randrange(1, 512))
    blobs[name] = blobs[name][:begin] + bytes(end - begin) + blobs[name][end:]


def swap_blobs(rng: random.Random, blobs: Blobs, name: str) -> None:
    other = rng.choice([n for n in blobs if n != name and n.rpartition(".")[2] == name.rpartition(".")[2]] or [name])
    blobs[name], blobs[other] = blobs[other], blobs[name]


def delete(_: random.Random, blobs: Blobs, name: str) -> None:
    del blobs[name]


def swap_records(rng: random.Random, blobs: Blobs, name: str) -> None:
    """Exchange two whole, valid records of a pack; its footer stays."""
    if not name.endswith(".pack"):
        flip(rng, blobs, name)
        return
    data = blobs[name]
    table = read_table(data, pack=name)
    rows = [table.row(i) for i in range(len(table))]
    first, second = rng.choice([(a, b) for a in rows for b in rows if a != b and a.length == b.length])
    parts = bytearray(data)
    parts[first.offset : first.offset + first.length] = data[second.offset : second.offset + second.length]
    parts[second.offset : second.offset + second.length] = data[first.offset : first.offset + first.length]
    blobs[name] = bytes(parts)


def swap_footers(rng: random.Random, blobs: Blobs, name: str) -> None:
    other = rng.choice([n for n in blobs if n.endswith(".pack")])
    if not name.endswith(".pack"):
        flip(rng, blobs, name)
        return
    (a, cut_a), (b, cut_b) = ((blobs[n], len(blobs[n]) - table_size(blobs[n])) for n in (name, other))
    blobs[name], blobs[other] = a[:cut_a] + b[cut_b:], b[:cut_b] + a[cut_a:]


def swap_cells(rng: random.Random, blobs: Blobs, name: str) -> None:
    """Exchange cells of rows, in a table that is valid in every other respect."""

    def change(tree: Any) -> None:
        column = rng.choice([c for c in tree["columns"].values() if len(c) > 1])
        i, j = rng.sample(range(len(column)), 2)
        column[i], column[j] = column[j], column[i]

    forge(blobs, name, change)


JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    7,
    1 << 61,
    1 << 80,
    1.5,
    float("nan"),
    "",
    "x",
    "../../x",
    "\udc80",
    [],
    [[]],
    {},
    {"a": []},
]


def junk_cells(rng: random.Random, blobs: Blobs, name: str) -> None:
    """Put values of wrong types and sizes anywhere in a table that has a valid digest."""

    def change(tree: Any) -> None:
        node = tree
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            place = rng.choice(places)
            if not isinstance(node[place], list | dict) or not node[place] or rng.random() < 0.2:
                break
            node = node[place]
        node[place] = rng.choice(JUNK)

    forge(blobs, name, change)


def forge(blobs: Blobs, name: str, change: Callable[[Any], None]) -> None:
    data = blobs[name]
    if name.endswith(".json"):
        blobs[name] = b"[]"
        return
    cut = len(data) - table_size(data)
    tree = json.loads(data[cut:-TRAILER_SIZE])
    change(tree)
    body = json.dumps(tree).encode()
    # The trailer of an empty table, filled in for this one.
    magic = table_bytes([])[-8:]
    blobs[name] = data[:cut] + body + struct.pack("<32sQ8s", hashlib.sha256(body).digest(), len(body), magic)


class _Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.target,)


DAMAGES: list[Damage] = [
    flip,
    truncate,
    cut_out,
    append,
    zero,
    swap_blobs,
    delete,
    swap_records,
    swap_footers,
    swap_cells,
    junk_cells,
]


def outcome(blobs: Blobs) -> tuple[dict[tuple[str, tuple[Discovered, ...]], bytes], int]:
    """Return what a session finds in a store, and how many records and blobs it refused."""
    store = MemoryStore(blobs)
    index = Index(store)
    index.refresh()
    rows = [row for rows in index.rows(map(key, range(150))).values() for row in rows]
    found, refused = {}, len(index.problems)
    for row, payload in read(store, rows).items():
        if isinstance(payload, CorruptRecordError):
            refused += 1
            continue
        codecs.decode(row.codec, payload)
        found[row.key, row.inputs] = payload
    for session in {name.split("/")[2] for name in blobs}:
        bundle_rows(store, session, "w1")
    session = index.open_session()
    index.close_session(session, [])
    return found, refused


def test_the_undamaged_store_has_all() -> None:
    blobs, truth = undamaged()
    assert outcome(blobs) == (truth, 0)
    assert len(truth) == 36


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_damage_yields_a_wrong_payload(damage: Damage) -> None:
    good, truth = undamaged()
    refused_total = 0
    for seed in range(120):
        rng, blobs = random.Random(f"{damage.__name__} {seed}"), dict(good)
        name = rng.choice(sorted(blobs))
        damage(rng, blobs, name)
        found, refused = outcome(blobs)
        refused_total += refused
        wrong = {place for place, payload in found.items() if truth.get(place) != payload}
        assert not wrong, f"seed {seed}: {len(wrong)} wrong payloads after a damage to {name}"
        # One blob holds four records and two blobs at most were touched: all the others are still found.
        assert len(found) >= len(truth) - 8, (
            f"seed {seed}: {len(truth) - len(found)} records lost by a damage to {name}"
        )
    assert refused_total > 0 or damage is delete


def test_a_pickle_in_any_place_is_refused_and_not_run(tmp_path: Path) -> None:
    good, truth = undamaged()
    bomb = pickle.dumps(_Bomb(str(tmp_path / "ran")))
    for name in sorted(good):
        for data in (bomb, good[name] + bomb, bomb + good[name], bomb + table_bytes([])):
            found, _ = outcome({**good, name: data})
            assert found.items() <= truth.items()
    store = MemoryStore()
    writer = PackWriter(store, "s", "w")
    writer.add(Record(key(0), bomb, "tree/1"))
    writer.add(Record(key(1), bomb, "pickle"))
    for row, payload in read(store, writer.close()).items():
        assert payload == bomb
        with pytest.raises(PayloadError):
            codecs.decode(row.codec, bomb)
    assert not (tmp_path / "ran").exists()


def test_every_bit_of_a_record_matters() -> None:
    store = MemoryStore()
    rows = keep(store, "s", [Record(key(0), b"ten histograms", "bytes", (Discovered("file", "a", "b"),))])
    blob = store.blobs[rows[0].pack]
    for position in range(8 * rows[0].length):
        data = bytearray(blob)
        data[position // 8] ^= 1 << position % 8
        found = read(MemoryStore({rows[0].pack: bytes(data)}), rows)
        assert isinstance(found[rows[0]], CorruptRecordError), f"bit {position} was not missed"


RAN: list[str] = []


def _trap(name: str) -> Any:
    def run(*_: Any, **__: Any) -> Any:
        RAN.append(name)
        raise AssertionError(f"{name} has run")

    return run


class Trapped:
    """A class that can be kept; nothing of it may run while a payload is read."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __add__(self, other: Any) -> Any:
        return self

    __call__ = __iter__ = __len__ = __setattr__ = __delattr__ = __getattr__ = __set_name__ = _trap("a method")
    trap = property(_trap("a getter"), _trap("a setter"))


class Unkept:
    """A class that no payload may name: it would have to be run."""

    __new__ = __reduce__ = __del__ = _trap("what cannot be kept")


def trap_function() -> Any:
    return _trap("a function")()


NAMES = [
    *("os", "builtins", "subprocess", "test_corruption", "object", "enum", "namedtuple", "pickle", "numpy"),
    *("system", "eval", "Popen", "Trapped", "Unkept", "Trapped.trap", "trap_function", "__class__", "__dict__"),
    *(
        "__reduce__",
        "__init__",
        "default_factory",
        "trap",
        "function",
        "closure",
        "partial",
        "class",
        "value",
        "factory",
    ),
    *("os:system:", "test_corruption:trap_function:", "collections:defaultdict", "coffea:value", "pandas:frame"),
]


@pytest.mark.parametrize("seed", range(300))
def test_a_forged_tree_runs_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "test_corruption", sys.modules[__name__])
    monkeypatch.setattr(Trapped, "__module__", "test_corruption")
    monkeypatch.setattr(Unkept, "__module__", "test_corruption")
    codecs.offer(Trapped)
    value = {
        "object": Trapped(a=1, b=[2.5, "c"]),
        "zeros": defaultdict(partial(defaultdict, list), a={"x": 1}),
        "class": defaultdict(Trapped),
        "frame": pd.DataFrame({"a": [1, 2], "t": ["x", None]}),
        "when": dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
    }
    payload = codecs.encode(value)
    size = int.from_bytes(payload.data[:8], "little")
    tree, sizes = json.loads(payload.data[8 : 8 + size])
    buffers = payload.data[8 + size + -size % 8 :]
    rng = random.Random(seed)
    for _ in range(rng.choice([1, 1, 2, 5])):
        _forge_node(rng, tree)
    head = json.dumps([tree, sizes]).encode()
    RAN.clear()
    try:
        found = codecs.decode(payload.codec, len(head).to_bytes(8, "little") + head + bytes(-len(head) % 8) + buffers)
    except PayloadError:
        pass
    else:
        del found
    assert RAN == []


def _forge_node(rng: random.Random, tree: Any) -> None:
    """Replace, double, drop or move a node anywhere in a tree."""
    lists = [tree]
    for node in lists:
        lists += [child for child in node if isinstance(child, list)]
    node = rng.choice([n for n in lists if n])
    place = rng.randrange(len(node))
    change = rng.random()
    if change < 0.6:
        node[place] = rng.choice([*NAMES, *NAMES, None, 0, -1, 10**9, [], ["list"], ["dict", "a", 1]])
    elif change < 0.75:
        node.insert(place, node[place])
    elif change < 0.9:
        del node[place]
    else:
        # A copy of another part; of one that contains this place too.
        node[place] = json.loads(json.dumps(rng.choice(lists)))
