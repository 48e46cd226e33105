"""What the data lake costs: resolving many files against Rucio's bare answer, from a snapshot, and reading by lfn."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pairs import Line, Spent, Stopwatch, cpu_ratios, paired, ratios, seconds, take_turns

TESTS = Path(__file__).parent.parent / "tests"
FILES, DATASETS, ROUNDS, EVENTS = 10_000, 10, 2, 200_000
TARGET, SNAPSHOT_S, READ_TARGET, KEEP_TARGET = 1.1, 0.2, 1.03, 2.0
_PACKS, _PACK_BYTES = 50, 100_000
_AT_ONCE = 200
"""SQLite takes no more files in one call."""

_OFFLINE = """
import json, sys, time
from coffea_dirac import resolve
started = time.perf_counter(), time.process_time()
resolve("mc:all", catalog=sys.argv[1])
print(json.dumps([time.perf_counter() - started[0], time.process_time() - started[1]]))
"""


def lines(*, files: int = FILES, datasets: int = DATASETS, rounds: int = ROUNDS, events: int = EVENTS) -> list[Line]:
    """Measure and return the table's lines; none where the servers cannot be started."""
    sys.path.insert(0, str(TESTS))
    from servers import why_missing

    if why_missing("rucio") or why_missing("xrootd"):
        return []
    from coffea_dirac.grid.certificates import make_pki

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        keys = make_pki(folder / "pki")
        found = _reading(folder, events, rounds) + _keeping(folder, keys, rounds)
        return found + _resolving(folder, keys, files, datasets, rounds)


def _resolving(folder: Path, keys: Any, files: int, datasets: int, rounds: int) -> list[Line]:
    from coffea_dirac import open_catalog, resolve
    from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer

    login = {"account": "jdoe", "auth_type": "userpass", "credentials": {"username": "jdoe", "password": PASSWORD}}
    server = RucioServer(folder / "rucio", keys, with_memcached=True)
    server.start()
    try:
        dids = _fill(server, files, datasets)
        catalog: Any = open_catalog(server.url, ca_cert=str(keys.ca), **login)
        found: list[Any] = []

        def ours() -> Spent:
            watch = Stopwatch()
            found.append(resolve("mc:all", catalog=catalog))
            return watch.spent()

        def bare() -> Spent:
            watch = Stopwatch()
            for did in dids:
                for _ in catalog._listed([did]):
                    pass
            return watch.spent()

        spent = take_turns({"resolve": ours, "bare": bare}, rounds=rounds)
        before = server.n_requests()
        ours()
        n_requests = server.n_requests() - before
    finally:
        server.stop()
    if len(found[-1]["mc:all"]["files"]) != files:
        raise RuntimeError(f"{len(found[-1]['mc:all']['files'])} of {files} files were found")
    found[-1].listing.save(folder / "snapshot.json")
    # As sessions do it: in a new process, without what was found before.
    command = [sys.executable, "-c", _OFFLINE, str(folder / "snapshot.json")]
    printed = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=300) for _ in range(7)]
    offline = [Spent(*json.loads(one.stdout)) for one in printed]
    snapshot_s = sorted(one.wall_s for one in offline)[3]
    against, cpu = ratios(spent["resolve"], spent["bare"]), cpu_ratios(spent["resolve"], spent["bare"])
    return [
        Line(
            f"resolving a container of {files:,} files in {datasets} datasets, 2 replicas each, {n_requests} requests",
            seconds(spent["resolve"]),
            f"{seconds(spent['bare'])} list_replicas, {datasets} requests",
            f"ratio {against}, of CPU (with the server's) {cpu}; {rounds} rounds",
            f"at most {TARGET}",
            against.median <= TARGET,
        ),
        Line(
            f"the same {files:,} files from a snapshot",
            seconds(offline),
            "-",
            "7 new processes",
            f"under {SNAPSHOT_S} s",
            snapshot_s < SNAPSHOT_S,
        ),
    ]


def _watched(step: Callable[[], object]) -> Spent:
    watch = Stopwatch()
    step()
    return watch.spent()


