"""What user code reads from outside while it runs: metadata keys and files.

A `Window` is open while a work item is processed.  Metadata reads come from `RecordingMetadata`, file opens from one
audit hook, installed at the first window and silent outside of them.  What a window saw is kept in the record and
checked at the next look-up (`Checker`), as a compiler cache's manifests are: same values, same contents, a hit.
"""

from __future__ import annotations

import hashlib
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coffea_dirac.context import let
from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import digest_value
from coffea_dirac.inputs.contents import ContentMemo
from coffea_dirac.interfaces import Discovered, Json

ABSENT = "absent"
_SYSTEM = ("/proc/", "/dev/", "/sys/")
# Readers of source code: what they open is the code itself (already in the fingerprint) or a message about it.
# And the reader of tokens, which say who reads and not what.
_CODE_READERS = frozenset(
    "importlib._bootstrap_external importlib._bootstrap linecache tokenize zipimport coffea_dirac.tokens".split()
)
_window: ContextVar[Window | None] = ContextVar("coffea_dirac_window", default=None)


class Window:
    """What one run of user code read and wrote.

    Parameters
    ----------
    ignored : iterable of str
        Files and directories whose opens do not count: the input file, the store.
    """

    def __init__(self, ignored: Iterable[str] = ()) -> None:
        self.ignored = tuple(os.path.realpath(p) for p in ignored)
        self.metadata: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.written: set[str] = set()
        self.unchecked: str = ""

    def leave_out(self, directories: Iterable[str]) -> None:
        """Forget what was read and written below some directories."""
        roots = tuple(os.path.realpath(directory) + "/" for directory in directories)
        self.written = {name for name in self.written if not os.path.realpath(name).startswith(roots)}
        self.files = {name: d for name, d in self.files.items() if not os.path.realpath(name).startswith(roots)}

    def inputs(self) -> tuple[Discovered, ...]:
        """Return everything seen, sorted."""
        files = [Discovered("file", name, digest) for name, digest in self.files.items() if name not in self.written]
        metadata = [Discovered("metadata", name, digest) for name, digest in self.metadata.items()]
        return tuple(sorted([*files, *metadata, *(Discovered("written", name, "") for name in self.written)]))


class RecordingMetadata(dict[str, Any]):
    """The metadata of a work item, noting in its window which keys are read; iterating counts as reading all."""

    def __init__(self, values: Mapping[str, Any], window: Window) -> None:
        super().__init__(values)
        self._window = window
        self._replaced: set[str] = set()

    @property
    def _at_hand(self) -> Window:
        """The window that is open here: inside a stage it is that of the stage."""
        return _window.get() or self._window

    def _note(self, key: Any) -> None:
        window = self._at_hand
        if isinstance(key, str) and key not in window.metadata and key not in self._replaced:
            try:
                window.metadata[key] = metadata_digest(self, key)
            except FingerprintError as error:
                window.unchecked = f"metadata[{key!r}] cannot be fingerprinted: {error}"

    def _note_all(self) -> None:
        for key in dict.keys(self):
            self._note(key)
        self._at_hand.metadata.setdefault("*", metadata_names(dict.keys(self)))

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._replaced.add(key)
        super().__setitem__(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self._note(key)
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._note_all()
        return super().popitem()

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._note_all()
        return super().__reversed__()

    def __len__(self) -> int:
        self._note_all()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._note_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def of_user(self, others: Collection[str]) -> dict[str, Any]:
        """Return all but the entries named, which are not read."""
        self._at_hand.metadata.setdefault("*", metadata_names(dict.keys(self)))
        return {key: self[key] for key in dict.keys(self) if key not in others}

    def __repr__(self) -> str:
        return repr(self.copy())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def copy(self) -> dict[str, Any]:
        self._note_all()
        return dict(dict.items(self))

    def keys(self) -> Any:
        self._note_all()
        return super().keys()

    def values(self) -> Any:
        self._note_all()
        return super().values()

    def items(self) -> Any:
        self._note_all()
        return super().items()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (self.copy(),)

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        import copy

        return copy.deepcopy(self.copy(), memo)


_MISSING = object()


def metadata_digest(values: dict[str, Any], key: str) -> str:
    """Return the digest of one metadata value, of the names of all for ``"*"``.

    Raises
    ------
    FingerprintError
        The value cannot be fingerprinted.
    """
    if key == "*":
        return metadata_names(dict.keys(values))
    value = dict.get(values, key, _MISSING)
    return ABSENT if value is _MISSING else digest_value(value)


def metadata_names(names: Iterable[str]) -> str:
    """Return the digest of a set of metadata names in their order."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()


class recording(let[Window | None]):  # noqa: N801 - read as a statement, as `let` is
    """Note in a window the files that are opened inside the ``with`` block, by this thread and by threads it starts."""

    __slots__ = ("_opened",)

    def __init__(self, window: Window) -> None:
        super().__init__(_window, window)
        self._opened = window

    def __enter__(self) -> None:
        super().__enter__()
        _hook.opened(self._opened)

    def __exit__(self, *_: object) -> None:
        _hook.closed(self._opened)
        super().__exit__()


def cannot_be_checked(why: str) -> None:
    """Say of what runs in the window at hand that its result depends on something that no later look can compare."""
    window = _window.get()
    if window is not None:
        window.unchecked = window.unchecked or why


def unrecorded() -> AbstractContextManager[None]:
    """Let what is opened inside the ``with`` block count for no window: it is this package that reads."""
    return let(_window, Window())


def made(path: str) -> None:
    """Let a file that was just written count as read: what is kept with it holds as long as it is there, unchanged."""
    if (window := _window.get()) is not None:
        window.files[path] = digest_path(path)


class _Hook:
    """The audit hook: there is one for the life of the process, since Python cannot take one away."""

    def __init__(self) -> None:
        self._installed = False
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Window, list[threading.Thread]]] = {}
        self._busy = threading.local()

    def opened(self, window: Window) -> None:
        threads = threading.enumerate()
        with self._lock:
            if not self._installed:
                sys.addaudithook(self)
                self._installed = True
            self._open[id(window)] = (window, threads)

    def closed(self, window: Window) -> None:
        with self._lock:
            self._open.pop(id(window), None)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._open or event not in _EVENTS or getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            for window in self._windows():
                _note_event(window, event, args)
        finally:
            self._busy.on = False

    def _windows(self) -> list[Window]:
        here = _window.get()
        if here is not None:
            return [here]
        # A thread that the user's code started has no window of its own: it counts for every open one that it is
        # younger than.
        me = threading.current_thread()
        return [window for window, threads in list(self._open.values()) if me not in threads and not _is_own_thread()]


_EVENTS = frozenset({"open", "os.listdir", "os.scandir"})
_hook = _Hook()


def _is_own_thread() -> bool:
    """Whether this thread belongs to dask or to a reader of the input, which open nothing on the user's behalf."""
    return threading.current_thread().name.startswith(("Dask-", "IO loop", "Profile", "TCP-Executor", "fsspec"))


def _note_event(window: Window, event: str, args: tuple[Any, ...]) -> None:
    name = args[0] if args else None
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str | os.PathLike) or _opened_by_import():
        return
    shown = os.fspath(name)
    if not isinstance(shown, str):
        return
    path = os.path.realpath(shown)
    if not counts(path, window.ignored):
        return
    if event == "open" and _is_write(args):
        window.written.add(shown)
        if _reads_too(args) and Path(path).exists():
            window.unchecked = window.unchecked or f"{shown} is opened for reading and writing at once"
    elif shown not in window.written and shown not in window.files:
        window.files[shown] = digest_path(path)


