"""Texts without secrets: what is in URLs, headers and passwords has no place in records, reports and messages."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_USER = re.compile(r"(?<=://)[^/@\s'\"]*@")
_QUERY = re.compile(r"(?<=[^\s'\"?]\?)[^\s'\"#,;)\]}]+")
_HEADER = re.compile(r"\b(Bearer|Basic) +(?!\.\.\.)[A-Za-z0-9._~+/=-]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRETS = "password passwd passphrase secret secrets token tokens authorization credential credentials cookie cookies"
_SECRET_WORDS = frozenset((*_SECRETS.split(), "apikey"))
# One of these is in every name of a secret.
_HINTS = ("passw", "passphrase", "secret", "token", "authorization", "credential", "cookie", "key")
_KEYS = frozenset(("api", "private", "access"))
_LITERAL = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_NAME = re.compile(r"[A-Za-z_]\w*")
# Shorter texts are too common to be looked for everywhere.
_MINIMUM = 6


def without_secrets(text: str) -> str:
    """Return a text whose URLs have neither user nor query.

    Examples
    --------
    >>> without_secrets("cannot open https://jdoe:word@store.example.org/nano.root?authz=abc: no such file")
    'cannot open https://store.example.org/nano.root?...: no such file'
    >>> without_secrets("is it there?")
    'is it there?'
    """
    return _QUERY.sub(_cut, _USER.sub("", text)) if "://" in text else text


def _cut(match: re.Match[str]) -> str:
    # The colon that ends the URL in a sentence is not a part of it.
    return "..." + (":" if match[0].endswith(":") else "")


@functools.lru_cache(maxsize=1 << 14)
def is_secret_name(name: str) -> bool:
    """Say whether a variable, attribute or key of this name holds what nobody else shall read.

    Examples
    --------
    >>> [is_secret_name(name) for name in ("API_KEY", "accessToken", "password2", "tokenizer", "key")]
    [True, True, True, False, False]
    """
    if not _may_name_secret(name):
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    return not _SECRET_WORDS.isdisjoint(words) or ("key" in words and not _KEYS.isdisjoint(words))


def _may_name_secret(text: str) -> bool:
    """Whether there can be the name of a secret in a text; quick, and never wrong when it finds nothing."""
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def tree_without_secrets(tree: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return ingredients of a fingerprint in which secrets are hidden; equal ones stay equal, nearly all others differ.

    Hidden are texts under names such as ``token`` or ``password``, all texts of a statement that uses such a name, the
    values of environment variables of such names, headers, and users and queries of URLs.

    Parameters
    ----------
    tree : mapping
        `coffea_dirac.fingerprint.Ingredients.tree`.
    environment : mapping, optional
        By default that of this process.

    Examples
    --------
    >>> tree_without_secrets({"names": {"TOKEN": 'str "open sesame"', "CUT": "int 30"}})
    {'names': {'TOKEN': 'str "hidden 41ef"', 'CUT': 'int 30'}}
    """
    known = {
        value for name, value in (os.environ if environment is None else environment).items() if is_secret_name(name)
    }
    known.update(_named(tree, is_secret=False))
    texts = sorted((text for text in known if len(text) >= _MINIMUM), key=len, reverse=True)
    spellings = {spelling: _hidden(text) for text in texts for spelling in (text, json.dumps(text)[1:-1])}
    everywhere = re.compile("|".join(map(re.escape, spellings))) if spellings else None

    def clean(value: Any, *, is_secret: bool) -> Any:
        if isinstance(value, dict):
            return {key: clean(part, is_secret=is_secret or is_secret_name(key)) for key, part in value.items()}
        if isinstance(value, list):
            is_pair = len(value) == 2 and isinstance(value[0], str) and _is_secret_key(value[0])
            if is_pair:
                return [value[0], clean(value[1], is_secret=True)]
            return [clean(part, is_secret=is_secret) for part in value]
        if not isinstance(value, str):
            return value
        if everywhere is not None:
            value = everywhere.sub(lambda found: spellings[found[0]], value)
        return _cleaned(value, is_secret=is_secret)

    cleaned: dict[str, Any] = clean(dict(tree), is_secret=False)
    return cleaned


# The trees of a run, and of the one before, have most of their texts in common.
@functools.lru_cache(maxsize=1 << 14)
def _cleaned(text: str, *, is_secret: bool) -> str:
    text = without_secrets(text)
    if "Bearer" in text or "Basic" in text:
        text = _HEADER.sub(r"\1 ...", text)
    return _LITERAL.sub(_hidden_literal, text) if is_secret or _has_secret_name(text) else text


def _has_secret_name(text: str) -> bool:
    return _may_name_secret(text) and any(map(is_secret_name, _NAME.findall(text)))


def _is_secret_key(encoded: str) -> bool:
    return encoded.startswith("str ") and is_secret_name(encoded)


def _named(value: Any, *, is_secret: bool) -> Iterator[str]:
    """Yield the texts under secret names."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _named(part, is_secret=is_secret or is_secret_name(key))
    elif isinstance(value, list):
        is_pair = len(value) == 2 and isinstance(value[0], str) and _is_secret_key(value[0])
        for part in value[1:] if is_pair else value:
            yield from _named(part, is_secret=is_secret or is_pair)
    elif is_secret and isinstance(value, str) and value.startswith(("str ", "bytes b")):
        for literal in _LITERAL.findall(value):
            text = _text(literal)
            if not text.startswith("hidden "):
                yield text


def _text(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return literal[1:-1]


def _hidden(text: str) -> str:
    # Enough to see that it has changed, too little to guess it.
    return f"hidden {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:4]}"


def _hidden_literal(match: re.Match[str]) -> str:
    text = _text(match[0])
    if text.startswith("hidden ") or is_secret_name(text):
        return match[0]
    return f'"{_hidden(text)}"'
