"""How workers and scheduler reach each other.  One way today, tcp; another is another value."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from coffea_dirac.errors import ConfigurationError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Transport:
    """How workers and scheduler reach each other.

    Parameters
    ----------
    host : str
        The address of this machine at which the scheduler listens.
    worker_host : str
        The address at which workers listen; empty for the one from which they see the scheduler.
    in_file : bool
        Whether a worker finds the scheduler's address in a file, which it can wait for, rather than in its job.
    blip_s : float
        So long a worker that has lost its scheduler tries to come back.
    """

    host: str = LOOPBACK
    worker_host: str = LOOPBACK
    in_file: bool = True
    blip_s: float = 0.0


LOCAL = Transport()
"""Workers of this machine, which can wait for a file, and end with this process."""


def transport_of(url: str) -> Transport:
    """Return the transport that a URL names.

    Parameters
    ----------
    url : str
        ``tcp://ADDRESS``: an address of this machine that workers can reach, and which can reach them.

    Raises
    ------
    ConfigurationError
        It is something else.

    Examples
    --------
    >>> transport_of("tcp://127.0.0.1").worker_host
    '127.0.0.1'
    """
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        address = None
    if parts.scheme != "tcp" or address is None or parts.path not in ("", "/"):
        raise ConfigurationError(
            f"transport={url!r} is no way to workers: 'tcp://' and an address of this machine, as in "
            f"transport='tcp://{LOOPBACK}'"
        )
    host = str(address)
    return Transport(host, LOOPBACK if address.is_loopback else "", in_file=False, blip_s=30.0)
