"""What coffea's Runner hands to an executor, taken apart.

The Runner passes nested partials.  `parse` recognises the processing of a work item by the functions in them and by the
parameters these have in the coffea that is installed; anything else is a bare `Call`.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from coffea_dirac.fingerprint import digest_value
from coffea_dirac.inputs.identity import Reading

# Parameters of Runner._work_function that this package understands; another one could change results unseen.
_KNOWN = frozenset(
    "format xrootdtimeout schema use_dataframes savemetrics item processor_instance uproot_options iteritems_options "
    "checkpointer cache_function".split()
)
# Options of uproot.open that say how bytes travel, not which.
_TRANSPORT = frozenset(
    "timeout handler file_handler xrootd_handler http_handler s3_handler object_handler num_workers use_threads "
    "num_fallback_workers begin_chunk_size minimal_ttree_metadata max_num_elements num_bytes_cache".split()
)

_CREDENTIAL = re.compile("header|auth|token|cred|passw|secret|cookie|cert|ssl|key|user|client|storage", re.IGNORECASE)


def _determines(option: str) -> bool:
    """Whether an option of ``uproot.open`` can change what is read: neither how it travels nor who may read it does."""
    return option not in _TRANSPORT and not _CREDENTIAL.search(option)


@dataclass(frozen=True)
class Call:
    """One call of an executor: the function behind coffea's retry wrapper and how failures are to be treated.

    `skipbadfiles` is a tuple of exception types, empty for none.
    """

    function: Callable[[Any], Any]
    skipbadfiles: tuple[type[BaseException], ...] = ()
    use_result_type: bool = False


@dataclass(frozen=True)
class ProcessingCall(Call):
    """Processing of work items; `arguments` are those of ``Runner._work_function``, item and processor apart."""

    processor: Any = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def file_format(self) -> str:
        """``"root"`` or ``"parquet"``."""
        return str(self.arguments["format"])

    @property
    def uproot_options(self) -> dict[str, Any]:
        """Options of ``uproot.open``, the Runner's timeout among them."""
        options = dict(self.arguments.get("uproot_options") or {})
        options.setdefault("timeout", self.arguments.get("xrootdtimeout"))
        return options

    def options(self) -> dict[str, Any]:
        """Return the options that determine a result."""
        uproot_options = self.arguments.get("uproot_options") or {}
        return {
            "format": self.arguments["format"],
            # By their digests: the ingredients of a key are kept, and options may hold what nobody else should read.
            "uproot_options": {k: digest_value(v) for k, v in uproot_options.items() if _determines(k)},
            "iteritems_options": self.arguments.get("iteritems_options") or {},
        }


@dataclass(frozen=True)
class MetadataCall(Call):
    """Reading of file metadata: how, and whether the entries are asked for at which clusters begin."""

    how: Reading = field(default_factory=Reading)


def parse(function: Callable[[Any], Any]) -> Call:
    """Return what `function` is; a bare `Call` of it if it is not one the Runner makes.

    Examples
    --------
    >>> type(parse(len)).__name__
    'Call'
    """
    from coffea.processor import Runner

    if not isinstance(function, functools.partial) or function.func is not Runner.automatic_retries:
        return Call(function)
    arguments = inspect.signature(Runner.automatic_retries).bind(*function.args, **function.keywords).arguments
    skip = arguments["skipbadfiles"]
    skip = (OSError,) if skip is True else tuple(skip) if skip else ()
    inner, wants_result = arguments["func"], bool(function.keywords.get("use_result_type", False))
    if inner is Runner.metadata_fetcher_parquet:
        return MetadataCall(inner, skip, wants_result, Reading("parquet"))
    if not isinstance(inner, functools.partial):
        return Call(inner, skip, wants_result)
    if inner.func is Runner.metadata_fetcher_root:
        return _metadata_call(inner, skip, wants_result)
    if inner.func is not Runner._work_function:
        return Call(inner, skip, wants_result)
    signature = inspect.signature(Runner._work_function)
    if set(signature.parameters) - _KNOWN:
        return Call(inner, skip, wants_result)
    known = dict(signature.bind_partial(*inner.args, **inner.keywords).arguments)
    return ProcessingCall(inner, skip, wants_result, _unpack(known.pop("processor_instance")), known)


def _metadata_call(inner: functools.partial[Any], skip: tuple[type[BaseException], ...], wants_result: bool) -> Call:
    arguments = dict(inspect.signature(inner.func).bind_partial(*inner.args, **inner.keywords).arguments)
    if set(arguments) - {"xrootdtimeout", "align_clusters", "uproot_options"}:
        return Call(inner, skip, wants_result)
    options = {"timeout": arguments.get("xrootdtimeout"), **(arguments.get("uproot_options") or {})}
    return MetadataCall(inner, skip, wants_result, Reading("root", options, bool(arguments.get("align_clusters"))))


def _unpack(processor: Any) -> Any:
    """Return a private copy of the processor: what a worker will unpickle, so that both are fingerprinted alike."""
    import cloudpickle
    import lz4.frame

    if isinstance(processor, bytes):
        processor = cloudpickle.loads(lz4.frame.decompress(processor))
    # What cache.wrap() does for other executors, this one does itself.
    return processor.inner if hasattr(type(processor), "wraps_for_stages") else processor


def with_texts(items: Iterable[Any]) -> list[Any]:
    """Return work items whose file names are texts: coffea also takes paths as they are.

    Examples
    --------
    >>> from pathlib import Path
    >>> from coffea.processor.executor import WorkItem
    >>> with_texts([WorkItem("data", Path("a.root"), "Events", 0, 10, b"")])[0].filename
    'a.root'
    """
    return [i if isinstance(i.filename, str) else replace(i, filename=os.fspath(i.filename)) for i in items]


def added_metadata(schema: Any) -> dict[str, Any]:
    """Return what a schema of coffea adds to the metadata of events that it is given no version for."""
    parameter = inspect.signature(schema).parameters.get("version") if isinstance(schema, type) else None
    return {"version": parameter.default} if parameter is not None else {}


def item_metadata(item: Any) -> dict[str, Any]:
    """Return the metadata that coffea gives to ``process`` for a work item."""
    return {
        "dataset": item.dataset,
        "filename": item.filename,
        "treename": item.treename,
        "entrystart": item.entrystart,
        "entrystop": item.entrystop,
        "fileuuid": str(uuid.UUID(bytes=item.fileuuid)) if len(item.fileuuid) > 0 else "",
        # coffea gives them in an order that follows the hash seed.
        **{name: item.usermeta[name] for name in sorted(item.usermeta or (), key=str)},
    }
