"""A dataset of ten thousand files is resolved without a question for each, and says what has changed since."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lake import _fill
from coffea_dirac import open_catalog, resolve
from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer, server_python
from coffea_dirac.interfaces import LogicalFile

pytestmark = [pytest.mark.needs("rucio"), pytest.mark.long, pytest.mark.timeout(1200)]
FILES, DATASETS = 10_000, 10
# As Rucio's reaper does: nobody may do it over the interface.
DELETE = """
import sys
from rucio.common.types import InternalScope
from rucio.core.replica import delete_replicas
from rucio.core.rse import get_rse_id
from rucio.db.sqla.session import get_session
session = get_session()()
session.begin()
files = [{"scope": InternalScope("mc"), "name": sys.argv[2]}]
delete_replicas(rse_id=get_rse_id(sys.argv[1], session=session), files=files, session=session)
session.commit()
"""


def test_no_file_is_asked_for_by_itself_and_a_replica_that_goes_is_seen(
    open_folder: Path, keys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = RucioServer(open_folder / "many", keys, with_memcached=True)
    server.start()
    try:
        _fill(server, FILES, DATASETS)
        login: Any = {"auth_type": "userpass", "credentials": {"username": "jdoe", "password": PASSWORD}}
        catalog = open_catalog(server.url, account="jdoe", ca_cert=str(keys.ca), **login)
        catalog.locate(["mc:part0"])
        before = len(server.requests())
        first = resolve("mc:all", catalog=catalog)
        asked = server.requests()[before:]
        assert len(first["mc:all"]["files"]) == FILES
        # Of each dataset its replicas and its length; what the container is and has; sites of the two storages.
        assert len(asked) <= 2 * DATASETS + 4, asked
        assert not any("file_" in line for line in asked)
        gone, bad = "nano/part3/file_000007.root", "nano/part5/file_000009.root"
        server.client().declare_bad_file_replicas([{"scope": "mc", "name": bad, "rse": "SITE_B"}], "lost")
        settings = {"PATH": os.environ["PATH"], "RUCIO_CONFIG": str(server.folder / "rucio.cfg")}
        command = [str(server_python()), "-c", DELETE, "SITE_A", gone]
        subprocess.run(command, env=settings, check=True, timeout=120)
        second = resolve("mc:all", catalog=catalog)
        changed = first.listing.diff(second.listing)
        assert set(changed.other_replicas) == {f"mc:{gone}", f"mc:{bad}"}
        assert (changed.added, changed.removed, changed.other_content) == ((), (), ())
        by_lfn: dict[str, LogicalFile] = {file.lfn: file for file in second.listing.dids["mc:all"]}
        assert {replica.rse for replica in by_lfn[f"mc:{gone}"].replicas} == {"SITE_B"}
        assert {replica.rse for replica in by_lfn[f"mc:{bad}"].replicas} == {"SITE_A"}
    finally:
        server.stop()
