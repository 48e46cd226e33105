"""A DiracX server, and what can go wrong with it.

The one room that imports ``diracx``, and only when something is asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from coffea_dirac.dirac.credentials import Credential, find_credential, login_command
from coffea_dirac.errors import (
    CoffeaDiracError,
    ConfigurationError,
    CredentialError,
    JobServiceError,
    JobServiceUnreachableError,
)
from coffea_dirac.sandbox import files_of

ANSWER_S, CONNECT_S, TRANSFER_S = 15.0, 5.0, 120.0


class DiracxServer:
    """One server, asked with one credential; connected to at the first question.

    Parameters
    ----------
    url, credentials : str, optional
        As for `coffea_dirac.dirac.diracx.DiracxJobs`.
    patience_s : float
        How long a server that does not answer is asked again.

    Examples
    --------
    >>> DiracxServer("https://diracx.example.org").url
    'https://diracx.example.org'
    """

    def __init__(self, url: str | None = None, credentials: str | None = None, *, patience_s: float = 20.0) -> None:
        self._url = url
        self._credentials = credentials
        self._patience_s = patience_s
        self._lock = threading.RLock()
        self._client: Any = None
        self._preferences: Any = None
        self._private: Path | None = None

    def __repr__(self) -> str:
        return repr(self._url or os.environ.get("DIRACX_URL", ""))

    @property
    def url(self) -> str:
        """The DiracX server.

        Raises
        ------
        ConfigurationError
            None was given.
        """
        found = self._url or os.environ.get("DIRACX_URL")
        if not found:
            raise ConfigurationError(
                "Which DiracX server? DiracCluster(diracx='https://diracx.example.org'), or export DIRACX_URL=..."
            )
        return found

    def credential(self) -> Credential:
        """Return the credential as it is now; raises `CredentialError`."""
        return find_credential(self._credentials)

    def connect(self) -> Any:
        """Return DiracX's client."""
        with self._lock:
            if self._client is None:
                from diracx.client.sync import SyncDiracClient
                from diracx.core.preferences import DiracxPreferences

                self._preferences = DiracxPreferences(url=self.url, credentials_path=self._token_file())
                self._client = SyncDiracClient(diracx_preferences=self._preferences).__enter__()
            return self._client

    def _token_file(self) -> Path:
        """Return the file that DiracX's client reads and renews: the user's, or a private one for a proxy's token."""
        credential = self.credential()
        if not credential.is_proxy:
            return credential.path
        self._private = Path(tempfile.mkdtemp(prefix="coffea-dirac-"))
        weakref.finalize(self, shutil.rmtree, self._private, ignore_errors=True)
        path = self._private / "credentials.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(credential.content))
        return path

    def call(self, verb: str, *arguments: Any, again: bool = True, **options: Any) -> Any:
        """Call the jobs interface; what can be asked twice is asked again while the server does not answer."""

        def ask() -> Any:
            call = getattr(self.connect().jobs, verb)
            # The client would ask again itself, but only some requests.
            return call(*arguments, **options, read_timeout=ANSWER_S, connection_timeout=CONNECT_S, retry_total=0)

        return self._patiently(ask) if again else self._once(ask)

    def _call_async(self, call: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """Run what exists for asyncio only, in a thread: there may be a loop in this one."""

        async def ask() -> Any:
            from diracx.client.aio import AsyncDiracClient

            async with AsyncDiracClient(diracx_preferences=self._preferences) as client:
                return await asyncio.wait_for(call(client), TRANSFER_S)

        def run() -> Any:
            self.connect()
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(asyncio.run, ask()).result()

        return self._patiently(run)

    def upload(self, files: Mapping[str, bytes]) -> str:
        """Make a sandbox of files, and return where it is."""
        with tempfile.TemporaryDirectory(prefix="coffea-dirac-") as folder:
            paths = []
            for name in sorted(files):
                path = Path(folder, name)
                path.touch(mode=0o600)
                path.write_bytes(files[name])
                os.utime(path, (0, 0))  # the same files are the same sandbox
                paths.append(path)
            from diracx.api.jobs import create_sandbox

            return str(self._call_async(lambda client: create_sandbox(paths, client=client)))

    def download(self, place: str, name: str) -> bytes:
        """Return a file of a sandbox; empty if it is not in it."""

        def ask() -> bytes:
            import httpx2

            found = self.connect().jobs.get_sandbox_file(
                pfn=place, read_timeout=ANSWER_S, connection_timeout=CONNECT_S, retry_total=0
            )
            answer = httpx2.get(found.url, timeout=TRANSFER_S)
            answer.raise_for_status()
            return dict(files_of(answer.content)).get(name, b"")

        return bytes(self._patiently(ask))

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        deadline, pause = time.monotonic() + self._patience_s, 0.25
        while True:
            try:
                return self._once(ask)
            except JobServiceUnreachableError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 4.0)

    def _once(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except CoffeaDiracError:
            raise
        except Exception as error:  # noqa: BLE001 - azure's, httpx's, those of pydantic and of parsing what came
            # Without the cause: its frames hold the request, and that the token.
            raise self._told(error) from None

    def _told(self, error: Exception) -> CoffeaDiracError:
        """Return our error for one of the client's."""
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            return ConfigurationError(
                f"DIRAC jobs need the client of DiracX: pip install 'coffea_dirac[diracx]' ({text})"
            )
        import httpx2
        from azure.core.exceptions import HttpResponseError

        code = getattr(error, "status_code", None) or 0
        if code == 401 or (isinstance(error, RuntimeError) and "refreshing" in text):
            return CredentialError(f"{self.url} does not accept the DIRAC credential: {text}. Type: {self._command()}")
        if isinstance(error, httpx2.HTTPStatusError):
            code = error.response.status_code
        if 400 <= code < 500 and code not in (408, 429):
            who = ""
            with suppress(CredentialError):
                who = f" to {self.credential()}"
            other = self._command().rpartition(" ")[0]
            hint = (
                f" Is the group one that may submit jobs? For another one, type: {other} GROUP" if code == 403 else ""
            )
            return JobServiceError(f"{self.url} refuses this{who} with {code}: {_detail(error) or text}.{hint}")
        what = f"answers {code}" if isinstance(error, HttpResponseError) and code else "does not answer"
        return JobServiceUnreachableError(
            f"The DiracX server {self.url} {what} ({text}). Is it the right address (DIRACX_URL), and is it up? What "
            "is finished is kept: run again later."
        )

    def _command(self) -> str:
        with suppress(CredentialError):
            return self.credential().command
        return login_command()

    def close(self) -> None:
        """Let go of the server; it can be asked again."""
        with self._lock:
            if self._client is not None:
                self._client.__exit__(None, None, None)
            if self._private is not None:
                shutil.rmtree(self._private, ignore_errors=True)
            self._client = self._preferences = self._private = None


def _detail(error: Exception) -> str:
    """Return what the server says is wrong."""
    with suppress(Exception):
        return str(error.response.json()["detail"])  # type: ignore[attr-defined]
    return ""
