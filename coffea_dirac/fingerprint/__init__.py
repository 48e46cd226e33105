"""Fingerprints: a digest of all that determines a result, and the ingredients it came from.

The rooms, in the order of a walk: `walk` (from values through all they reach), `functions`, `classes`, `modules` (what
user code is and names), `code`, `names`, `dump` (source to normalised lines), `values`, `science` (content and type of
values), `behaviors` (what awkward finds by the names of records), `packages` (whose code is it), `diff` (what became
different).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import behaviors, functions, values
from coffea_dirac.fingerprint.diff import Difference, diff
from coffea_dirac.fingerprint.guard import Guard
from coffea_dirac.fingerprint.values import digest_file
from coffea_dirac.fingerprint.walk import Special, Walker
from coffea_dirac.interfaces import Json, Versions

__all__ = ["Difference", "Ingredients", "describe", "diff", "digest_file", "digest_value", "fingerprint", "ingredients"]

SCHEME = "coffea_dirac fingerprint 1"


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a fingerprint came from.

    Parameters
    ----------
    digest : str
        The fingerprint, 64 hex digits.
    tree : dict
        Everything that entered, as values that JSON can say; places in files are below ``"@places"`` and do not count.
    sources : mapping
        Source texts, by file name, of code that travels by value (``__main__``, notebooks).
    strings : frozenset of str
        Strings within reach that could name a file.
    modules : mapping
        The user's modules that entered, with a digest of what entered of each.
    warnings : tuple of str
        What the user should know.
    stages : tuple of Stage
        The ``@stage`` functions within reach.
    holds_cache : bool
        Whether a `StageCache` is within reach, which may be used for writing.
    makes_stages : bool
        Whether ``stage`` itself is, which code calls to make a stage while it runs.
    files : mapping
        The `File` objects within reach: their paths as written, with the digest of the content, empty if there is none.
    guard : Guard, optional
        Tells whether the code still means the same in this process.
    """

    digest: str
    tree: dict[str, Json] = field(repr=False)
    sources: Mapping[str, str] = field(repr=False)
    strings: frozenset[str] = field(repr=False)
    modules: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    stages: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    holds_cache: bool = field(default=False, repr=False, compare=False)
    makes_stages: bool = field(default=False, repr=False, compare=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    guard: Guard | None = field(default=None, repr=False, compare=False)

    @property
    def may_have_handles(self) -> bool:
        """Whether a processor with these ingredients may call stages, or write files by a cache."""
        return bool(self.stages) or self.makes_stages or self.holds_cache


def fingerprint(
    fn: Callable[..., Any], *args: Any, inputs: Iterable[str | os.PathLike[str]] = (), **kwargs: Any
) -> str:
    """Return the fingerprint of a call: equal as long as nothing changed that can change its result.

    Parameters
    ----------
    fn : callable
        A function, a bound method, or any object that can be called.
    *args, **kwargs : Any
        Its arguments; they enter by content and type.
    inputs : iterable of paths
        Files whose content belongs to the key.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    FingerprintError
        Something within reach has no fingerprint; the message names it and what to write instead.

    Examples
    --------
    >>> def area(width, height):
    ...     return width * height
    >>> fingerprint(area, 3, 4) == fingerprint(area, 3, 4)
    True
    >>> fingerprint(area, 3, 4) == fingerprint(area, 3.0, 4)
    False
    """
    return ingredients(fn, *args, inputs=inputs, **kwargs).digest


def ingredients(
    fn: Callable[..., Any], *args: Any, inputs: Iterable[str | os.PathLike[str]] = (), **kwargs: Any
) -> Ingredients:
    """Return the fingerprint of a call with all that it came from; see `fingerprint` for the parameters.

    Examples
    --------
    >>> def scale(x, factor=2):
    ...     return factor * x
    >>> ingredients(scale, 1).tree["nodes"]["scale"]["defaults"]
    {'factor': 'int 2'}
    """
    roots: dict[str, Any] = {"function": fn, "arguments": list(args)}
    roots.update({f"argument {name}": kwargs[name] for name in sorted(kwargs)})
    found = [[os.path.basename(path), _content("inputs", path)] for path in inputs]  # noqa: PTH119 - any path-like
    return _describe(roots, inputs=found, named_files=True)


def describe(
    roots: Mapping[str, object],
    *,
    omit: Collection[str] = (),
    sources: Mapping[str, str] | None = None,
    special: Special | None = None,
    versions: Versions = "exact",
) -> Ingredients:
    """Return the ingredients of named values.

    Parameters
    ----------
    roots : mapping
        The values; files that strings name do not enter, their names are in the ``strings`` of the result.
    omit : collection of str
        Methods of the root instances' classes, bases included, that enter only if other reachable code names them.
    sources : mapping, optional
        ``sources`` of another process's ingredients, for code whose source is not at hand here.
    special : callable, optional
        ``special(walker, value)`` is asked first for functions, classes and instances; None: encode it as usual.
    versions : "exact" or "minor"
        Count the versions of installed packages as they are, or as major.minor only.

    Returns
    -------
    Ingredients
        Digest and what it came from.

    Raises
    ------
    FingerprintError
        Something within reach has no fingerprint.

    Examples
    --------
    >>> describe({"cut": 30}).tree["roots"]
    {'cut': 'int 30'}
    """
    return _describe(roots, omit=omit, sources=sources, special=special, versions=versions)


def digest_value(value: object) -> str:
    """Return the digest of plain data by content and type.

    Parameters
    ----------
    value : object
        Any value that has a fingerprint.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    FingerprintError
        It has none.

    Examples
    --------
    >>> digest_value({"xsec": 1.0}) == digest_value({"xsec": 1})
    False
    """
    walker = Walker()
    return values.digest_json([SCHEME, walker.run({"value": value}), walker.nodes])


def _describe(
    roots: Mapping[str, Any],
    *,
    omit: Collection[str] = (),
    sources: Mapping[str, str] | None = None,
    inputs: Json = (),
    named_files: bool = False,
    special: Special | None = None,
    versions: Versions = "exact",
) -> Ingredients:
    """Walk, and walk again if reachable code reads docstrings or annotations, or names what was left out."""
    omit, docs, annotations = frozenset(omit), False, False
    while True:
        walker = Walker(
            omit=omit, given=sources, docs=docs, annotations=annotations, special=special, versions=versions
        )
        walker.omitting = {c for value in roots.values() for c in type(_instance(value)).__mro__} if omit else set()
        walker.root_names |= {str(getattr(value, "__name__", "")) for value in roots.values()}
        tree: dict[str, Json] = {"scheme": SCHEME, "roots": walker.run(roots)}
        if {"awkward", "coffea", "vector", "dask-awkward"} & set(walker.packages):
            tree["behavior"] = walker.finish(behaviors.registered(walker))
        walker.find_package_files()
        named = omit & walker.attributes
        reads = functions.reads(walker)
        if not named and reads <= (docs, annotations) and not (reads[0] > docs or reads[1] > annotations):
            break
        omit, docs, annotations = omit - named, docs or reads[0], annotations or reads[1]
    tree["nodes"], tree["packages"] = walker.nodes, dict(sorted(walker.packages.items()))
    tree["inputs"] = list(inputs)
    if versions != "exact":
        # So that "3.2" as an exact version and as the beginning of one are told apart.
        tree["versions"] = versions
    tree["files"] = _named_files(walker) if named_files else {}
    digest = values.digest_json(tree)
    tree["@places"] = walker.places
    modules = {name: values.digest_json(content) for name, content in sorted(walker.members.items())}
    strings, stages = frozenset(walker.strings), tuple(dict.fromkeys(walker.stages))
    return Ingredients(
        digest,
        tree,
        walker.sources,
        strings,
        modules,
        stages=stages,
        holds_cache=walker.holds_cache,
        makes_stages=walker.makes_stages,
        files=walker.files,
        guard=walker.guard,
    )


def _instance(value: Any) -> Any:
    return getattr(value, "__self__", value) if hasattr(value, "__func__") else value


def _named_files(walker: Walker) -> dict[str, str]:
    found = {}
    for text in sorted(walker.strings):
        try:
            if Path(text).is_file():
                found[walker.relative(text)] = _content("a string", text)
        except (OSError, ValueError):
            continue
    return found


def _content(where: str, path: str | os.PathLike[str]) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        why = f"the file {os.fspath(path)!r} cannot be read ({error}): write the path of a file that exists"
        raise FingerprintError(where, why) from error
