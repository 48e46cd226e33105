"""``coffea-dirac cache``: what is kept, how much of it, and is it sound."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from coffea_dirac import housekeeping, packs
from coffea_dirac.cache import StageCache, default_cache
from coffea_dirac.catalogs import open_catalog
from coffea_dirac.cli.output import complain, errors_in_one_line, say, say_json, show, show_one, size
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.fingerprint import diff
from coffea_dirac.interfaces import Json, Row
from coffea_dirac.stages.explaining import template_key
from coffea_dirac.stores import LocalStore
from coffea_dirac.stores.published import register

cache_app = typer.Typer(help="What is kept, how much of it, and is it sound.", no_args_is_help=True)

Place = Annotated[str, typer.Option("--cache", help="Directory or URL of the cache; by default your own.")]
Named = Annotated[str, typer.Argument(metavar="[CACHE]", help="The same as --cache.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]
DAY_S = 86400.0
# Fewer digits would take records by accident.
SHOWN_DIGITS, REMOVED_DIGITS = 4, 8


def _opened(place: str) -> StageCache:
    cache = StageCache(place) if place else default_cache()
    if cache is None:
        raise ConfigurationError("COFFEA_DIRAC_CACHE=off switches the cache off: name one with --cache PATH")
    if place and isinstance(cache.store, LocalStore) and not cache.store.path.exists():
        raise ConfigurationError(f"there is no {cache.store.path}: name the directory of a cache with --cache PATH")
    return cache


def _index(cache: StageCache) -> packs.Index:
    index = packs.Index(cache.store)
    index.refresh()
    for problem in index.problems:
        complain(f"unreadable: {problem}")
    return index


@cache_app.command("ls")
def list_stages(named: Named = "", cache: Place = "", as_json: AsJson = False) -> None:
    """List the stages (processors) whose results are kept."""
    with errors_in_one_line():
        opened = _opened(cache or named)
        used_s, index = housekeeping.contents(opened.store).used_s, _index(opened)
        stages: dict[str, list[Row]] = defaultdict(list)
        for row in index:
            if "stage" in row.info:
                stages[str(row.info["stage"])].append(row)
        found = [{"stage": name, **_summary(name, rows, index, used_s)} for name, rows in sorted(stages.items())]
        if as_json:
            say_json(found)
        else:
            # A terminal has no room for all of it.
            rows = [{name: value for name, value in stage.items() if name != "seconds"} for stage in found]
            show(rows, title="" if rows else f"nothing is kept in {opened.store.url}")


def _summary(stage: str, rows: Sequence[Row], index: packs.Index, used_s: Mapping[str, float]) -> dict[str, Json]:
    items = [row for row in rows if "merged" not in row.info]
    return {
        "versions": len(_templates(stage, index)),
        "work_items": len(items),
        "merged": len(rows) - len(items),
        "events": sum(int(row.info.get("entries", 0)) for row in items),
        "seconds": round(sum(float(row.info.get("seconds", 0.0)) for row in items), 1),
        "size_bytes": sum(row.length for row in rows),
        "made_s": max(float(row.info.get("created_s", 0.0)) for row in rows),
        "used_s": max(used_s.get(row.pack, 0.0) for row in rows),
    }


def _templates(stage: str, index: packs.Index) -> list[Row]:
    key = template_key(stage)
    return sorted(index.rows([key]).get(key, ()), key=lambda row: float(row.info.get("created_s", 0.0)))


@cache_app.command("du")
def disk_usage(
    named: Named = "",
    cache: Place = "",
    by: Annotated[str, typer.Option(help="What to add up by: stage, dataset or session.")] = "stage",
    as_json: AsJson = False,
) -> None:
    """Add up how much room the records take."""
    with errors_in_one_line():
        if by not in ("stage", "dataset", "session"):
            raise ConfigurationError(f"--by {by} is none of stage, dataset, session")
        opened = _opened(cache or named)
        sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in _index(opened):
            name = housekeeping.session_of(row.pack) if by == "session" else str(row.info.get(by, "(other)"))
            sizes[name][0] += 1
            sizes[name][1] += row.length
        largest_first = sorted(sizes.items(), key=lambda named: (-named[1][1], named[0]))
        rows = [{by: name, "records": n, "size_bytes": size_bytes} for name, (n, size_bytes) in largest_first]
        if as_json:
            say_json(rows)
            return
        total, quota = housekeeping.contents(opened.store).size_bytes, opened.quota_bytes
        limit = f" of {size(quota)}" if quota is not None else ""
        show(rows, title=f"{opened.store.url}: {size(total)}{limit}")


def _matching(rows: Iterable[Row], key: str, digits: int) -> list[Row]:
    if len(key) < digits:
        raise ConfigurationError(f"{key!r} is too little of a key: give {digits} digits or more")
    found = [row for row in rows if row.key.startswith(key)]
    if not found:
        raise ConfigurationError(
            f"no record's key begins with {key!r}, and no stage is called so; `coffea-dirac cache ls` lists stages"
        )
    return found


@cache_app.command("show")
def show_record(
    key: Annotated[str, typer.Argument(help="The key of a record, or its first digits.")],
    cache: Place = "",
    as_json: AsJson = False,
) -> None:
    """Show everything that is known of a record."""
    with errors_in_one_line():
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
            for row in _matching(_index(_opened(cache)), key, SHOWN_DIGITS)
        ]
        if as_json:
            say_json(found)
            return
        for record in found:
            show_one(record)


@cache_app.command("explain")
def explain(
    what: Annotated[str, typer.Argument(help="A stage (a processor), or the first digits of a key.")],
    cache: Place = "",
    as_json: AsJson = False,
) -> None:
    """Say how each version of a stage that was run differs from the one before; of a key, whether it is kept."""
    with errors_in_one_line():
        opened = _opened(cache)
        index = _index(opened)
        templates = _templates(what, index)
        if not templates:
            _explain_key(what, index, as_json=as_json)
            return
        trees = opened.load(templates)
        found: list[dict[str, Any]] = []
        before = None
        for row in templates:
            tree = trees.get(row)
            changes = [c.text for c in diff(before, tree)] if before is not None and tree is not None else ["first run"]
            made_s = float(row.info.get("created_s", 0.0))
            found.append({"template": str(row.info.get("template", ""))[:12], "made_s": made_s, "changes": changes})
            before = tree
        if as_json:
            say_json(found)
        else:
            show([{**f, "changes": "\n".join(f["changes"])} for f in found], title=what)


def _explain_key(key: str, index: packs.Index, *, as_json: bool) -> None:
    states = {row.key: "kept" for row in index if row.key.startswith(key)}
    for row in index.gone():
        if row.key.startswith(key):
            states.setdefault(row.key, f"was kept in {row.pack}, which is gone: removed by the quota, `gc` or `rm`")
    if len(key) < SHOWN_DIGITS or not states:
        raise ConfigurationError(
            f"{key!r} is no stage that was kept here and no key that is known: it was never computed with this cache, "
            "or long ago; `coffea-dirac cache ls` lists stages"
        )
    found = [{"key": name, "state": state} for name, state in sorted(states.items())]
    if as_json:
        say_json(found)
    else:
        show(found)


@cache_app.command("verify")
def verify_records(
    named: Named = "",
    cache: Place = "",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is damaged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every record and check it; exit code 1 if one is damaged."""
    with errors_in_one_line():
        opened = _opened(cache or named)
        index = packs.Index(opened.store)
        index.refresh()
        n_records = sum(1 for _ in index)
        damaged = dict(housekeeping.damaged(opened.store, index))
        found = [{"key": row.key, "blob": row.pack, "problem": problem} for row, problem in damaged.items()]
        blobs = zip(index.damaged, index.problems, strict=True)
        found += [{"key": "", "blob": name, "problem": problem} for name, problem in blobs]
        if as_json:
            say_json({"records": n_records, "damaged": found})
        else:
            show(found, title=f"{n_records:,} records read, {len(found)} damaged")
        if delete and found:
            housekeeping.drop(opened.store, damaged)
            for name in index.damaged:
                opened.store.delete(name)
        if found:
            raise typer.Exit(1)


