"""A Rucio server on the loopback interface, in an environment of its own, with TLS.

One may log in by password, certificate, proxy and token.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from coffea_dirac.catalogs import open_catalog
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.grid.environments import ServerEnvironment
from coffea_dirac.grid.issuer import start_issuer
from coffea_dirac.grid.rucio_settings import ALEMBIC, APPLICATION, BOOTSTRAP, GUNICORN, SERVER
from coffea_dirac.grid.server import free_port

if TYPE_CHECKING:
    from coffea_dirac.grid.certificates import Pki

ENVIRONMENT = ServerEnvironment(
    "a Rucio server", "COFFEA_DIRAC_RUCIO_PYTHON", ".venv-rucio", "requirements/rucio-server.lock"
)
PASSWORD = "secret-of-everybody"  # noqa: S105 - of a server that nobody else can reach
SUBJECT = "jdoe-sub"
START_S = 120.0
AT_ONCE = 200
"""SQLite takes no more files in one call."""


def server_python() -> Path:
    """Return the interpreter with a Rucio server's packages.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    found = ENVIRONMENT.python
    if found.with_name("gunicorn").exists():
        return found
    how = (
        f"  scripts/set-up {ENVIRONMENT.folder} {ENVIRONMENT.lock}"
        if ENVIRONMENT.is_in_checkout
        else "  python3 -m venv rucio && rucio/bin/pip install 'rucio==41.5.*' 'gunicorn==27.*' pymemcache\n"
        f"  export {ENVIRONMENT.variable}=$PWD/rucio/bin/python"
    )
    raise ConfigurationError(f"a data lake in a box needs an environment with a Rucio server:\n{how}")


