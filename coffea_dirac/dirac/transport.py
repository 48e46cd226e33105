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
    port : int
        The port at which it does; 0 for any that is free.
    worker_host : str
        The address at which workers listen; empty for the one from which they see the scheduler.
    in_file : bool
        Whether a worker finds the scheduler's address in a file, which it can wait for, rather than in its job.
    blip_s : float
        So long a worker that has lost its scheduler tries to come back.
    """

    host: str = LOOPBACK
    port: int = 0
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
        ``tcp://ADDRESS`` or ``tcp://ADDRESS:PORT``: an address of this machine that workers can reach, and which can
        reach them; the scheduler listens at the port, for example one that a firewall lets through.

    Raises
    ------
    ConfigurationError
        It is something else.

    Examples
    --------
    >>> transport_of("tcp://127.0.0.1").worker_host
    '127.0.0.1'
    >>> transport_of("tcp://192.0.2.7:8786").port
    8786
    """
    parts = urlsplit(url)
    try:
        address, port = ipaddress.ip_address(parts.hostname or ""), parts.port or 0
    except ValueError:
        address, port = None, 0
    if parts.scheme != "tcp" or address is None or parts.path not in ("", "/"):
        raise ConfigurationError(
            f"transport={url!r} is no way to workers: 'tcp://' and an address of this machine, with a port or without, "
            f"as in transport='tcp://{LOOPBACK}:8786'"
        )
    host = str(address)
    return Transport(host, port, LOOPBACK if address.is_loopback else "", in_file=False, blip_s=30.0)