def _opened_by_import() -> bool:
    # Frames: this function, _note_event, _Hook.__call__, then whoever opened.
    frame: Any = sys._getframe(3)
    return frame is not None and frame.f_globals.get("__name__") in _CODE_READERS


def _is_write(args: tuple[Any, ...]) -> bool:
    mode, flags = (args[1] if len(args) > 1 else None), (args[2] if len(args) > 2 else 0)
    if isinstance(mode, str):
        return any(c in mode for c in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))


def _reads_too(args: tuple[Any, ...]) -> bool:
    mode, flags = (args[1] if len(args) > 1 else None), (args[2] if len(args) > 2 else 0)
    if isinstance(mode, str):
        return "r+" in mode or "+b" in mode.replace("w", "").replace("r", "")
    return bool(isinstance(flags, int) and flags & os.O_RDWR and not flags & os.O_TRUNC)


def counts(path: str, ignored: Iterable[str] = ()) -> bool:
    """Whether opening the real path `path` tells something about the user's inputs."""
    if path.startswith(_SYSTEM):
        return False
    return not any(path == p or path.startswith(p.rstrip("/") + "/") for p in (*ignored, *package_roots()))


def package_roots() -> tuple[str, ...]:
    """Return the directories of Python itself and of installed packages."""
    global _package_roots
    if not _package_roots:
        named = [sysconfig.get_path(k) for k in ("stdlib", "platstdlib", "purelib", "platlib")]
        named += [
            sys.prefix,
            sys.base_prefix,
            site.getusersitepackages(),
            *site.getsitepackages(),
            str(Path(__file__).parent.parent),
        ]
        # A prefix of / or /usr would swallow the user's own files: only real package directories count then.
        found = {os.path.realpath(p) for p in named if p}
        _package_roots = tuple(sorted(p for p in found if p.count("/") > 1 or p not in ("/", "/usr")))
    return _package_roots


_package_roots: tuple[str, ...] = ()
_contents = ContentMemo()


def digest_path(path: str) -> str:
    """Return the digest of what is at `path`: a file's content, a directory's names, or ``"absent"``."""
    try:
        if os.path.isdir(path):  # noqa: PTH112 - called inside the audit hook: as little Python as possible
            return metadata_names(sorted(os.listdir(path)))  # noqa: PTH208
        return _contents.digest(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:
        return f"unreadable: {type(error).__name__}"


def files_named(strings: Iterable[str], inputs: Collection[str] = ()) -> dict[str, str]:
    """Return the files that strings name, with the digest of their content; real paths in `inputs` do not count."""
    found = {}
    for name in sorted(strings):
        path = os.path.realpath(name) if name and "\0" not in name else ""
        if os.path.isfile(path) and path not in inputs and counts(path):  # noqa: PTH113 - many strings, few files
            found[name] = digest_path(path)
    return found


class Checker:
    """Checks discovered inputs against the present, reading each file once.

    Parameters
    ----------
    known : mapping
        Digests of files that were read a moment ago, by name.
    """

    def __init__(self, known: Mapping[str, str] = MappingProxyType({})) -> None:
        self._files = dict(known)

    def file(self, name: str) -> str:
        """Return the digest of what is at `name` now."""
        if name not in self._files:
            self._files[name] = digest_path(name)
        return self._files[name]

    def first_change(self, inputs: Iterable[Discovered], metadata: Callable[[str], str]) -> Mapping[str, Json] | None:
        """Return what changed first among `inputs` as a reason, or None if nothing did."""
        for kind, name, digest in inputs:
            if kind == "written":
                continue
            if (self.file(name) if kind == "file" else metadata(name)) != digest:
                return {"reason": "new content" if kind == "file" else "new metadata", "where": name}
        return None