class RucioServer:
    """A server with the accounts ``root`` and ``jdoe``; its issuer of tokens is a thread of this process.

    Parameters
    ----------
    folder : Path
        Its configuration, database and logs.
    keys : Pki
        Certificates, and the key that signs tokens.
    with_memcached : bool
        Without memcached a server asks its database for each replica; with it, it does not see a change of an RSE at
        once.
    group : int, optional
        The process group to which it shall belong.
    """

    def __init__(self, folder: Path, keys: Pki, *, with_memcached: bool = False, group: int | None = None) -> None:
        self.folder, self.keys, self.port, self._group = folder, keys, free_port(), group
        self.url = f"https://localhost:{self.port}"
        self._cache_port = free_port() if with_memcached and shutil.which("memcached") else 1
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._issuer = start_issuer(keys)
        self.issuer_url = f"https://localhost:{self._issuer.server_address[1]}"

    @property
    def version(self) -> str:
        """Which server it is."""
        with urllib.request.urlopen(f"{self.url}/ping", context=self._trust(), timeout=10) as answer:  # noqa: S310
            return f"rucio {json.load(answer)['version']}"

    @property
    def pids(self) -> Mapping[str, int]:
        """Ids of the processes, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def requests(self) -> list[str]:
        """Return method and path of each request so far."""
        log = self.folder / "requests.log"
        return log.read_text().splitlines() if log.exists() else []

    def n_requests(self) -> int:
        """Return how many requests there were so far."""
        return len(self.requests())

    def token(self, **changes: object) -> str:
        """Return a token that the server takes for jdoe's; `changes` replace claims."""
        claims = {"iss": self.issuer_url, "sub": SUBJECT, "aud": "rucio", **changes}
        return self.keys.token("openid profile", **claims)

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.keys.ca))

    def start(self, deadline_s: float = START_S) -> RucioServer:
        """Start it and return once it answers."""
        python = server_python()
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = self._write(python)
        begin = [str(python), "-c", BOOTSTRAP, self.issuer_url, PASSWORD, SUBJECT]
        done = subprocess.run(begin, env=environment, capture_output=True, text=True, timeout=deadline_s, check=False)
        if done.returncode:
            raise RuntimeError(f"Rucio's database cannot be made:\n{done.stderr[-3000:]}")
        if self._cache_port != 1:
            options = ["-u", "nobody", "-l", "127.0.0.1", "-p", str(self._cache_port), "-m", "64"]
            self._run("memcached", ["memcached", *options], {"PATH": os.environ["PATH"]})
        settings = str(self.folder / "settings.py")
        command = [str(python.with_name("gunicorn")), "-c", settings, "application:application"]
        process = self._run("rucio", command, environment)
        end = time.monotonic() + deadline_s
        while True:
            try:
                _ = self.version
                return self
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    logs = [path.read_text()[-2000:] for path in self.folder.glob("*.log")]
                    raise RuntimeError("Rucio does not start:\n" + "\n".join(logs)) from None
                time.sleep(0.05)

    def _write(self, python: Path) -> dict[str, str]:
        """Write what the server reads, and return its environment."""
        find = "import importlib.util as u; print(u.find_spec('rucio').submodule_search_locations[0])"
        package = subprocess.run([python, "-c", find], capture_output=True, text=True, timeout=60, check=True)
        facts = {
            "folder": self.folder,
            "database": f"sqlite:///{self.folder}/rucio.db?timeout=30",
            "migrations": f"{package.stdout.strip()}/db/sqla/migrate_repo/",
            "password": PASSWORD,
            "port": self.port,
            "cache_port": self._cache_port,
            "cert": self.keys.host_cert,
            "key": self.keys.host_key,
            "ca": self.keys.ca,
        }
        for name, text in {"alembic.ini": ALEMBIC, "rucio.cfg": SERVER, "settings.py": GUNICORN}.items():
            (self.folder / name).write_text(text.format_map(facts))
        (self.folder / "application.py").write_text(APPLICATION)
        (self.folder / "issuers.json").write_text(json.dumps({"test": self._client_of_issuer()}))
        return {
            "PATH": os.environ["PATH"],
            "RUCIO_CONFIG": str(self.folder / "rucio.cfg"),
            "RUCIO_HOME": str(self.folder),
            "PYTHONPATH": str(self.folder),
            "PYTHONWARNINGS": "ignore",
            "REQUESTS_CA_BUNDLE": str(self.keys.ca),
            "SSL_CERT_FILE": str(self.keys.ca),
        }

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0 if self._group is None else self._group,
            )
        self._processes[name] = process
        return process

    def client(self, account: str = "root") -> Any:
        """Return Rucio's own client, logged in by password."""
        login = {"auth_type": "userpass", "credentials": {"username": account, "password": PASSWORD}}
        catalog: Any = open_catalog(self.url, account=account, ca_cert=str(self.keys.ca), **login)  # type: ignore[arg-type]
        return catalog._client()

    def add_rse(self, rse: str, place: str, **attributes: str) -> None:
        """Add a storage by the URL of its folder; files lie there by their names."""
        parts = urlsplit(place)
        client, rank = self.client(), {"read": 1, "write": 1, "delete": 1}
        client.add_rse(rse, deterministic=False, volatile=False, rse_type="DISK")
        for name, value in attributes.items():
            client.add_rse_attribute(rse, name, value)
        protocol = {
            "scheme": parts.scheme,
            "hostname": parts.hostname,
            "port": parts.port,
            "prefix": f"//{parts.path.strip('/')}/",
            "impl": "rucio.rse.protocols.xrootd.Default",
            "extended_attributes": None,
            "domains": {"lan": rank, "wan": {**rank, "third_party_copy_read": 1, "third_party_copy_write": 1}},
        }
        client.add_protocol(rse, protocol)
        client.set_local_account_limit("root", rse, -1)
        client.set_local_account_limit("jdoe", rse, -1)

    def fill(
        self, places: Mapping[str, str], datasets: Mapping[str, Mapping[str, bytes]], *, scope: str = "mc"
    ) -> None:
        """Register the files of datasets of a scope as lying below `places`, by RSE."""
        client = self.client()
        if scope not in client.list_scopes():
            client.add_scope("root", scope)
        for name, files in datasets.items():
            client.add_dataset(scope, name)
            some = list(files.items())
            for part in (some[at : at + AT_ONCE] for at in range(0, len(some), AT_ONCE)):
                for rse, place in places.items():
                    client.add_replicas(rse, [_facts(scope, file, data, place) for file, data in part])
                client.attach_dids(scope, name, [{"scope": scope, "name": file} for file, _ in part])

    def stop(self) -> None:
        """End it, at once: on SIGTERM it would wait for clients that keep their connection."""
        self._issuer.shutdown()
        self._issuer.server_close()
        for process in self._processes.values():
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait(START_S)
        self._processes.clear()

    def _client_of_issuer(self) -> dict[str, object]:
        known = {"client_id": "rucio", "client_secret": "s"}
        # Without "SCIM" Rucio drops all issuers, and does not say so.
        scim = {**known, "grant_type": "client_credentials"}
        return {**known, "issuer": self.issuer_url, "redirect_uris": [f"{self.url}/auth/oidc_code"], "SCIM": scim}


def _facts(scope: str, name: str, data: bytes, place: str) -> dict[str, Any]:
    checksum = f"{zlib.adler32(data):08x}"
    return {"scope": scope, "name": name, "bytes": len(data), "adler32": checksum, "pfn": f"{place}/{name}"}
