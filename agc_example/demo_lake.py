"""The data lake of ``make demo-grid``: a storage at each site and a Rucio server that knows what lies there.

The servers are those of the tests, so this runs from a checkout only.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"


def why_not() -> str:
    """Return why there can be no data lake here, nothing if there can."""
    sys.path.insert(0, str(TESTS))
    servers = import_module("servers")
    return " ".join(filter(None, (servers.why_missing("rucio"), servers.why_missing("xrootd"))))


@contextmanager
def lake(fileset: Mapping[str, Any], sites: Sequence[str]) -> Iterator[Any]:
    """Yield the fileset as names of Rucio datasets, whose files lie at all of the sites; the servers then end."""
    from coffea_dirac import open_catalog, resolve

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coffea-dirac-lake-")))
        # The storages run as somebody else.
        folder.chmod(0o755)
        keys = import_module("pki").make_pki(folder / "pki")
        storages = {site: import_module("xrootd_server").XRootDServer(folder / site) for site in sites}
        servers = import_module("rucio_server")
        rucio = servers.RucioServer(folder / "rucio", keys)
        for server in (*storages.values(), rucio):
            stack.callback(server.stop)
            server.start()
        files = {name: {Path(f).name: Path(f).read_bytes() for f in one["files"]} for name, one in fileset.items()}
        places = {}
        for site, storage in storages.items():
            places[rse_of(site)] = storage.root
            rucio.add_rse(rse_of(site), storage.root, site=site)
            for name, data in (pair for some in files.values() for pair in some.items()):
                (storage.data / name).write_bytes(data)
                (storage.data / name).chmod(0o644)
        rucio.fill(places, files)
        login: dict[str, Any] = {
            "account": "jdoe",
            "auth_type": "userpass",
            "credentials": {"username": "jdoe", "password": servers.PASSWORD},
        }
        catalog = open_catalog(rucio.url, ca_cert=str(keys.ca), **login)
        yield resolve({name: {**one, "files": f"mc:{name}"} for name, one in fileset.items()}, catalog=catalog)


def rse_of(site: str) -> str:
    """Return the name of the storage at a site.

    Examples
    --------
    >>> rse_of("LCG.Box-A.uk")
    'BOX-A_DISK'
    """
    return f"{site.split('.')[1].upper()}_DISK"


def replicas_read(cache: str) -> dict[str, dict[str, int]]:
    """Return how many work items of a cache have read each storage, by the site where they were processed."""
    from coffea_dirac import open_store, packs

    index = packs.Index(open_store(cache))
    index.refresh()
    found: dict[str, Counter[str]] = {}
    for row in index:
        for rse in row.info.get("rses", ()):
            found.setdefault(str(row.info.get("site", "")), Counter())[str(rse)] += 1
    return {site: dict(sorted(counts.items())) for site, counts in sorted(found.items())}
