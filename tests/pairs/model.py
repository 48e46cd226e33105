"""What an edit pair is.

A pair is a small program before and after one edit.  Either its result changes and so must its fingerprint (``differ``),
or nothing that determines it has changed and the fingerprint must agree (``agree``).
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Side:
    """One side of a pair: files, what runs before the call, and how Python is started."""

    files: dict[str, str]
    setup: str = ""
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    python: str = ""
    cwd: str = ""


@dataclass(frozen=True)
class Pair:
    """A program before and after an edit; `call` names the function, `args` and `inputs` are expressions."""

    name: str
    expect: Literal["differ", "agree"]
    before: Side
    after: Side
    call: str = "m.f"
    args: str = "()"
    inputs: str = "()"
    same_value: bool | None = None

    @property
    def values_agree(self) -> bool:
        """Whether running both sides gives the same value."""
        return self.expect == "agree" if self.same_value is None else self.same_value


def files_of(text: str) -> dict[str, str]:
    """Return the files of a text whose lines ``#: name`` begin a file; without any it is ``m.py``."""
    text = textwrap.dedent(text).lstrip("\n")
    if not text.startswith("#: "):
        return {"m.py": text}
    parts = re.split(r"^#: (\S+)\n", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def edit(
    name: str,
    expect: Literal["differ", "agree"],
    text: str,
    *changes: tuple[str, str],
    call: str = "m.f",
    args: str = "()",
    inputs: str = "()",
    setup: str = "",
    after_setup: str | None = None,
    same_value: bool | None = None,
    after: Side | None = None,
) -> Pair:
    """Return the pair of a program and the same program with every (old, new) of `changes` replaced, each once."""
    before = files_of(text)
    edited = dict(before)
    for old, new in changes:
        holders = [file for file, content in edited.items() if old in content]
        assert len(holders) == 1, f"{name}: {old!r} is in {holders}"
        assert edited[holders[0]].count(old) == 1, f"{name}: {old!r} is there more than once"
        edited[holders[0]] = edited[holders[0]].replace(old, new)
    other = Side(edited, setup if after_setup is None else after_setup)
    if after is not None:
        other = Side(after.files or edited, after.setup or other.setup, after.flags, after.env, after.python, after.cwd)
    return Pair(name, expect, Side(before, setup), other, call, args, inputs, same_value)
