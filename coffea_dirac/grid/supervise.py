"""The one process of a grid in a box that holds the others: server, matcher and pilots.  Run by its path.

``python supervise.py DIRECTORY OPTIONS``: writes ``DIRECTORY/grid.json`` once jobs can come, and ends all on
SIGTERM or when the process that it shall end with has ended.  SIGUSR1 stops the DiracX server, SIGUSR2 starts it again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":  # last in the path, so that it shadows nothing of the server's environment
    sys.path.append(str(Path(__file__).parent.parent.parent))

from coffea_dirac.grid.client import connect
from coffea_dirac.grid.ending import has_ended
from coffea_dirac.grid.matcher import Matcher
from coffea_dirac.grid.server import ADMIN_GROUP, PILOT_GROUP, USER_GROUP, VO, Server
from coffea_dirac.grid.site import Pilot, SiteOptions

IDLE_S = 0.4
USER = "alice"


class Supervisor:
    """Server, matcher and pilots.

    Parameters
    ----------
    directory : Path
        Where everything is.
    options : dict
        ``sites``: list of ``NAME:SLOTS[:TAG,...]``; ``heartbeat_s``; ``access_minutes``; ``end_with``: a process id.
    """

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self._directory = directory
        self._options = options
        self._sites = dict(map(SiteOptions.parse, options["sites"]))
        self._server = Server(directory / "server", access_minutes=options.get("access_minutes"))
        self._asked: list[int] = []
        self._matcher: Matcher | None = None
        self._credentials: dict[tuple[str, str], Path] = {}

    def run(self) -> None:
        """Run until told to end."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._ask)
        try:
            self._server.start()
            client = connect(self._server.url, self._credentials_of("admin", ADMIN_GROUP))
            database = self._directory / "server" / "jobdb.db"
            self._matcher = Matcher(client, database, self._sites, self._pilot_of)
            self._tell()
            while not self._is_over():
                if not self._step():
                    time.sleep(IDLE_S)
        finally:
            if self._matcher is not None:
                self._matcher.close()
            self._server.stop()
            (self._directory / "grid.json").unlink(missing_ok=True)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self._asked.append(number)
        if self._matcher is None and number in (signal.SIGTERM, signal.SIGINT):
            raise SystemExit(0)

    def _is_over(self) -> bool:
        is_told = any(number in (signal.SIGTERM, signal.SIGINT) for number in self._asked)
        return is_told or has_ended(self._options.get("end_with"))

    def _step(self) -> bool:
        assert self._matcher is not None
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            while number in self._asked:
                self._asked.remove(number)
                self._server.stop_api() if number == signal.SIGUSR1 else self._server.start_api()
                self._tell()
        try:
            return self._matcher.step()
        except Exception:  # noqa: BLE001 - the server may be down, on purpose; into the log, and on
            traceback.print_exc()
            return False

    def _pilot_of(self, site: str) -> Pilot:
        place = self._directory / "sites" / site
        return Pilot(site, place, self._server.url, self._options["heartbeat_s"], self._credentials_of)

    def _credentials_of(self, user: str, group: str) -> Path:
        if (user, group) not in self._credentials:
            path = self._directory / f"{user}-{group}.json"
            self._server.write_credentials(path, user, group)
            self._credentials[user, group] = path
        return self._credentials[user, group]

    def _tell(self) -> None:
        assert self._matcher is not None
        # A file of their own for the user: wrappers refresh the others.
        token_file = self._directory / "credentials.json"
        if not token_file.exists():
            self._server.write_credentials(token_file, USER, USER_GROUP)
            # For tests: somebody else, and a group that may submit nothing.
            self._server.write_credentials(self._directory / "credentials-bob.json", "bob", USER_GROUP)
            self._server.write_credentials(self._directory / "credentials-pilot.json", USER, PILOT_GROUP)
        found = {
            "diracx": self._server.url,
            "token_file": str(token_file),
            "sites": {name: {"slots": site.slots, "tags": list(site.tags)} for name, site in self._sites.items()},
            "vo": VO,
            "user": USER,
            "directory": str(self._directory),
            "pids": {"grid": os.getpid(), **self._server.pids, **self._matcher.pids},
        }
        partial = self._directory / "grid.json.partial"
        partial.write_text(json.dumps(found, indent=1))
        with suppress(FileNotFoundError):
            partial.rename(self._directory / "grid.json")


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1]).resolve(), json.loads(sys.argv[2])).run()
