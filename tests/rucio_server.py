"""A real Rucio server on loopback, in an environment of its own, with TLS: userpass, certificates, proxies and tokens."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from servers import ROOT
from xrootd_server import free_port

if TYPE_CHECKING:
    from pki import Pki

PYTHON = ROOT / ".venv-rucio" / "bin" / "python"
PASSWORD = "secret-of-everybody"
SUBJECT = "jdoe-sub"

# What Apache's mod_ssl would tell the application: the subject of the client's certificate.
_APPLICATION = """
from rucio.web.rest.main import application as rucio

import os

LOG = os.open("requests.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
SHORT = {"commonName": "CN", "domainComponent": "DC"}

def application(environment, start):
    # Before the answer: gunicorn's own log has a request some time after it.
    os.write(LOG, f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}\\n".encode())
    environment.pop("SSL_CLIENT_S_DN", None)
    subject = (environment["gunicorn.socket"].getpeercert() or {}).get("subject", ())
    if subject:
        environment["SSL_CLIENT_VERIFY"] = "SUCCESS"
        parts = (f"{SHORT.get(name, name)}={value}" for part in reversed(subject) for name, value in part)
        environment["SSL_CLIENT_S_DN"] = ",".join(parts)
    return rucio(environment, start)
"""
_GUNICORN = """
import ssl
bind = "127.0.0.1:{port}"
workers, threads, worker_class = 1, 8, "gthread"
control_socket_disable, graceful_timeout = True, 1
errorlog = "{folder}/error.log"
certfile, keyfile, ca_certs, cert_reqs = "{cert}", "{key}", "{ca}", ssl.CERT_OPTIONAL
def ssl_context(config, default):
    made = default()
    made.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    return made
"""
_BOOTSTRAP = """
import sys
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database(); create_base_vo(); create_root_account()
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, identity, scope
from rucio.db.sqla.constants import AccountType, IdentityType
from rucio.db.sqla.session import get_session
session = get_session()()
session.begin()
jdoe = InternalAccount("jdoe")
account.add_account(jdoe, AccountType.USER, "jdoe@test.org", session=session)
for name, kind, password in (
    ("jdoe", IdentityType.USERPASS, sys.argv[2]),
    ("CN=jdoe,DC=test,DC=org", IdentityType.X509, None),
    (f"SUB={sys.argv[3]}, ISS={sys.argv[1]}", IdentityType.OIDC, None),
):
    identity.add_identity(name, kind, "jdoe@test.org", password=password, session=session)
    identity.add_account_identity(name, kind, jdoe, "jdoe@test.org", default=True, session=session)
scope.add_scope(InternalScope("user.jdoe"), jdoe, session=session)
session.commit()
"""
_ALEMBIC = """[alembic]
script_location = {migrations}
sqlalchemy.url = {database}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARN
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
[formatter_generic]
format = %(message)s
"""
_SERVER = """[common]
loglevel = INFO
logdir = {folder}
[database]
default = {database}
[alembic]
cfg = {folder}/alembic.ini
[bootstrap]
userpass_identity = root
userpass_pwd = {password}
userpass_email = root@test.org
x509_identity = CN=localhost,DC=test,DC=org
x509_email = root@test.org
[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash
[core]
geoip_ignore_error = True
[monitor]
enable_metrics = False
[api]
endpoints_add = traces
[trace]
tracedir = {folder}
brokers = 127.0.0.1
port = 1
topic = /topic/rucio.tracer
username = x
password = x
[cache]
url = 127.0.0.1:{cache_port}
[oidc]
idpsecrets = {folder}/issuers.json
admin_issuer = test
expected_audience = rucio
expected_scope = openid profile
"""


class RucioServer:
    """A server with the accounts ``root`` and ``jdoe``; its issuer of tokens is a thread of this process."""

    def __init__(self, folder: Path, keys: Pki, *, with_memcached: bool = False) -> None:
        # A server without it asks its database for each replica; one with it does not see a change of an RSE at once.
        self._cache_port = free_port() if with_memcached and shutil.which("memcached") else 1
        self._cache: subprocess.Popen[bytes] | None = None
        self.folder, self.keys, self.port = folder, keys, free_port()
        self.url = f"https://localhost:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._issuer = _issuer(keys)
        self.issuer_url = f"https://localhost:{self._issuer.server_address[1]}"

    @property
    def version(self) -> str:
        with urllib.request.urlopen(f"{self.url}/ping", context=self._trust(), timeout=10) as answer:
            return f"rucio {json.load(answer)['version']}"

    def requests(self) -> list[str]:
        """Return method and path of each request so far."""
        log = self.folder / "requests.log"
        return log.read_text().splitlines() if log.exists() else []

    def n_requests(self) -> int:
        return len(self.requests())

    def token(self, **changes: object) -> str:
        """Return a token that the server takes for jdoe's; `changes` replace claims."""
        claims = {"iss": self.issuer_url, "sub": SUBJECT, "aud": "rucio", **changes}
        return self.keys.token("openid profile", **claims)

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.keys.ca))

    def start(self, deadline_s: float = 120) -> RucioServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        find = "import importlib.util as u; print(u.find_spec('rucio').submodule_search_locations[0])"
        package = subprocess.run([PYTHON, "-c", find], capture_output=True, text=True, timeout=60, check=True)
        database = f"sqlite:///{self.folder}/rucio.db?timeout=30"
        facts = {"folder": self.folder, "database": database, "password": PASSWORD, "port": self.port}
        facts["cache_port"] = self._cache_port
        facts["migrations"] = f"{package.stdout.strip()}/db/sqla/migrate_repo/"
        facts |= {"cert": self.keys.host_cert, "key": self.keys.host_key, "ca": self.keys.ca}
        texts = {"alembic.ini": _ALEMBIC, "rucio.cfg": _SERVER, "settings.py": _GUNICORN}
        for name, text in texts.items():
            (self.folder / name).write_text(text.format_map(facts))
        (self.folder / "application.py").write_text(_APPLICATION)
        (self.folder / "issuers.json").write_text(json.dumps({"test": self._client_of_issuer()}))
        environment = {
            "PATH": os.environ["PATH"],
            "RUCIO_CONFIG": str(self.folder / "rucio.cfg"),
            "RUCIO_HOME": str(self.folder),
            "PYTHONPATH": str(self.folder),
            "PYTHONWARNINGS": "ignore",
            "REQUESTS_CA_BUNDLE": str(self.keys.ca),
            "SSL_CERT_FILE": str(self.keys.ca),
        }
        begin = [PYTHON, "-c", _BOOTSTRAP, self.issuer_url, PASSWORD, SUBJECT]
        done = subprocess.run(begin, env=environment, capture_output=True, text=True, timeout=deadline_s, check=False)
        if done.returncode:
            raise RuntimeError(f"Rucio's database cannot be made:\n{done.stderr[-3000:]}")
        command = [PYTHON.with_name("gunicorn"), "-c", self.folder / "settings.py", "application:application"]
        if self._cache_port != 1:
            options = ["-u", "nobody", "-l", "127.0.0.1", "-p", str(self._cache_port), "-m", "64"]
            self._cache = subprocess.Popen(["memcached", *options], start_new_session=True)
        with (self.folder / "out.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + deadline_s
        while True:
            try:
                _ = self.version
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    logs = [path.read_text()[-2000:] for path in self.folder.glob("*.log")]
                    raise RuntimeError("Rucio does not start:\n" + "\n".join(logs)) from None
                time.sleep(0.05)

    def client(self, account: str = "root") -> Any:
        """Return Rucio's own client, logged in by password."""
        from coffea_dirac import open_catalog

        login = {"auth_type": "userpass", "credentials": {"username": account, "password": PASSWORD}}
        catalog: Any = open_catalog(self.url, account=account, ca_cert=str(self.keys.ca), **login)
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

    def fill(self, places: Mapping[str, str], datasets: Mapping[str, Mapping[str, bytes]]) -> None:
        """Register the files of datasets of the scope ``mc`` as lying below `places`, by RSE."""
        client = self.client()
        if "mc" not in client.list_scopes():
            client.add_scope("root", "mc")
        for name, files in datasets.items():
            for rse, place in places.items():
                client.add_replicas(rse, [_facts(file, data, place) for file, data in files.items()])
            client.add_dataset("mc", name)
            client.attach_dids("mc", name, [{"scope": "mc", "name": file} for file in files])

    def stop(self) -> None:
        self._issuer.shutdown()
        self._issuer.server_close()
        if self._cache is not None:
            self._cache.kill()
            self._cache.wait(30)
            self._cache = None
        if self._process is not None:
            # With its workers; on SIGTERM they would wait for clients that keep their connection.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def _client_of_issuer(self) -> dict[str, object]:
        known = {"client_id": "rucio", "client_secret": "s"}
        # Without "SCIM" Rucio drops all issuers, and does not say so.
        scim = {**known, "grant_type": "client_credentials"}
        return {**known, "issuer": self.issuer_url, "redirect_uris": [f"{self.url}/auth/oidc_code"], "SCIM": scim}


def _facts(name: str, data: bytes, place: str) -> dict[str, Any]:
    checksum = f"{zlib.adler32(data):08x}"
    return {"scope": "mc", "name": name, "bytes": len(data), "adler32": checksum, "pfn": f"{place}/{name}"}


def _issuer(keys: Pki) -> http.server.ThreadingHTTPServer:
    """Start an issuer of tokens: what it is, and its public keys."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = f"https://localhost:{self.server.server_address[1]}"
            ends = ("authorization", "token", "introspection", "userinfo")
            facts = {
                "issuer": url,
                "jwks_uri": f"{url}/jwks",
                **{f"{end}_endpoint": f"{url}/{end}" for end in ends},
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            body = json.dumps(keys.jwks if self.path == "/jwks" else facts).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.host_cert, keys.host_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
