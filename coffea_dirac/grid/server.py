"""A DiracX server on the loopback interface: real routers, databases in files, sandboxes in a stand-in for S3.

Needs the packages of ``requirements/diracx.lock`` and git.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

VO = "box"
USER_GROUP, ADMIN_GROUP, PILOT_GROUP = f"{VO}_user", f"{VO}_admin", f"{VO}_pilot"
"""Those of the pilot group may submit no jobs."""
USERS = {
    "b824d4dc-1f9d-4ee8-8df5-c0ae55d46041": "alice",
    "c935e5ed-2b0e-5ff9-9eb6-d1bf66e57152": "bob",
    "e157070f-4d20-7111-90d8-f3d18807937f": "admin",
}
ALICE, BOB, ADMIN = USERS
DATABASES = ("Auth", "Job", "JobLogging", "PilotAgents", "ResourceStatus", "SandboxMetadata", "TaskQueue")
START_S = 180.0
LIFELINE = Path(__file__).parent.parent / "dirac" / "lifeline.py"


class Server:
    """A DiracX server and its store of sandboxes, as child processes that end with this one.

    Parameters
    ----------
    directory : Path
        Where its configuration, keys, databases and logs are; a server of before goes on there.
    access_minutes : int, optional
        Life of an access token; 20 by default.
    """

    def __init__(self, directory: Path, *, access_minutes: int | None = None) -> None:
        self.directory = directory
        self._api_key = secrets.token_bytes(32)
        self.url = f"http://127.0.0.1:{free_port()}"
        self._s3_port = free_port()
        self._access_minutes = access_minutes
        self._environment: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start both and return when they answer."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_configuration(self.directory / "cs")
        write_keys(self.directory / "jwks.json")
        self._environment = self._settings()
        self._run("s3", ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._s3_port)])
        self.start_api(wait=False)
        self._wait("s3", f"http://127.0.0.1:{self._s3_port}/")
        self._wait("api", f"{self.url}/api/health/ready")

    def start_api(self, *, wait: bool = True) -> None:
        """Start the DiracX server itself, also again."""
        host, port = self.url.removeprefix("http://").split(":")
        command = ["-m", "uvicorn", "--factory", "diracx.testing.routers:create_app", "--host", host, "--port", port]
        self._run("api", [*command, "--no-access-log"])
        if wait:
            self._wait("api", f"{self.url}/api/health/ready")

    def stop_api(self) -> None:
        """End the DiracX server itself; its databases stay."""
        end(self._processes.pop("api", None))

    def stop(self) -> None:
        """End both."""
        for name in list(self._processes):
            end(self._processes.pop(name))

    @property
    def pids(self) -> Mapping[str, int]:
        """Ids of the processes, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def _run(self, name: str, arguments: Sequence[str]) -> None:
        session = self.directory / "lifeline" / name
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-P", str(LIFELINE), str(session), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )

    def _wait(self, name: str, url: str) -> None:
        deadline = time.monotonic() + START_S
        while not answers(url):
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                log = (self.directory / f"{name}.log").read_text()[-3000:]
                raise RuntimeError(f"{name} of the grid in a box did not come up at {url}:\n{log}")
            time.sleep(0.05)

    def _settings(self) -> dict[str, str]:
        place, url = self.directory.resolve(), self.url
        s3 = {
            "endpoint_url": f"http://127.0.0.1:{self._s3_port}",
            "aws_access_key_id": "box",
            "aws_secret_access_key": "box",
        }
        found = {
            "DIRACX_CONFIG_BACKEND_URL": f"git+file://{place}/cs",
            "DIRACX_SERVICE_AUTH_TOKEN_KEYSTORE": f"file://{place}/jwks.json",
            "DIRACX_SERVICE_AUTH_STATE_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "DIRACX_SERVICE_AUTH_TOKEN_ISSUER": url,
            "DIRACX_SERVICE_AUTH_ALLOWED_REDIRECTS": json.dumps([f"{url}/api/docs/oauth2-redirect"]),
            "DIRACX_SANDBOX_STORE_BUCKET_NAME": "sandboxes",
            "DIRACX_SANDBOX_STORE_AUTO_CREATE_BUCKET": "true",
            "DIRACX_SANDBOX_STORE_S3_CLIENT_KWARGS": json.dumps(s3),
            "DIRACX_LEGACY_EXCHANGE_HASHED_API_KEY": hashlib.sha256(self._api_key).hexdigest(),
            "DIRACX_OS_DB_JOBPARAMETERSDB": json.dumps(
                {"sqlalchemy_dsn": f"sqlite+aiosqlite:///{place}/jobparametersdb.db"}
            ),
        }
        for name in DATABASES:
            found[f"DIRACX_DB_URL_{name.upper()}DB"] = f"sqlite+aiosqlite:///{place}/{name.lower()}db.db"
        if self._access_minutes:
            found["DIRACX_SERVICE_AUTH_ACCESS_TOKEN_EXPIRE_MINUTES"] = str(self._access_minutes)
        return found

    def write_credentials(self, path: Path, user: str, group: str, *, hours: int = 24) -> None:
        """Write a token of a user as ``dirac login`` does.

        By the route by which DIRAC 9 puts tokens in proxies.
        """
        query = {"preferred_username": user, "scope": f"vo:{VO} group:{group}", "expires_minutes": str(60 * hours)}
        bearer = "diracx:legacy:" + base64.urlsafe_b64encode(self._api_key).decode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/api/auth/legacy-exchange?{urllib.parse.urlencode(query)}",
            headers={"Authorization": f"Bearer {bearer}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            token = json.load(answer)
        found = {
            "access_token": token["access_token"],
            "refresh_token": token["refresh_token"],
            "expires_on": int(time.time()) + token["expires_in"] - 15,
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(found, file)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def answers(url: str) -> bool:
    """Whether a server answers, other than that it is not ready yet."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code != 503
    except OSError:
        return False


def end(process: subprocess.Popen[bytes] | None) -> None:
    """End a process, at last by force."""
    if process is None:
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def write_configuration(repository: Path) -> None:
    """Write DIRAC's configuration as a git repository, if it is not there yet."""
    import yaml

    if repository.exists():
        return
    groups = {
        USER_GROUP: {"Properties": ["NormalUser"], "Users": [ALICE, BOB]},
        PILOT_GROUP: {"Properties": ["GenericPilot"], "Users": [ALICE]},
        ADMIN_GROUP: {"Properties": ["JobAdministrator", "NormalUser"], "Users": [ADMIN]},
    }
    registry: dict[str, Any] = {
        "DefaultGroup": USER_GROUP,
        "IdP": {"URL": "http://127.0.0.1:1/no-identity-provider", "ClientID": "box"},
        "Users": {sub: {"PreferedUsername": name} for sub, name in USERS.items()},  # DiracX's spelling
        "Groups": groups,
    }
    found = {
        "DIRAC": {},
        "Registry": {VO: registry},
        "Operations": {"Defaults": {"JobDescription": {"MinCPUTime": 10, "MaxCPUTime": 500_000}}},
    }
    repository.mkdir(parents=True)
    (repository / "default.yml").write_text(yaml.safe_dump(found))
    git = ["git", "-C", str(repository), "-c", "user.name=box", "-c", "user.email=box@localhost"]
    for command in (["init", "-q", "-b", "master"], ["add", "default.yml"], ["commit", "-q", "-m", "A grid in a box"]):
        subprocess.run([*git, *command], check=True)


def write_keys(path: Path) -> None:
    """Write the keys that sign tokens, if they are not there yet."""
    from joserfc.jwk import KeySet, OKPKey
    from uuid_utils import uuid7

    if path.exists():
        return
    parameters = {"key_ops": ["sign", "verify"], "alg": "Ed25519", "kid": uuid7().hex}
    keys = KeySet([OKPKey.generate_key("Ed25519", parameters=parameters)])
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(keys.as_dict(private=True), file)
