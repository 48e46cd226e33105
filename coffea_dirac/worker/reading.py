"""One open file for a whole bundle: our own form of ``Runner._work_function`` for the layout we know.

coffea opens the file anew for each work item, which for many small items costs as much as the work.  `Reader` opens
it once and hands the same events to the processor; a layout it does not know goes to coffea's function, item by item.

The forms of a tree's branches are the same for all its entries, and coffea takes as long to ask a thousand branches for
them as for all else before ``process``.  So they are asked once per open file.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from coffea_dirac.calls import ProcessingCall
from coffea_dirac.redact import without_secrets


class ReadError(RuntimeError):
    """The events of a work item cannot be had; of the type that coffea raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions that travel lose what they came from, and that is what the submitter has to tell.
        return _from_elsewhere, (self.args, self.__cause__), self.__dict__


def _from_elsewhere(arguments: tuple[Any, ...], cause: BaseException | None) -> ReadError:
    found = ReadError(*arguments)
    found.__cause__ = cause
    return found


class Opened(NamedTuple):
    """The events of a work item, which columns of them have been read so far, and how many bytes for that."""

    events: Any
    columns: Callable[[], set[str]]
    bytes_read: Callable[[], int]


class Reader:
    """Opens the work items of one file, opening the file at the first.

    Parameters
    ----------
    call : ProcessingCall
        Format, schema and reader options.
    """

    def __init__(self, call: ProcessingCall) -> None:
        self._call = call
        self._file: Any = None
        self._name = ""
        self._forms: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next work item opens it again."""
        file, self._file, self._name = self._file, None, ""
        self._forms.clear()
        if file is not None:
            file.close()

    def open(self, item: Any, metadata: dict[str, Any]) -> Opened:
        """Return the events of one work item.

        Parameters
        ----------
        metadata : dict
            What ``process`` finds as ``events.metadata``.

        Raises
        ------
        ReadError
            "Failed to open file" or "Failed creating nanoevents", as coffea says it, from the original error.
        """
        file = self._opened(item)
        before: int = file.file.source.num_requested_bytes
        columns: list[Any] = []
        try:
            events = self._events(file, item, metadata, columns)
        except Exception as error:
            raise ReadError(failed("Failed creating nanoevents", item, error)) from error
        return Opened(events, _Columns(columns).names, lambda: int(file.file.source.num_requested_bytes - before))

    def _opened(self, item: Any) -> Any:
        import uproot

        if self._name != item.filename:
            self.close()
            try:
                self._file = uproot.open({item.filename: None}, **self._call.uproot_options)
            except Exception as error:
                raise ReadError(failed("Failed to open file", item, error)) from error
            self._name = item.filename
        return self._file

    def _events(self, file: Any, item: Any, metadata: dict[str, Any], columns: list[Any]) -> Any:
        from coffea.nanoevents import NanoEventsFactory

        arguments = self._call.arguments
        schema, options = self._forms_once(arguments["schema"], arguments.get("iteritems_options") or {}, item.treename)
        return NanoEventsFactory.from_root(
            file=file,
            treepath=item.treename,
            schemaclass=schema,
            metadata=metadata,
            access_log=columns,
            mode="virtual",
            entry_start=item.entrystart,
            entry_stop=item.entrystop,
            iteritems_options=options,
            **({"preload": item.preload} if getattr(item, "preload", None) is not None else {}),
            buffer_cache=arguments["cache_function"](),
        ).events()

    def _forms_once(self, schema: Any, options: dict[str, Any], treename: str) -> tuple[Any, dict[str, Any]]:
        """Return what to give as schema, and as options, so that branches are asked for their forms only once.

        The first time they are noted as the schema gets them; later coffea is told to look at no branch, and the schema
        gets a copy of what was noted.
        """
        from coffea.nanoevents.schemas import BaseSchema, NanoAODSchema

        if not (issubclass(schema, NanoAODSchema) or schema is BaseSchema):
            return schema, options
        noted = self._forms.get(treename)

        def from_noted(form: dict[str, Any]) -> Any:
            if noted is None:
                self._forms[treename] = pickle.dumps((form["fields"], form["contents"]))
            else:
                # Schemas change what they get.
                form["fields"], form["contents"] = pickle.loads(noted)  # noqa: S301 - our own, of a moment ago
            return schema(form)

        return from_noted, options if noted is None else {"filter_name": _nothing}


def _nothing(_name: str) -> bool:
    return False


def checked(item: Any, process: Callable[[], Any]) -> Any:
    """Return what `process` returns; errors as coffea says them."""
    try:
        out = process()
    except ReadError:
        raise
    except Exception as error:
        raise RuntimeError(failed("Failed processing file", item, error)) from error
    if out is None:
        raise ValueError(
            "process() returned None: it must return what shall be merged, for example a dict of histograms"
        )
    return out


def failed(what: str, item: Any, error: BaseException) -> str:
    """Return what coffea's own function would say, without the secrets of a URL."""
    return without_secrets(f"{what}: {item!r}. The error was: {error!r}.")


def is_known(call: ProcessingCall) -> bool:
    """Whether `Reader` can take the place of coffea's own function for this call."""
    from coffea.nanoevents.schemas import BaseSchema

    schema = call.arguments.get("schema")
    return (
        call.file_format == "root"
        and isinstance(schema, type)
        and issubclass(schema, BaseSchema)
        and call.arguments.get("checkpointer") is None
        and callable(call.arguments.get("cache_function"))
    )


class _Columns:
    """The names in an access log that only grows; it is asked after every stage."""

    def __init__(self, log: list[Any]) -> None:
        self._log, self._n_seen, self._names = log, 0, set[str]()

    def names(self) -> set[str]:
        from coffea.nanoevents.util import key_to_tuple

        new = self._log[self._n_seen :]
        self._n_seen += len(new)
        self._names.update(f"{c.branch}-{key_to_tuple(c.buffer_key)[3]}" for c in new)
        return set(self._names)
