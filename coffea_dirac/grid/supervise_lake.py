"""The one process of a data lake in a box that holds the others: storages and a Rucio server.  Run by its path.

``python supervise_lake.py DIRECTORY OPTIONS``: writes ``DIRECTORY/lake.json`` once datasets can be read, and ends all
on SIGTERM or when the process that it shall end with has ended.  If it is killed, the kernel closes a pipe, and whoever
reads that ends all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":  # last in the path, so that it shadows nothing
    sys.path.append(str(Path(__file__).parent.parent.parent))

from coffea_dirac.grid.certificates import DAYS, make_pki
from coffea_dirac.grid.ending import has_ended
from coffea_dirac.grid.lake import TOKENS_RSE
from coffea_dirac.grid.rucio_server import PASSWORD, RucioServer
from coffea_dirac.grid.storage import XRootDServer

LIFELINE = Path(__file__).parent.parent / "dirac" / "lifeline.py"
ACCOUNT = "jdoe"
IDLE_S = 0.5


class Supervisor:
    """Storages and a Rucio server.

    Parameters
    ----------
    directory : Path
        Where it says what it has.
    options : dict
        ``place``: its folder; ``storages``: RSE -> site; ``datasets``: did -> paths; ``end_with``: a process id.
    """

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self._directory, self._place, self._options = directory, Path(options["place"]), options
        os.environ["XDG_CACHE_HOME"] = str(self._place / "home")
        self._keys = make_pki(self._place / "pki")
        self._lifeline = self._start_lifeline()
        group = self._lifeline.pid
        names = dict(options["storages"])
        self._storages = {rse: XRootDServer(self._place / rse, group=group) for rse in names}
        self._storages[TOKENS_RSE] = XRootDServer(self._place / TOKENS_RSE, self._keys, group=group)
        (self._place / "rucio").mkdir(mode=0o700)
        self._rucio = RucioServer(self._place / "rucio", self._keys, with_memcached=True, group=group)

    def run(self) -> None:
        """Run until told to end."""
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, _end)
        try:
            for server in self._storages.values():
                server.start()
            self._rucio.start()
            self._fill()
            self._tell()
            while not has_ended(self._options.get("end_with")):
                time.sleep(IDLE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._lifeline.pid, signal.SIGKILL)
            (self._directory / "lake.json").unlink(missing_ok=True)
            shutil.rmtree(self._place, ignore_errors=True)

    def _start_lifeline(self) -> subprocess.Popen[bytes]:
        """Start what leads the group of all servers, and ends it when this process ends, however it ends."""
        wait = "import signal\nwhile True: signal.pause()"
        command = [sys.executable, "-P", str(LIFELINE), str(self._place / "lifeline"), "-c", wait]
        return subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    def _fill(self) -> None:
        places = {rse: self._url_of(rse) for rse in self._storages}
        for rse, place in places.items():
            site = self._options["storages"].get(rse)
            self._rucio.add_rse(rse, place, **({"site": site} if site else {}))
        for did, paths in self._options["datasets"].items():
            scope, _, name = did.partition(":")
            files = {Path(path).name: Path(path).read_bytes() for path in paths}
            for server in self._storages.values():
                for file, data in files.items():
                    server.add(file, data)
            self._rucio.fill(places, {name: files}, scope=scope)

    def _url_of(self, rse: str) -> str:
        server = self._storages[rse]
        return server.http.replace("https", "davs", 1) if rse == TOKENS_RSE else server.root

    def _tell(self) -> None:
        storages = {
            rse: {"site": self._options["storages"].get(rse, ""), "url": self._url_of(rse), "token": rse == TOKENS_RSE}
            for rse in self._storages
        }
        life_s = DAYS * 86_400
        environment = {
            "RUCIO_CONFIG": str(self._write("rucio.cfg", self._client_settings())),
            "BEARER_TOKEN_FILE": str(self._write("token", self._keys.token(exp=int(time.time()) + life_s))),
            "X509_CERT_DIR": str(self._keys.capath),
            "SSL_CERT_FILE": str(self._write("trusted.pem", self._trusted())),
        }
        processes = {rse: server.pid for rse, server in self._storages.items()}
        found = {
            "rucio": self._rucio.url,
            "rucio_account": ACCOUNT,
            "storages": storages,
            "datasets": list(self._options["datasets"]),
            "environment": environment,
            "pids": {"lake": os.getpid(), "lifeline": self._lifeline.pid, **processes, **self._rucio.pids},
        }
        partial = self._directory / "lake.json.partial"
        partial.write_text(json.dumps(found, indent=1))
        partial.rename(self._directory / "lake.json")

    def _client_settings(self) -> str:
        settings = {
            "rucio_host": self._rucio.url,
            "auth_host": self._rucio.url,
            "ca_cert": self._keys.ca,
            "account": ACCOUNT,
            "auth_type": "userpass",
            "username": ACCOUNT,
            "password": PASSWORD,
        }
        return "[client]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _trusted(self) -> str:
        """Return whom to trust: whom others trust, and the lake's own authority."""
        import certifi

        return Path(certifi.where()).read_text() + self._keys.ca.read_text()

    def _write(self, name: str, text: str) -> Path:
        path = self._directory / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return path


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1]).resolve(), json.loads(sys.argv[2])).run()
