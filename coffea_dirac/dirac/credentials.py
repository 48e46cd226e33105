"""The credential that jobs are submitted with: whose it is, how long it lasts, and what to type if it does not do.

Two kinds: the file that ``dirac login`` leaves, and a proxy of DIRAC 9 that carries a token.  Nothing here talks to a
server.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coffea_dirac.errors import CredentialError

DEFAULT_PATH = "~/.cache/diracx/credentials.json"
_IN_PROXY = re.compile(r"-----BEGIN DIRACX-----\s*(.*?)\s*-----END DIRACX-----", re.S)


@dataclass(frozen=True, slots=True)
class Credential:
    """A token and what is written in it.

    Parameters
    ----------
    path : Path
        Where it was found.
    user, vo, group : str
        Whose it is.
    end_s : float
        When it can no longer be used or renewed (Unix time).
    is_renewed : bool
        Whether each use can move `end_s`.
    content : dict
        As DiracX's client reads it.
    is_proxy : bool
        Whether it was found in a proxy.
    """

    path: Path
    user: str
    vo: str
    group: str
    end_s: float
    is_renewed: bool
    content: dict[str, Any]
    is_proxy: bool = False

    def __repr__(self) -> str:
        return f"Credential({self})"

    def __str__(self) -> str:
        return f"{self.user}, VO {self.vo}, group {self.group}, from {self.path}"

    @property
    def command(self) -> str:
        """What makes a new one."""
        if self.is_proxy:
            return f"dirac-proxy-init --group {self.group}"
        return login_command(self.vo, self.group)

    def check(self, life_s: float) -> None:
        """Refuse a credential that ends before jobs of `life_s` seconds do.

        Raises
        ------
        CredentialError
            It has ended, or ends too early.
        """
        left = self.end_s - time.time()
        if left <= 0:
            raise CredentialError(f"The DIRAC credential ({self}) has expired. Type: {self.command}")
        if not self.is_renewed and left < life_s:
            hours = int(life_s // 3600) + 1
            command = f"{self.command} --valid {hours}:00" if self.is_proxy else self.command
            raise CredentialError(
                f"The DIRAC credential ({self}) ends in {left / 60:.0f} minutes, before jobs of {life_s / 60:.0f} "
                f"minutes do. Type: {command}, or ask for less: DiracCluster(cpu_time={max(100, int(left))})"
            )


def login_command(vo: str = "VO", group: str = "GROUP") -> str:
    """Return the command that makes a token.

    Examples
    --------
    >>> login_command("gridpp", "gridpp_user")
    'dirac login gridpp --group gridpp_user'
    """
    return f"dirac login {vo} --group {group}"


def find_credential(path: str | None = None) -> Credential:
    """Return the credential of this user.

    Parameters
    ----------
    path : str, optional
        A token file or a proxy; by default ``DIRACX_CREDENTIALS_PATH``, then the file of ``dirac login``, then
        ``X509_USER_PROXY`` and the proxy in its usual place.

    Raises
    ------
    CredentialError
        There is none, others can read it, or it carries no token.
    """
    proxy = os.environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.getuid()}"  # noqa: S108
    asked = path or os.environ.get("DIRACX_CREDENTIALS_PATH")
    for place in [asked] if asked else [DEFAULT_PATH, proxy]:
        found = Path(place).expanduser()
        if found.exists():
            return read_credential(found)
    where = asked or f"{DEFAULT_PATH} or {proxy}"
    raise CredentialError(f"There is no DIRAC credential in {where}. Type: {login_command()}")


def read_credential(path: Path) -> Credential:
    """Return the credential in a file.

    Raises
    ------
    CredentialError
        Others can read it, or it carries no token.
    """
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CredentialError(f"Others may read the DIRAC credential {path}. Type: chmod 600 {path}")
        text = path.read_text()
    except OSError as error:
        raise CredentialError(f"The DIRAC credential {path} cannot be read: {error.strerror}.") from error
    is_proxy = "-----BEGIN" in text
    try:
        return _parse(path, _from_proxy(text) if is_proxy else json.loads(text), is_proxy=is_proxy)
    except (ValueError, KeyError, TypeError, AttributeError):  # none of which shows the content
        make = "dirac-proxy-init (of a DIRAC 9 with DiracX)" if is_proxy else login_command()
        raise CredentialError(f"{path} carries no DiracX token. Type: {make}") from None


def _from_proxy(text: str) -> dict[str, Any]:
    found = _IN_PROXY.search(text)
    if found is None:
        raise ValueError("no token in it")
    content: dict[str, Any] = json.loads(base64.b64decode(found[1]))
    life_s = float(content.get("expires_in") or 0)
    return {"expires_on": time.time() + life_s, **content}


def _parse(path: Path, content: dict[str, Any], *, is_proxy: bool) -> Credential:
    access = _claims(content["access_token"])
    refresh = _claims(content["refresh_token"]) if content.get("refresh_token") else {}
    return Credential(
        path=path,
        user=str(access.get("preferred_username", "")),
        vo=str(access.get("vo", "VO")),
        group=str(access.get("dirac_group", "GROUP")),
        end_s=float(refresh.get("exp") or access["exp"]),
        # A token out of a proxy lasts as long as that; others are renewed with each refresh.
        is_renewed=bool(refresh) and not refresh.get("legacy_exchange"),
        content={name: content.get(name) for name in ("access_token", "refresh_token")}
        | {"expires_on": int(min(content.get("expires_on", access["exp"]), access["exp"]))},
        is_proxy=is_proxy,
    )


def _claims(token: str) -> dict[str, Any]:
    """Return what a token says; whether it is true is the server's business."""
    try:
        _, payload, _ = token.split(".")
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except binascii.Error as error:
        raise ValueError("no token") from error
    return found
