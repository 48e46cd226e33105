"""Real XRootD servers from Debian's packages, on loopback: root:// and http(s)://, plain or with TLS and tokens."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pki import Pki

ISSUER = "https://issuer.test.example"
AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"
USER = "xrootd"
"""The account that Debian's package makes: the server refuses to run as the superuser."""
_REQUEST = re.compile(r"Xrootd_Protocol: [0-9a-f]{4} req=|XrdHttpReq request ended")


class XRootDServer:
    """One server.

    Parameters
    ----------
    folder : Path
        Its configuration, log and data; every folder above must be open to all.
    keys : Pki, optional
        With them: TLS is demanded, and a token of `ISSUER`.
    """

    def __init__(self, folder: Path, keys: Pki | None = None, port: int = 0) -> None:
        self.folder, self.keys = folder, keys
        self.port = port or free_port()
        self.data = folder / "data" / "store"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def root(self) -> str:
        return f"root://localhost:{self.port}//store"

    @property
    def http(self) -> str:
        return f"{'https' if self.keys else 'http'}://localhost:{self.port}/store"

    @property
    def log(self) -> Path:
        return self.folder / "xrootd.log"

    @property
    def version(self) -> str:
        done = subprocess.run(["xrootd", "-v"], capture_output=True, text=True, timeout=60, check=True)
        return "xrootd " + (done.stdout + done.stderr).strip()

    def n_requests(self) -> int:
        """Return how many requests the server has logged since it was made."""
        return len(_REQUEST.findall(self.log.read_text(errors="replace")))

    def start(self, deadline_s: float = 30) -> XRootDServer:
        for name in ("data/store", "admin", "run"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "xrootd.cfg").write_text("\n".join(self._configuration()) + "\n")
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", USER, self.folder], check=True, timeout=60)
        command = ["xrootd", *(["-R", USER] if os.geteuid() == 0 else []), "-c", "xrootd.cfg", "-l", self.log]
        environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(self.folder / "run")}
        self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.DEVNULL)
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
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def signal(self, number: int) -> None:
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


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def prime_key_cache(folder: Path, jwks: object) -> None:
    """Give scitokens-cpp the keys of `ISSUER`, which it would otherwise ask for over the network."""
    folder.mkdir(parents=True, exist_ok=True)
    now = int(time.time())
    known = json.dumps({"jwks": jwks, "expires": now + 86400, "next_update": now + 80000})
    with sqlite3.connect(folder / "scitokens_cpp.sqllite") as database:
        database.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)")
        database.execute("INSERT INTO keycache VALUES (?, ?)", (ISSUER, known))
