"""From a live code object to its source as a syntax tree, believed only if compiling it gives that code object.

Where no source is found, or another one (edited since the import, rewritten, generated), the code object itself counts.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import linecache
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from coffea_dirac.fingerprint.dump import constant, dump_function
from coffea_dirac.fingerprint.names import Chain, Uses, uses_of
from coffea_dirac.fingerprint.scopes import Import

_FUTURE_FLAGS = 0x1FE0000  # of __future__ statements: they act on the code around a function, not in it
_LOAD_GLOBAL = dis.opmap["LOAD_GLOBAL"]
_NAME_OPERATIONS = frozenset(
    number
    for name, number in dis.opmap.items()
    if name in ("LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
)
_NODES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # where statements hold statements


@dataclass(frozen=True)
class Unit:
    """The code of one function: normalised lines, where they stand, and what they name.

    `node` is None where there is no source.
    """

    node: Any
    lines: tuple[str, ...]
    numbers: tuple[int, ...]
    source: Source | None
    uses: Uses
    names: frozenset[str]


class Source:
    """A source file, parsed and compiled once."""

    def __init__(self, filename: str, text: str) -> None:
        self.filename, self.text = filename, text
        self.lines = text.splitlines()
        self.tree = ast.parse(text, filename)
        flags = 0 if Path(filename).is_file() else ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # notebooks may await
        # In the way this process compiles: under -O the live code has no asserts either.
        self._code = compile(text, filename, "exec", flags, dont_inherit=True)
        # Names in asserts count even so.
        self._full = compile(text, filename, "exec", flags, True, 0) if sys.flags.optimize else self._code

    @functools.cached_property
    def _by_name(self) -> Mapping[str, list[tuple[CodeType, Any]]]:
        codes = list(_nested(self._code))
        nodes: dict[tuple[str, int], list[Any]] = {}
        for node in _functions(self.tree, lambdas=any(code.co_name == "<lambda>" for code in codes)):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            nodes.setdefault((getattr(node, "name", "<lambda>"), first), []).append(node)
        found: dict[str, list[tuple[CodeType, Any]]] = {}
        for code in codes:
            candidates = nodes.get((code.co_name, code.co_firstlineno), [])
            node = candidates[0] if len(candidates) == 1 else _by_position(code, candidates)
            if node is not None:
                found.setdefault(code.co_qualname, []).append((code, node))
        return found

    def node_of(self, code: CodeType) -> Any:
        """Return the node that compiles to `code`, or None."""
        wanted = signature(code)
        alike = [(c, n) for c, n in self._by_name.get(code.co_qualname, ()) if signature(c) == wanted]
        alike.sort(key=lambda pair: abs(pair[0].co_firstlineno - code.co_firstlineno))
        return alike[0][1] if alike else None

    @functools.cached_property
    def _names_of(self) -> Mapping[tuple[str, int], frozenset[str]]:
        return {(code.co_qualname, code.co_firstlineno): _names(code) for code in _nested(self._full)}

    def names_of(self, code: CodeType) -> frozenset[str]:
        """Return what the code object would look up if it was compiled with its asserts."""
        found = _names(code)
        if self._full is self._code:
            return found
        return found | self._names_of.get((code.co_qualname, code.co_firstlineno), frozenset())


def _functions(tree: ast.Module, *, lambdas: bool) -> Iterator[Any]:
    """Yield the nodes of functions; expressions, most of a tree, need a look only for lambdas."""
    if lambdas:
        yield from (node for node in ast.walk(tree) if isinstance(node, _NODES))
        return
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _NODES):
            yield node
        for block in _BLOCKS:
            waiting.extend(getattr(node, block, ()))


def _nested(code: CodeType) -> Iterator[CodeType]:
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield value
            yield from _nested(value)


def _by_position(code: CodeType, candidates: list[Any]) -> Any:
    """Tell several lambdas of one line apart by the columns of their instructions."""
    for line, end_line, column, _ in code.co_positions():
        if line is None or end_line is None or not column:
            continue
        inside = [n for n in candidates if _spans(n.body if isinstance(n, ast.Lambda) else n, line, column)]
        if inside:
            return min(inside, key=lambda n: (n.end_lineno - n.lineno, (n.end_col_offset or 0) - n.col_offset))
    return None


def _spans(node: Any, line: int, column: int) -> bool:
    return bool((node.lineno, node.col_offset) <= (line, column) < (node.end_lineno, node.end_col_offset))


# ------------------------------------------------------------------------------------------------------- code objects


@functools.lru_cache(maxsize=65536)
def _digest_code(_identity: int, code: CodeType) -> str:
    parts = (
        code.co_qualname,
        code.co_code.hex(),
        "(" + " ".join(_constant(c) for c in code.co_consts) + ")",
        *map(repr, (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)),
        *map(str, (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_FUTURE_FLAGS)),
        code.co_exceptiontable.hex(),
    )
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def signature(code: CodeType) -> str:
    """Return a digest of what a code object does, whatever its file and lines and how often it ran."""
    return _digest_code(id(code), code)


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return signature(value)
    if isinstance(value, frozenset):
        return "(frozenset " + " ".join(sorted(_constant(v) for v in value)) + ")"
    if isinstance(value, tuple):
        return "(tuple " + " ".join(_constant(v) for v in value) + ")"
    return f"{type(value).__name__} {constant(value)}"


# ------------------------------------------------------------------------------------------------------------ finding


class Sources:
    """The source texts this process has met, by file, newest last; earlier ones serve code imported before an edit."""

    def __init__(self) -> None:
        self._known: dict[str, list[Source]] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._units: dict[tuple[int, bool, bool], tuple[CodeType, Unit]] = {}

    def unit(self, code: CodeType, given: Mapping[str, str], *, docs: bool, annotations: bool) -> Unit:
        """Return the unit of a live code object."""
        key = (id(code), docs, annotations)
        known = self._units.get(key)
        if known is not None and known[0] is code and known[1].node is not None:
            return known[1]
        unit = self._make(code, given, docs=docs, annotations=annotations)
        if len(self._units) > 20_000:
            self._units.clear()
        self._units[key] = (code, unit)
        return unit

    def _make(self, code: CodeType, given: Mapping[str, str], *, docs: bool, annotations: bool) -> Unit:
        for source in self._candidates(code.co_filename, given):
            node = source.node_of(code)
            if node is not None:
                dump = dump_function(node, docs=docs, annotations=annotations)
                return Unit(node, tuple(dump.lines), tuple(dump.numbers), source, uses_of(node), source.names_of(code))
        lines = (f"code {code.co_qualname} {signature(code)}",)
        return Unit(None, lines, (code.co_firstlineno,), None, _uses_of_code(code), _names(code))

    def _candidates(self, filename: str, given: Mapping[str, str]) -> Iterator[Source]:
        if filename in given:
            yield from self._add(filename, given[filename])
        yield from self._read(filename)
        yield from reversed(self._known.get(filename, []))

    def read(self, filename: str, given: Mapping[str, str]) -> Source | None:
        """Return the newest source of a file, or None."""
        if filename in given:
            return next(self._add(filename, given[filename]), None)
        return next(self._read(filename), None)

    def _read(self, filename: str) -> Iterator[Source]:
        path = Path(filename)
        try:
            found = path.stat()
        except (OSError, ValueError):
            # Notebook cells, doctests and the like live in linecache only.
            yield from self._add(filename, "".join(linecache.getlines(filename)))
            return
        stamp = (found.st_mtime_ns, found.st_size)
        known = self._known.get(filename)
        if known and self._stamps.get(filename) == stamp:
            yield known[-1]
            return
        try:
            with tokenize.open(filename) as file:
                text = file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            return
        self._stamps[filename] = stamp
        yield from self._add(filename, text)

    def _add(self, filename: str, text: str) -> Iterator[Source]:
        known = self._known.setdefault(filename, [])
        for source in known:
            if source.text == text:
                known.remove(source)
                known.append(source)
                yield source
                return
        if not text:
            return
        try:
            source = Source(filename, text)
        except (SyntaxError, ValueError, RecursionError):
            return
        known.append(source)
        del known[:-4]
        yield source


SOURCES = Sources()


def _names(code: CodeType) -> frozenset[str]:
    """Return every name the compiled code looks up; code that the compiler removed as dead looks up nothing."""
    found = set(code.co_freevars)
    extended = 0
    raw = code.co_code
    for at in range(0, len(raw), 2):
        operation, argument = raw[at], raw[at + 1] | extended
        extended = argument << 8 if operation == dis.EXTENDED_ARG else 0
        if operation == _LOAD_GLOBAL:
            found.add(code.co_names[argument >> 1])
        elif operation in _NAME_OPERATIONS and argument < len(code.co_names):
            found.add(code.co_names[argument])
    return frozenset(found).union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def _uses_of_code(code: CodeType) -> Uses:
    """Read from bytecode what source would have told; attributes of a global follow it directly."""
    uses = Uses()
    for part in (code, *_nested(code)):
        uses.attributes.update(part.co_names)
        uses.strings.update(c for c in part.co_consts if isinstance(c, str))
        root, attributes = "", []
        for instruction in (*dis.get_instructions(part), None):
            name = instruction.opname if instruction else ""
            if root and name in ("LOAD_ATTR", "LOAD_METHOD") and instruction:
                attributes.append(str(instruction.argval))
                continue
            if name in ("CACHE", "PUSH_NULL", "PRECALL", "NOP") and instruction:
                continue
            if root:
                chain: Chain = tuple(attributes)
                uses.chains.setdefault(root, set()).add(chain)
            root, attributes = "", []
            if name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF") and instruction:
                root = str(instruction.argval)
            elif name == "IMPORT_NAME" and instruction:
                # The importing code gets the module as a whole: what it takes from it is not followed.
                uses.imports.setdefault(Import(str(instruction.argval)), set()).add(())
    return uses
