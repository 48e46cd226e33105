"""``coffea-dirac``: look into a cache and keep it in order.

Every command writes a table, or with ``--json`` the same as JSON.  Nothing is unpickled, no user code runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich import filesize
from rich.console import Console
from rich.table import Table

from coffea_dirac import housekeeping, packs
from coffea_dirac.cache import StageCache, default_cache, template_key
from coffea_dirac.errors import CoffeaDiracError, ConfigurationError, CorruptRecordError
from coffea_dirac.fingerprint import diff
from coffea_dirac.interfaces import Json, Row

app = typer.Typer(help="Look into a cache of coffea_dirac and keep it in order.", no_args_is_help=True)
cache_app = typer.Typer(help="What is kept, how much of it, and is it sound.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

Place = Annotated[str, typer.Option("--cache", help="Directory or URL of the cache; by default your own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]
DAY_S = 86400.0


@app.callback()
def _main() -> None:
    """Look into a cache of coffea_dirac and keep it in order."""


@contextmanager
def _errors() -> Any:
    """Say what is wrong in one line and end with exit code 2."""
    try:
        yield
    except CoffeaDiracError as error:
        Console(stderr=True).print(f"coffea-dirac: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def _opened(place: str) -> StageCache:
    cache = StageCache(place) if place else default_cache()
    if cache is None:
        raise ConfigurationError("COFFEA_DIRAC_CACHE=off switches the cache off: name one with --cache PATH")
    return cache


def _index(cache: StageCache) -> packs.Index:
    index = packs.Index(cache.store)
    index.refresh()
    for problem in index.problems:
        print(f"unreadable: {problem}", file=sys.stderr)
    return index


def _show(rows: Sequence[Mapping[str, Json]], *, as_json: bool, title: str = "") -> None:
    if as_json:
        print(json.dumps(list(rows), indent=1))
        return
    if title:
        Console().print(title, markup=False, highlight=False, soft_wrap=True)
    table = Table()
    for name in rows[0] if rows else ():
        number = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name.removesuffix("_s").removesuffix("_bytes"), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    Console().print(table if rows else "nothing is kept")


def _cell(name: str, value: Json) -> str:
    if value is None:
        return ""
    if name.endswith("_bytes"):
        return _size(value)
    if name in ("made_s", "used_s"):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)


def _size(size_bytes: Json) -> str:
    return filesize.decimal(int(size_bytes))


def _is_result(row: Row) -> bool:
    return "stage" in row.info


def _summary(rows: Iterable[Row], used_s: Mapping[str, float]) -> dict[str, Json]:
    rows = list(rows)
    items = [row for row in rows if "merged" not in row.info]
    return {
        "work_items": len(items),
        "merged": len(rows) - len(items),
        "events": sum(int(row.info.get("entries", 0)) for row in items),
        "seconds": round(sum(float(row.info.get("seconds", 0.0)) for row in items), 1),
        "size_bytes": sum(row.length for row in rows),
        "made_s": max((float(row.info.get("created_s", 0.0)) for row in rows), default=0.0),
        "used_s": max((used_s.get(row.pack, 0.0) for row in rows), default=0.0),
    }


@cache_app.command("ls")
def list_stages(cache: Place = "", as_json: AsJson = False) -> None:
    """List the stages (processors) whose results are kept."""
    with _errors():
        opened = _opened(cache)
        used_s = housekeeping.contents(opened.store).used_s
        stages: dict[str, list[Row]] = defaultdict(list)
        for row in filter(_is_result, _index(opened)):
            stages[str(row.info["stage"])].append(row)
        found = [{"stage": name, **_summary(rows, used_s)} for name, rows in sorted(stages.items())]
        _show(found, as_json=as_json)


@cache_app.command("du")
def disk_usage(
    cache: Place = "",
    by: Annotated[str, typer.Option(help="What to add up by: stage, dataset or session.")] = "stage",
    as_json: AsJson = False,
) -> None:
    """Add up how much room the records take."""
    with _errors():
        if by not in ("stage", "dataset", "session"):
            raise ConfigurationError(f"--by {by} is none of stage, dataset, session")
        opened = _opened(cache)
        sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in _index(opened):
            name = row.pack.split("/", 3)[2] if by == "session" else str(row.info.get(by, "(other)"))
            sizes[name][0] += 1
            sizes[name][1] += row.length
        rows = [{by: name, "records": n, "size_bytes": size} for name, (n, size) in sorted(sizes.items())]
        rows.sort(key=lambda row: -int(str(row["size_bytes"])))
        total, quota = housekeeping.contents(opened.store).size_bytes, opened.quota_bytes
        limit = f" of {_size(quota)}" if quota is not None else ""
        _show(rows, as_json=as_json, title=f"{opened.store.url}: {_size(total)}{limit}")


def _matching(opened: StageCache, key: str) -> list[Row]:
    rows = [row for row in _index(opened) if row.key.startswith(key)] if key else []
    if not rows:
        raise ConfigurationError(
            f"no record's key begins with {key!r}; `coffea-dirac cache du --by stage` says what is"
        )
    return rows


@cache_app.command("show")
def show_record(key: str, cache: Place = "", as_json: AsJson = False) -> None:
    """Show everything that is known of a record; KEY may be its first digits."""
    with _errors():
        rows = _matching(_opened(cache), key)
        found = [
            {
                "key": row.key,
                "codec": row.codec,
                "size_bytes": row.length,
                "pack": row.pack,
                "offset": row.offset,
                "inputs": [list(i) for i in row.inputs],
                **row.info,
            }
            for row in rows
        ]
        if as_json:
            print(json.dumps(found, indent=1))
            return
        for record in found:
            table = Table(show_header=False)
            for name, value in record.items():
                text = "\n".join(" ".join(map(str, i)) for i in value) if name == "inputs" else _cell(name, value)
                table.add_row(name, text)
            Console().print(table)


@cache_app.command("explain")
def explain_stage(stage: str, cache: Place = "", as_json: AsJson = False) -> None:
    """Say how each version of a STAGE (a processor) that was run differs from the one before."""
    with _errors():
        opened = _opened(cache)
        key = template_key(stage)
        rows = sorted(opened.look_up([key]).get(key, ()), key=lambda row: float(row.info.get("created_s", 0.0)))
        if not rows:
            raise ConfigurationError(f"no stage {stage!r} was kept here; `coffea-dirac cache ls` lists them")
        trees = opened.load(rows)
        found: list[dict[str, Any]] = []
        before = None
        for row in rows:
            tree = trees.get(row)
            changes = [c.text for c in diff(before, tree)] if before is not None and tree is not None else ["first run"]
            made_s = float(row.info.get("created_s", 0.0))
            found.append({"template": str(row.info.get("template", ""))[:12], "made_s": made_s, "changes": changes})
            before = tree
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            _show([{**f, "changes": "\n".join(f["changes"])} for f in found], as_json=False, title=stage)


@cache_app.command("verify")
def verify_records(
    cache: Place = "",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is damaged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every record and check it; exit code 1 if one is damaged."""
    with _errors():
        opened = _opened(cache)
        index = _index(opened)
        rows = list(index)
        damaged: dict[Row, str] = {}
        for at in range(0, len(rows), 256):
            for row, payload in packs.read(opened.store, rows[at : at + 256]).items():
                if isinstance(payload, CorruptRecordError):
                    damaged[row] = str(payload)
        found = [{"key": row.key, "pack": row.pack, "problem": problem} for row, problem in damaged.items()]
        found += [{"key": "", "pack": "", "problem": problem} for problem in index.problems]
        if as_json:
            print(json.dumps({"records": len(rows), "damaged": found}, indent=1))
        elif found:
            _show(found, as_json=False)
        if not as_json:
            Console().print(f"{len(rows):,} records read, {len(found)} damaged")
        if delete and damaged:
            housekeeping.drop(opened.store, damaged)
        if found:
            raise typer.Exit(1)


