"""The environments of the servers of a box: their packages would not go together with those here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from coffea_dirac.errors import ConfigurationError

CHECKOUT = Path(__file__).parent.parent.parent


class ServerEnvironment(NamedTuple):
    """Where the packages of a server are.

    Parameters
    ----------
    what : str
        The server, for messages.
    variable : str
        The environment variable that may name an interpreter with its packages.
    folder, lock : str
        Where a checkout installs it, and from which lock.

    Examples
    --------
    >>> server = ServerEnvironment("a server", "SERVER_PYTHON", ".venv-server", "requirements/server.lock")
    >>> server.is_in_checkout
    False
    """

    what: str
    variable: str
    folder: str
    lock: str

    @property
    def is_in_checkout(self) -> bool:
        """Whether this is a checkout that can install it."""
        return (CHECKOUT / self.lock).exists()

    @property
    def python(self) -> Path:
        """The interpreter with its packages, whether or not it is there yet."""
        return Path(os.environ.get(self.variable) or CHECKOUT / self.folder / "bin" / "python")

    def make(self) -> None:
        """Install it into a checkout if none is named and it is not there yet.

        Raises
        ------
        ConfigurationError
            It cannot be installed.
        """
        if os.environ.get(self.variable) or not self.is_in_checkout:
            return
        command = [str(CHECKOUT / "scripts" / "set-up"), self.folder, self.lock]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode:
            raise ConfigurationError(f"the environment of {self.what} cannot be made: {done.stderr.strip()}")