@cache_app.command("gc")
def collect_garbage(
    named: Named = "",
    cache: Place = "",
    quota: Annotated[
        str, typer.Option(help='Room that may be used, as "20 GB"; by default the quota of the cache.')
    ] = "",
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Also remove what was not used for so many days.")
    ] = None,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Also remove what only killed runs have kept, and nobody used since.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what was not used for longest, until the rest is within the quota; never what an open session may need."""
    with errors_in_one_line():
        opened = _opened(cache or named)
        limit = housekeeping.size_bytes(quota) if quota else opened.quota_bytes
        found = housekeeping.contents(opened.store)
        since_s = time.time() - older_than * DAY_S if older_than is not None else None
        going = housekeeping.too_old(found, limit, unused_since_s=since_s, unreferenced=unreferenced)
        freed = sum(found.packs[name].size_bytes for name in going)
        if not dry_run:
            freed = housekeeping.remove(opened.store, found, going)
        facts = {
            "packs": len(going),
            "freed_bytes": freed,
            "left_bytes": found.size_bytes - freed,
            "dry_run": dry_run,
        }
        if as_json:
            say_json(facts)
        else:
            verb = "would be removed" if dry_run else "removed"
            say(f"{len(going)} packs {verb}, {size(max(freed, 0))} freed, {size(found.size_bytes - freed)} left")


@cache_app.command("register")
def register_cache(
    dataset: Annotated[str, typer.Option(help="Under which name of Rucio, for example user.jdoe:ttbar-cache.")],
    rse: Annotated[str, typer.Option(help="The RSE at which the cache lies.")],
    named: Named = "",
    cache: Place = "",
    days: Annotated[float, typer.Option(min=1, help="So long the dataset lives, from now on.")] = 30,
    catalog: Annotated[str, typer.Option(help="Rucio's URL; by default that of your rucio.cfg.")] = "rucio",
    as_json: AsJson = False,
) -> None:
    """Publish a cache on a storage element as a dataset of Rucio, which others read by cache="rucio://..."."""
    with errors_in_one_line():
        opened = _opened(cache or named)
        server: Any = open_catalog(catalog)
        n_new = register(opened.store, dataset, rse, catalog=server, lifetime_s=days * DAY_S)
        if as_json:
            say_json({"dataset": dataset, "registered": n_new})
        else:
            say(f"{n_new:,} blobs registered in {dataset}, for {days:g} days: StageCache('rucio://{dataset}')")


@cache_app.command("rm")
def remove_records(
    what: Annotated[str, typer.Argument(help="A stage, or the first digits of a key.")] = "",
    cache: Place = "",
    all_: Annotated[bool, typer.Option("--all", help="Remove everything, also of sessions that still run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the records of a stage, or those with a key; what else their packs hold stays."""
    with errors_in_one_line():
        if all_ == bool(what):
            raise ConfigurationError("say what to remove: `rm STAGE`, `rm KEY` or `rm --all`")
        opened = _opened(cache)
        index = _index(opened)
        rows = list(index)
        if all_:
            housekeeping.remove_all(opened.store)
        else:
            stage = [row for row in rows if row.info.get("stage") == what]
            rows = [*stage, *_templates(what, index)] or _matching(rows, what, REMOVED_DIGITS)
            housekeeping.drop(opened.store, rows)
        if as_json:
            say_json({"removed": len(rows)})
        else:
            say(f"{len(rows):,} records removed")
