"""What a task says, as a text: equal for equal functions and values, whatever the keys around it are called.

Plain values are written here, since a graph has very many of them; functions, arrays, classes and everything else by
`coffea_dirac.fingerprint`, each function once.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dask.utils import SerializableLock

from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import Ingredients, describe
from coffea_dirac.fingerprint.packages import counted_version
from coffea_dirac.graph import nodes
from coffea_dirac.inputs.discovery import unrecorded
from coffea_dirac.inputs.identity import Reading, data_digest
from coffea_dirac.inputs.memo import IdentityMemo
from coffea_dirac.inputs.paths import counts, digest_path
from coffea_dirac.interfaces import Json, Versions

Refer = Callable[[nodes.Key], str]
"""Key -> the text that stands for its result."""
# What tasks do with data they do through these, whether their code names them or not.
_LIBRARIES = ("awkward", "boost-histogram", "numpy", "pandas", "uproot")
_NUMBERS = frozenset({int, float, complex, bool, type(None), type(...)})
_LASTING = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
_LONGEST_NAME, _MOST_BITS = 1024, 4096
_ROOT = ".root"
_NATIVE_WRITERS = re.compile(
    r"\b(to_(parquet\w*|feather|orc|hdf)|write_(table|dataset|feather)|(Parquet|Feather|ORC)Writer)\b"
)
_CARRIERS = ("coffea.nanoevents", "dask_awkward")


class Values:
    """Texts of values; what is known of functions and files is remembered as long as it holds.

    Parameters
    ----------
    memo : IdentityMemo
        What is known of input files.
    count : "exact" or "minor"
        How versions of installed packages count.

    Attributes
    ----------
    ingredients : dict of str to Ingredients
        Of each function met, by its digest.
    files : set of str
        The files that enter by their content.
    names : dict of str to str
        Digest -> under which name a function is compared with earlier ones.
    met : set of str
        Digests of the user's code that was met; whoever wants to know empties it first.
    """

    def __init__(self, memo: IdentityMemo, *, count: Versions = "exact") -> None:
        self._memo, self._count = memo, count
        self._lasting: dict[int, tuple[Any, Ingredients]] = {}
        self._here: dict[int, tuple[Any, str, str]] = {}
        self._behaviors: dict[tuple[Any, ...], tuple[Any, str]] = {}
        self._strings: dict[str, str] = {}
        self._identities: dict[tuple[str, str], str] = {}
        self._common = ""
        self.ingredients: dict[str, Ingredients] = {}
        self.files: set[str] = set()
        self.names: dict[str, str] = {}
        self.met: set[str] = set()

    def begin(self) -> None:
        """Forget what may have changed since the last graph: values, files, and functions that mean something else."""
        self._here, self._behaviors, self._strings, self._identities, self.files = {}, {}, {}, {}, set()
        for name, (_, found) in list(self._lasting.items()):
            if found.guard is None or not found.guard.holds():
                del self._lasting[name]
        libraries = tuple((name, counted_version(version, self._count)) for name, version in versions())
        common = f"{self._count} {libraries!r} {_behaviours(self._count)}"
        self._common = hashlib.sha256(common.encode()).hexdigest()

    @property
    def common(self) -> str:
        """What enters every fingerprint: versions of libraries, and behaviours that arrays carry unnamed."""
        return self._common

    # ---------------------------------------------------------------- nodes

    def node(self, node: Any, refer: Refer) -> str:
        """Return the text of a node.

        Raises
        ------
        FingerprintError
            Something in it has no fingerprint.
        """
        found = nodes.structure(node)
        if isinstance(found, nodes.Ref):
            return f"@{refer(found.key)}"
        if isinstance(found, nodes.Data):
            return self.value(found.value, refer)
        if isinstance(found, nodes.Call):
            return f"call({self._call(found, refer)})"
        if isinstance(found, nodes.Container):
            parts = [self.value(a, refer) for a in found.args]
            return f"{found.kind}({','.join(sorted(parts) if found.kind == 'Set' else parts)})"
        return self.inner(found, refer)

    def _call(self, call: nodes.Call, refer: Refer) -> str:
        if nodes.writes(call.func):
            what = nodes.name_of(nodes.innermost(call.func))
            raise FingerprintError(what, "it writes into an array or a file: what it does is no result to be kept")
        args = ",".join([self.value(a, refer) for a in call.args])
        # In their order, which a function that takes ``**kwargs`` sees.
        named = ",".join([f"{_text(k)}={self.value(v, refer)}" for k, v in call.kwargs.items()])
        return f"{self.value(call.func, refer)};{args};{named}" if named else f"{self.value(call.func, refer)};{args}"

    def inner(self, inner: nodes.Inner, refer: Refer) -> str:
        """Return the text of what a graph inside a task makes: its keys are names for its author only."""
        known = {key: f"bound({self.value(value, refer)})" for key, value in inner.bound.items()}

        def inside(key: nodes.Key) -> str:
            if key not in known:
                if key not in inner.graph:
                    return refer(key)
                text = self.node(nodes.as_node(key, inner.graph[key], inner.graph), inside)
                known[key] = hashlib.sha256(_bytes(text)).hexdigest()
            return known[key]

        return f"inner({inside(inner.out)})"

    # ---------------------------------------------------------------- values

    def value(self, value: Any, refer: Refer) -> str:
        """Return the text of a value that may hold nodes."""
        kind = type(value)
        if kind in _NUMBERS and not (kind is int and value.bit_length() > _MOST_BITS):
            return f"{kind.__name__} {value!r}"
        if kind is str:
            return self._string(value)
        if kind is list or kind is tuple:
            return f"{kind.__name__}({','.join([*self._items(value, refer)])})"
        if kind is dict:
            pairs = [f"{self.value(k, refer)}:{self.value(v, refer)}" for k, v in value.items()]
            return f"dict({','.join(pairs)})"
        if nodes.is_node(value):
            return self.node(value, refer)
        if kind is functools.partial and not vars(value):
            return f"partial({self._call(nodes.Call(value.func, value.args, value.keywords), refer)})"
        return self.digest(value)

    def _items(self, value: Sequence[Any], refer: Refer) -> Iterable[str]:
        """Yield the texts of a sequence; a file followed by the name of a tree enters by what the tree holds."""
        is_named = False
        for i, item in enumerate(value):
            after = value[i + 1] if i + 1 < len(value) else None
            was_named, is_named = is_named, False
            if type(item) is str and type(after) is str and item.endswith(_ROOT):
                is_named = self._holds_tree(item, after)
            text = _text(item) if is_named else self.value(item, refer)
            yield f"tree({text},{self._identity(value[i - 1], item)})" if was_named else text

    def _holds_tree(self, path: str, tree: str) -> bool:
        """Whether what follows a file is the name of a tree in it; if not, a file of this machine enters as a whole."""
        try:
            self._identity(path, tree)
        except FingerprintError:
            if os.path.isfile(path):  # noqa: PTH113 - as below
                return False
            raise
        return True

    def digest(self, value: Any) -> str:
        """Return what stands for a function, an array or another object.

        Raises
        ------
        FingerprintError
            It has no fingerprint.
        """
        known = self._here.get(id(value))
        if known is None:
            found = self.described(value)
            contents = [f"{name} {content}" for name in sorted(found.strings) if (content := self._file(name))]
            code = found.digest if found.modules and callable(value) else ""
            if code and code not in self.names:
                _refuse_writers(value, found)
                self.names[code] = nodes.called(value)
            known = self._here[id(value)] = (value, " ".join((f"#{found.digest}", *contents)), code)
        if known[2]:
            self.met.add(known[2])
        return known[1]

    def described(self, value: Any) -> Ingredients:
        """Return what the fingerprint of an object comes from; what lies in files it names does not enter this one."""
        _, found = self._lasting.get(id(value), (None, None))
        if found is None:
            with unrecorded():
                found = describe({"value": value}, special=self._special, versions=self._count)
            if isinstance(value, _LASTING):
                self._lasting[id(value)] = value, found
            self.ingredients[found.digest] = found
        return found

    def _special(self, walker: Any, value: Any) -> Json | None:
        """Encode what only looks different in another process, and the trees of open files."""
        if isinstance(value, types.FunctionType) and (inner := nodes.private_graph(value)) is not None:
            return ["repack", self.inner(inner, _nowhere)]
        if nodes.is_node(value):
            return ["node", self.node(value, _nowhere)]
        if type(value) is SerializableLock:  # its token is random
            return "lock"
        if type(value).__module__.startswith("awkward.forms"):
            return ["form", hashlib.sha256(_bytes(_form_text(value))).hexdigest()]
        if type(value).__module__.startswith(_CARRIERS) and (carried := _carried(value)):
            state = {name: _bare(part) for name, part in _bare(vars(value)).items()}
            return ["instance", walker.class_of(value), walker.encode(state), [self._behavior(one) for one in carried]]
        if hasattr(type(value), "num_entries") and type(value).__module__.startswith("uproot"):
            return ["tree", value.object_path, self._identity(value.file.file_path, value.object_path)]
        return None

    def _behavior(self, found: dict[Any, Any]) -> str:
        """Return the digest of the behaviours that arrays are given; very many nodes are given the same."""
        # Every dataset has copies of its own: the same keys and the same objects.
        name = tuple(found), tuple(map(id, found.values()))
        if name not in self._behaviors:
            pairs = sorted(((self.value(k, _nowhere), v) for k, v in found.items()), key=lambda pair: pair[0])
            self._behaviors[name] = pairs, self.digest(pairs)
        return self._behaviors[name][1]

    # ---------------------------------------------------------------- strings and files

    def _string(self, value: str) -> str:
        known = self._strings.get(value)
        if known is None:
            content = self._file(value)
            known = self._strings[value] = _text(value) if content is None else f"file({_text(value)},{content})"
        return known

    def _file(self, name: str) -> str | None:
        """Return the digest of the file that a string names, None if it names none."""
        if not 0 < len(name) <= _LONGEST_NAME or "\0" in name or not os.path.isfile(name):  # noqa: PTH113 - very many
            return None
        path = os.path.realpath(name)
        if not counts(path):
            return None
        self.files.update((name, path))
        return data_digest(path) if name.endswith(_ROOT) else digest_path(path)

    def prepare(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Identify trees of many files at once."""
        wanted = {(path, _tree(tree)) for path, tree in pairs} - self._identities.keys()
        found = self._memo.identify_all(wanted, Reading()) if wanted else {}
        self._identities.update({pair: i.digest for pair, i in found.items() if not isinstance(i, Exception)})

    def _identity(self, path: str, tree: str) -> str:
        """Return the identity of a tree of a ROOT file."""
        pair = path, _tree(tree)
        self.prepare([pair])
        if pair not in self._identities:
            raise FingerprintError(path, f"its tree {tree!r} cannot be read: write the path of a file that has it")
        self.files.update((path, os.path.realpath(path)) if "://" not in path else (path,))
        return self._identities[pair]


