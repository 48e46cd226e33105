"""Names without secrets: what people may put into URLs has no place in records, reports and messages."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/@\s'\"]*@")
_QUERY = re.compile(r"(?<=[^\s'\"?]\?)[^\s'\"#,;)\]}]+")


def without_secrets(text: str) -> str:
    """Return a text whose URLs have neither user nor query.

    Examples
    --------
    >>> without_secrets("cannot open https://jdoe:word@store.example.org/nano.root?authz=abc: no such file")
    'cannot open https://store.example.org/nano.root?...: no such file'
    >>> without_secrets("is it there?")
    'is it there?'
    """
    return _QUERY.sub(_hidden, _USER.sub("", text)) if "://" in text else text


def _hidden(match: re.Match[str]) -> str:
    # The colon that ends the URL in a sentence is not a part of it.
    return "..." + (":" if match[0].endswith(":") else "")