def _fill(server: Any, files: int, datasets: int) -> list[dict[str, str]]:
    """Register a container, and return its datasets."""
    places = {"SITE_A": "root://localhost:1094//store", "SITE_B": "root://localhost:1095//store"}
    for rse, place in places.items():
        server.add_rse(rse, place, site=rse.removesuffix("_DISK"))
    client, each = server.client(), files // datasets
    client.add_scope("root", "mc")
    client.add_container("mc", "all")
    dids = []
    for number in range(datasets):
        dids.append({"scope": "mc", "name": f"part{number}"})
        client.add_dataset("mc", f"part{number}")
        names = [f"nano/part{number}/file_{i:06}.root" for i in range(each)]
        for at in range(0, each, _AT_ONCE):
            facts = [
                {"scope": "mc", "name": n, "bytes": 10**9, "adler32": "0badcafe"} for n in names[at : at + _AT_ONCE]
            ]
            for rse, place in places.items():
                client.add_replicas(rse, [{**file, "pfn": f"{place}/{file['name']}"} for file in facts])
            client.attach_dids("mc", f"part{number}", [{"scope": "mc", "name": file["name"]} for file in facts])
    client.attach_dids("mc", "all", dids)
    return dids


def _reading(folder: Path, events: int, rounds: int) -> list[Line]:
    import uproot
    from scenario import write_nano

    from coffea_dirac import resolve
    from coffea_dirac.grid.storage import XRootDServer

    server = XRootDServer(folder / "site")
    server.start()
    try:
        path = write_nano(server.data / "nano.root", events=events)
        path.chmod(0o644)
        pfn = f"{server.root}/nano.root"
        facts = {"size_bytes": path.stat().st_size, "replicas": {"SITE": pfn}}
        resolve("mc:t", catalog={"mc:t": {"mc:nano.root": facts}})

        def reading(name: str) -> Spent:
            def read() -> None:
                with uproot.open({name: "Events"}) as tree:
                    tree.arrays()

            # One file is soon read.
            return _watched(lambda: [read() for _ in range(10)])

        measures = {"lfn": lambda: reading("lfn://mc:nano.root"), "pfn": lambda: reading(pfn)}
        spent = take_turns(measures, rounds=5 * rounds)
    finally:
        server.stop()
    what = f"opening a file of {events:,} events and reading it by its logical name over root://, 10 times"
    return [paired(what, spent["lfn"], spent["pfn"], "uproot on the URL of the replica", READ_TARGET)]


def _keeping(folder: Path, keys: Any, rounds: int) -> list[Line]:
    """Measure writing packs by https with a token against requests of one connection that know nothing else."""
    import ssl

    import urllib3

    from coffea_dirac import open_store
    from coffea_dirac.grid.storage import XRootDServer

    server, names = XRootDServer(folder / "with-tokens", keys), itertools.count()
    data, token = secrets.token_bytes(_PACK_BYTES), keys.token()
    os.environ |= {"BEARER_TOKEN": token, "X509_CERT_DIR": str(keys.capath)}
    server.start()
    try:
        store = open_store(f"{server.http}/stages")
        pool = urllib3.PoolManager(ssl_context=ssl.create_default_context(cafile=str(keys.ca)))

        def bare(name: int) -> None:
            url, headers = f"{server.http}/{name}", {"Authorization": f"Bearer {token}"}
            if pool.request("PUT", url, body=data, headers=headers).status >= 300:
                raise RuntimeError("the server does not take a file")

        def each(step: Callable[[int], None]) -> Spent:
            return _watched(lambda: [step(next(names)) for _ in range(_PACKS)])

        measures = {
            "ours": lambda: each(lambda name: store.create(f"v1/s/x/p/{name}.pack", data)),
            "bare": lambda: each(bare),
        }
        spent = take_turns(measures, rounds=5 * rounds)
    finally:
        server.stop()
    what = f"writing {_PACKS} packs of {_PACK_BYTES // 1000} kB by https with a token"
    return [paired(what, spent["ours"], spent["bare"], "bare PUT", KEEP_TARGET)]
