"""XRootD servers on the loopback interface: root:// and http(s)://, plain or with TLS and tokens."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from coffea_dirac.grid.server import free_port

if TYPE_CHECKING:
    from coffea_dirac.grid.certificates import Pki

ISSUER = "https://issuer.test.example"
AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"
USER = "xrootd"
"""The account that Debian's package makes: the server refuses to run as the superuser."""
START_S = 30.0
PLUGINS = ("libXrdHttp-5.so", "libXrdAccSciTokens-5.so")
PACKAGES = "xrootd-server xrootd-server-plugins xrootd-plugins xrootd-scitokens-plugins"
_REQUEST = re.compile(r"Xrootd_Protocol: [0-9a-f]{4} req=|XrdHttpReq request ended")


def why_no_server() -> str:
    """Return why no XRootD server can be started here and what to type, nothing if one can."""
    folders = [*Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")]
    if shutil.which("xrootd") and all(any((folder / name).exists() for folder in folders) for name in PLUGINS):
        return ""
    return f"there is no XRootD server with its plug-ins: on Debian and Ubuntu `sudo apt-get install {PACKAGES}`"


class XRootDServer:
    """One server, which says in its log what is asked of it.

    Parameters
    ----------
    folder : Path
        Its configuration, log and data; every folder above must be open to all.
    keys : Pki, optional
        With them: TLS is demanded, and a token of `ISSUER`.
    port : int
        Where it listens; 0 for any free port.
    group : int, optional
        The process group to which it shall belong.
    """

    def __init__(self, folder: Path, keys: Pki | None = None, port: int = 0, *, group: int | None = None) -> None:
        self.folder, self.keys, self._group = folder, keys, group
        self.port = port or free_port()
        self.data = folder / "data" / "store"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def root(self) -> str:
        """The URL of its folder by XRootD's own protocol."""
        return f"root://localhost:{self.port}//store"

    @property
    def http(self) -> str:
        """The URL of its folder by HTTP, or HTTPS."""
        return f"{'https' if self.keys else 'http'}://localhost:{self.port}/store"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "xrootd.log"

    @property
    def version(self) -> str:
        """Which server it is."""
        command = [shutil.which("xrootd") or "xrootd", "-v"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return "xrootd " + (done.stdout + done.stderr).strip()

    def n_requests(self) -> int:
        """Return how many requests the server has logged since it was made."""
        return len(_REQUEST.findall(self.log.read_text(errors="replace")))

    @property
    def pid(self) -> int:
        """The id of its process, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    def add(self, name: str, data: bytes) -> None:
        """Put a file into its folder, as if it had been written there."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)

    def start(self, deadline_s: float = START_S) -> XRootDServer:
        """Start it and return once it answers."""
        for name in ("data/store", "admin", "run"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "xrootd.cfg").write_text("\n".join(self._configuration()) + "\n")
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, USER, USER)
        as_user = ["-R", USER] if os.geteuid() == 0 else []
        command = ["xrootd", *as_user, "-c", "xrootd.cfg", "-l", str(self.log)]
        environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(self.folder / "run")}
        self._process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stderr=subprocess.DEVNULL, process_group=self._group
        )
        end = time.monotonic() + deadline_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    tail = self.log.read_text()[-3000:] if self.log.exists() else "no log"
                    raise RuntimeError(f"xrootd does not start:\n{tail}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)
            self._process = None

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _configuration(self) -> list[str]:
        here = self.folder
        lines = [
            f"xrd.port {self.port}",
            "xrd.network nodnr",
            f"all.adminpath {here}/admin",
            f"all.pidpath {here}/run",
            f"oss.localroot {here}/data",
            "all.export /store",
            "xrootd.chksum max 2 adler32",
            "xrootd.trace request",
            "http.trace request",
            f"xrd.protocol http:{self.port} libXrdHttp.so",
        ]
        if self.keys is None:
            return lines
        key, config = here / "hostkey.pem", here / "scitokens.cfg"
        shutil.copy(self.keys.host_key, key)
        key.chmod(0o400)
        config.write_text(
            f"[Global]\naudience = {AUDIENCE}\n"
            f"[Issuer test]\nissuer = {ISSUER}\nbase_path = /store\nmap_subject = False\n"
        )
        prime_key_cache(here / "run" / "scitokens", self.keys.jwks)
        return [
            *lines,
            f"xrd.tls {self.keys.host_cert} {key}",
            f"xrd.tlsca certfile {self.keys.ca}",
            "xrootd.tls all",
            "xrootd.seclib libXrdSec.so",
            "sec.protocol ztn",
            "sec.protbind * only ztn",
            "ofs.authorize 1",
            f"ofs.authlib libXrdAccSciTokens.so config={config}",
            "http.header2cgi Authorization authz",
        ]


def prime_key_cache(folder: Path, jwks: object) -> None:
    """Give scitokens-cpp the keys of `ISSUER`, which it would otherwise ask for over the network."""
    folder.mkdir(parents=True, exist_ok=True)
    now = int(time.time())
    known = json.dumps({"jwks": jwks, "expires": now + 86400, "next_update": now + 80000})
    with closing(sqlite3.connect(folder / "scitokens_cpp.sqllite")) as database, database:
        database.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)")
        database.execute("INSERT INTO keycache VALUES (?, ?)", (ISSUER, known))
