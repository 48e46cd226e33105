"""Templates: what stands for the code of stages in keys, and what it comes from."""

from __future__ import annotations

import errno
import functools
import importlib.metadata
import os
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

from coffea_dirac.fingerprint import Ingredients, describe, diff
from coffea_dirac.fingerprint.guard import Guard
from coffea_dirac.fingerprint.packages import counted_version, origin_of
from coffea_dirac.fingerprint.values import canonical
from coffea_dirac.inputs.discovery import unrecorded
from coffea_dirac.inputs.files import vanished
from coffea_dirac.interfaces import Versions
from coffea_dirac.stages.arguments import Template
from coffea_dirac.stages.meaning import around, attributes, state
from coffea_dirac.stages.stage import Stage

# Whatever a stage does with arrays it does through these.
_LIBRARIES = ("awkward", "coffea", "numpy", "uproot")
# Code that finds methods by names made at run time: then every method counts.
_DYNAMIC = re.compile(r"\b(?:getattr|__dict__|vars|attrgetter|methodcaller|dir|getmembers)\b")
# They call no method but `process` and `postprocess`.
_QUIET_BASES = frozenset({"builtins", "abc", "typing", "coffea.processor.processor"})


class Templates:
    """The templates of stages: of each function made once, of each method once for a state of its instance.

    Parameters
    ----------
    sources : mapping, optional
        Source texts of code that is not at hand in this process.
    named_files : callable
        Strings -> {name: digest} of the files that they name.
    is_watching : bool
        Look at each call whether what the code reaches is still the same: in a notebook, it may not be.
    versions : "exact" or "minor"
        How versions of installed packages count.
    """

    def __init__(
        self,
        sources: Mapping[str, str] | None,
        named_files: Callable[[frozenset[str]], Mapping[str, str]],
        *,
        is_watching: bool = False,
        versions: Versions = "exact",
    ) -> None:
        self.sources, self.is_watching, self.versions = sources, is_watching, versions
        self._find_files, self._files = named_files, dict[frozenset[str], Mapping[str, str]]()
        self._known: dict[object, tuple[Template, Guard | None]] = {}
        self.ingredients: dict[str, Ingredients] = {}
        self.digests: dict[object, tuple[Any, str]] = {}
        """Digests of arguments that do not change in a run, by what they mean, with the arguments."""
        self._held: list[object] = []
        self._texts: dict[str, str] = {}

    def named_files(self, strings: frozenset[str]) -> Mapping[str, str]:
        """Return the files that strings name, with their digests; each set of strings is looked at once."""
        if not strings:
            return {}
        found = self._files.get(strings)
        if found is None or self.is_watching:
            found = self._files[strings] = self._find_files(strings)
        return found

    def of(self, stage: Stage, arguments: Mapping[str, Any]) -> Template:
        """Return the template of a stage that is called with `arguments`.

        Raises
        ------
        FingerprintError
            Something that the stage reaches has no fingerprint.
        InputError
            A `File` that it reaches is not there.
        """
        instance = next(iter(arguments.values()), None) if stage.is_method else None
        meanings, held = around(stage.function)
        name = (id(stage), meanings, *((id(instance), state(instance)) if stage.is_method else ()))
        found, guard = self._known.get(name, (None, None))
        if found is None or (guard is not None and not guard.holds()):
            with unrecorded():
                ingredients = describe_stage(stage, instance, self.sources, versions=self.versions)
                for path, digest in ingredients.files.items():
                    if not digest:
                        raise vanished(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
                found = Template(ingredients.digest, self.named_files(ingredients.strings))
            self._known[name] = found, ingredients.guard if self.is_watching else None
            self.ingredients[found.digest] = ingredients
            # An id stands for its object as long as that lives.
            self._held += [stage, instance, *held, *attributes(instance).values()]
        return found

    def reaches(self, template: Template, name: str) -> bool:
        """Return whether the code of a stage may call a function of this name."""
        text = self._texts.get(template.digest)
        if text is None:
            text = self._texts[template.digest] = canonical(self.ingredients[template.digest].tree["nodes"])
        return re.search(rf"\b{name}\b", text) is not None if name.isidentifier() else name in text

    def changed(
        self, stage: Stage, arguments: Mapping[str, Any], template: Template, *, has_run: bool = False
    ) -> str | None:
        """Return what is no longer as it was when a stage was called: its instance, what is around it or is watched.

        What is around a stage it may fill itself: that is looked at before it runs.
        """
        if has_run and not (stage.is_method or self.is_watching):
            return None
        now = self.of(stage, arguments)
        if now.digest == template.digest:
            return None
        found = diff(self.ingredients[template.digest].tree, self.ingredients[now.digest].tree)
        return found[0].where if found else stage.name


@functools.cache
def _version(distribution: str) -> str:
    # A checkout that is installed in place counts as the user's own code, and still has a version.
    return origin_of(distribution).version or importlib.metadata.version(distribution)


def describe_stage(
    stage: Stage, instance: object, sources: Mapping[str, str] | None = None, *, versions: Versions = "exact"
) -> Ingredients:
    """Return what the fingerprint of a stage comes from, its arguments apart; `instance` is that of a method."""
    import awkward as ak

    bound = types.MethodType(stage.function, instance) if stage.is_method else stage.function
    roots = {
        "stage": bound,
        "version": stage.version,
        "depends": stage.depends,
        "libraries": tuple(counted_version(_version(name), versions) for name in _LIBRARIES),
        # Arrays carry behaviours that no code of the stage names.
        "arrays": ak,
    }
    methods = _methods(type(instance)) if stage.is_method else ()
    found = describe(roots, omit=methods, sources=sources, versions=versions)
    if methods and any(map(_DYNAMIC.search, _code_of(found))):
        found = describe(roots, sources=sources, versions=versions)
    return found


def _methods(kind: type) -> list[str]:
    """Return the names of methods that run only where the user's code names them.

    None, if there is a base class of a library that may call them; private ones are not named as they are called.
    """
    own = [base for base in kind.__mro__ if base.__module__ not in _QUIET_BASES]
    if any(origin_of(base.__module__).kind in ("installed", "stdlib") for base in own):
        return []
    return [
        name
        for base in own
        for name, value in vars(base).items()
        if not name.startswith(("__", f"_{base.__name__.lstrip('_')}__"))
        and isinstance(value, types.FunctionType | Stage)
    ]


def _code_of(found: Ingredients) -> list[str]:
    nodes = found.tree["nodes"].values()
    return [canonical(node["code"]) for node in nodes if isinstance(node, dict) and "code" in node]
