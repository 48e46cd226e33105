"""Bearer tokens: found where the WLCG says they lie, read anew whenever they are needed, never kept or shown."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any


def bearer_token() -> str | None:
    """Return this user's token, None if there is none.

    By the rules of WLCG's bearer token discovery the first of these counts: ``BEARER_TOKEN``, the file that
    ``BEARER_TOKEN_FILE`` names, ``bt_u<uid>`` in ``XDG_RUNTIME_DIR``, ``/tmp/bt_u<uid>``.

    Examples
    --------
    >>> os.environ["BEARER_TOKEN"] = "header.claims.signature"
    >>> bearer_token()
    'header.claims.signature'
    >>> del os.environ["BEARER_TOKEN"]
    """
    token = os.environ.get("BEARER_TOKEN", "").strip()
    if token:
        return token
    named = os.environ.get("BEARER_TOKEN_FILE")
    if named:
        return _content(Path(named))
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folders = [Path(runtime)] if runtime else []
    for folder in (*folders, Path("/tmp")):  # noqa: S108 - as WLCG says
        token = _content(folder / f"bt_u{os.geteuid()}") or ""
        if token:
            return token
    return None


def _content(path: Path) -> str | None:
    try:
        # Not by pathlib: what this module opens is no input of the user's code, and is known by who opens it.
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def claims(token: str) -> dict[str, Any]:
    """Return what a token says of itself, unverified; nothing if it is none that can be read.

    Examples
    --------
    >>> claims("a.eyJleHAiOiAxfQ.b")
    {'exp': 1}
    >>> claims("opaque")
    {}
    """
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def trouble(token: str | None) -> str:
    """Return why a storage may not take a token, empty if nothing can be seen in it.

    Examples
    --------
    >>> trouble(None)
    'there is no token: set BEARER_TOKEN or BEARER_TOKEN_FILE'
    >>> trouble("a.eyJleHAiOiAxfQ.b")
    'the token expired at 1970-01-01 00:00:01 UTC: get a new one'
    """
    if token is None:
        return "there is no token: set BEARER_TOKEN or BEARER_TOKEN_FILE"
    end = claims(token).get("exp")
    if isinstance(end, int | float) and end < time.time():
        return f"the token expired at {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(end))} UTC: get a new one"
    return ""