@cache_app.command("gc")
def collect_garbage(
    cache: Place = "",
    quota: Annotated[
        str, typer.Option(help='Room that may be used, as "20 GB"; by default the quota of the cache.')
    ] = "",
    older_than: Annotated[float | None, typer.Option(help="Also remove what was not used for so many days.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what was not used for longest, until the rest is within the quota."""
    with _errors():
        opened = _opened(cache)
        limit = housekeeping.size_bytes(quota) if quota else opened.quota_bytes
        found = housekeeping.contents(opened.store)
        since = time.time() - older_than * DAY_S if older_than is not None else None
        going = housekeeping.too_old(found, limit, unused_since_s=since)
        freed = sum(found.packs[name].size_bytes for name in going)
        if not dry_run:
            freed = housekeeping.remove(opened.store, found, going)
        if as_json:
            facts = {
                "packs": len(going),
                "freed_bytes": freed,
                "left_bytes": found.size_bytes - freed,
                "dry_run": dry_run,
            }
            print(json.dumps(facts))
        else:
            verb = "would be removed" if dry_run else "removed"
            Console().print(f"{len(going)} packs, {_size(freed)} {verb}; {_size(found.size_bytes - freed)} left")


@cache_app.command("rm")
def remove_records(
    what: Annotated[str, typer.Argument(help="A stage, or the first digits of a key.")] = "",
    cache: Place = "",
    all_: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the records of a stage, or those with a key; what else their packs hold stays."""
    with _errors():
        if all_ == bool(what):
            raise ConfigurationError("say what to remove: `rm STAGE`, `rm KEY` or `rm --all`")
        opened = _opened(cache)
        rows = list(_index(opened))
        if all_:
            for blob in opened.store.list("v1/"):
                opened.store.delete(blob.name)
        else:
            stage = [row for row in rows if row.info.get("stage") == what]
            rows = stage or _matching(opened, what)
            housekeeping.drop(opened.store, rows)
        if as_json:
            print(json.dumps({"removed": len(rows)}))
        else:
            Console().print(f"{len(rows):,} records removed")