def _carried(value: Any) -> list[dict[Any, Any]]:
    """Return the dicts of behaviours that an object of a library carries: they are large, and in no order."""
    state = getattr(value, "__dict__", {})
    found = [state.get("behavior"), *(p.get("behavior") for p in state.values() if type(p) is dict)]
    return [one for one in found if type(one) is dict]


def _bare(part: Any) -> Any:
    if type(part) is not dict:
        return part
    return {k: v for k, v in part.items() if not (k == "behavior" and type(v) is dict)}


def _refuse_writers(value: Any, found: Ingredients) -> None:
    """Refuse code of the user's that writes files by a library of C++: nobody would see that they are written."""
    for node in found.tree["nodes"].values():
        said = [*node.get("code", ()), *node.get("names", {}).values()] if isinstance(node, dict) else []
        for text in said:
            if isinstance(text, str) and (writer := _NATIVE_WRITERS.search(text)):
                raise FingerprintError(
                    nodes.name_of(value), f"it calls {writer[0]}: loading its result would not write the files again"
                )


def _tree(name: str) -> str:
    return name.partition(";")[0].strip("/")


def _nowhere(key: nodes.Key) -> str:
    raise FingerprintError(str(key), "it stands for a result of another graph: pass it as an argument of its own")


def _text(value: str) -> str:
    return json.dumps(value)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _form_text(form: Any) -> str:
    """Return the text of a form with fields by name: coffea makes their order from a set, which has none."""
    return json.dumps(_sorted_form(form.to_dict(verbose=True)), sort_keys=True, default=repr)


def _sorted_form(content: Any) -> Any:
    if isinstance(content, list):
        return [_sorted_form(part) for part in content]
    if not isinstance(content, dict):
        return content
    found = {name: _sorted_form(part) for name, part in content.items()}
    if found.get("class") == "RecordArray" and found.get("fields"):
        found["contents"] = dict(zip(found.pop("fields"), found["contents"], strict=True))
    return found


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the libraries through which tasks see data."""
    found = []
    for name in _LIBRARIES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append((name, "absent"))
    return tuple(found)


def _behaviours(count: Versions) -> str:
    """Return the digest of the user's behaviours of awkward arrays, empty if there are none."""
    awkward = sys.modules.get("awkward")
    tree = describe({"arrays": awkward}, versions=count).tree if awkward is not None else {}
    found: Mapping[str, Any] = {"behavior": tree.get("behavior"), "nodes": tree.get("nodes")}
    return hashlib.sha256(_bytes(json.dumps(found, sort_keys=True))).hexdigest() if found["behavior"] else ""
