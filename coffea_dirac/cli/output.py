"""How commands say what they found: a table for people, JSON for programs, one line when something is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer
from rich import box, filesize
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coffea_dirac.errors import CoffeaDiracError
from coffea_dirac.interfaces import Json

WIDE = 200


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Say what is wrong in one line and end with exit code 2."""
    try:
        yield
    except CoffeaDiracError as error:
        complain(str(error))
        raise typer.Exit(2) from None


def complain(text: str) -> None:
    """Write a line to the error stream."""
    Console(stderr=True).print(f"coffea-dirac: {text}", markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    """Return where tables go; a pipe has room for wide ones."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def say(text: str) -> None:
    """Write a line, whole, however narrow the terminal is."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def say_json(value: Json) -> None:
    """Write JSON that ends with a newline."""
    print(json.dumps(value, indent=1))


def show(rows: Sequence[Mapping[str, Json]], *, title: str = "") -> None:
    """Write rows of the same columns as a table under a title."""
    if title:
        say(title)
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in rows[0]:
        is_number = all(isinstance(row[name], int | float) for row in rows)
        heading = name.removesuffix("_s").removesuffix("_bytes").replace("_", "\n")
        # Where there is no room, texts are folded and numbers are not.
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell(name, value)) for name, value in row.items()))
    _console().print(table)


def show_one(facts: Mapping[str, Json]) -> None:
    """Write what is known of one thing, a line for each fact."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    for name, value in facts.items():
        is_list = isinstance(value, list)
        text = "\n".join(" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in value) if is_list else ""
        table.add_row(name, escape(text if is_list else cell(name, value)))
    _console().print(table)


def cell(name: str, value: Json) -> str:
    """Return a value as people read it; the end of its name tells the unit.

    Examples
    --------
    >>> cell("size_bytes", 20_000_000), cell("events", 1000), cell("seconds", 0.25), cell("file", None)
    ('20.0 MB', '1,000', '0.2', '')
    """
    if value is None:
        return ""
    if name.endswith("_bytes"):
        return size(value)
    if name in ("made_s", "used_s", "created_s"):
        return _when(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)


def _when(seconds: float) -> str:
    then, now = time.localtime(seconds), time.localtime()
    return time.strftime("%m-%d %H:%M" if then.tm_year == now.tm_year else "%Y-%m-%d", then)


def size(size_bytes: Json) -> str:
    """Return a size as people read it."""
    return filesize.decimal(int(size_bytes))
