"""Every error of coffea_dirac, in one tree.

::

    CoffeaDiracError
    |- ConfigurationError       an option or a call cannot mean anything         -> the corrected call
    |- MissingPackageError      a package that this needs is missing or too old  -> what to install
    |- CredentialError          no proxy or token, expired, wrong group          -> the command to type
    |- JobServiceError          jobs or workers could not be had, or were lost   -> site, id, last words
    |  `- JobServiceUnreachableError   the service does not answer now; it may again
    |- CatalogError             a catalog cannot be asked                        -> server, the way without it
    |- NoReplicaError           no copy of an input file can be read             -> the option that widens the search
    |- InputError               an input file is not what the plan says          -> file, tree, what to correct
    |- ProcessingError          user code failed in a work item                  -> file, entries, the user's line
    |- StageError               a @stage function cannot be kept as it is called or written  -> what to write
    |- VerificationError        what is in the cache came out otherwise now      -> the stage and the usual causes
    |- CodeMismatchError        a worker has other code than the submitter       -> module and both digests
    |- StoreError               a store cannot be reached, read or written
    |  `- CorruptRecordError    what was read is not what was kept
    |- CodecError               a value that no codec can write                  -> path to the value
    |  `- PayloadError          bytes that no codec can read
    `- FingerprintError         a value that cannot be fingerprinted             -> path to the value

Siblings differ by what the caller can do.  The stage cache turns the last three branches into "computed, not kept"
and one warning; the others stop the run at once.
"""

from __future__ import annotations

from typing import Any


class CoffeaDiracError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigurationError(CoffeaDiracError, ValueError):
    """An option or a call that cannot mean anything; the message shows the corrected call."""


class MissingPackageError(CoffeaDiracError, ImportError):
    """A package that a name of this one needs is not installed, or too old; the message says what to install."""


class CredentialError(CoffeaDiracError):
    """No usable credential; the message names the command that makes one."""


class JobServiceError(CoffeaDiracError):
    """Jobs or workers could not be started, or were lost."""


class JobServiceUnreachableError(JobServiceError):
    """A job service does not answer, or answers that it cannot: what was asked may be asked again."""


class CatalogError(CoffeaDiracError):
    """A catalog of replicas cannot be asked."""


class NoReplicaError(CoffeaDiracError, OSError):
    """No replica of an input file can be read; an OSError, so that ``skipbadfiles=True`` may leave the file out."""


class InputError(CoffeaDiracError):
    """An input file is missing, unreadable, or not what the work items were planned for.

    One that stands for another error is of its type too (`like`): who catches FileNotFoundError finds it.
    """

    @classmethod
    def like(cls, error: BaseException, text: str) -> InputError:
        """Return the error with `text` that is also of the type of `error`, which becomes its cause.

        Examples
        --------
        >>> isinstance(InputError.like(FileNotFoundError("nano.root"), "no such file: nano.root"), FileNotFoundError)
        True
        """
        try:
            both: type[InputError] = type(cls.__name__, (cls, type(error)), {"__module__": cls.__module__})
            found = both.__new__(both, text)
            found.args = (text,)
        except TypeError:
            # Two types laid out in different ways have no common heir.
            found = cls(text)
        found.__cause__ = error
        return found

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return InputError, (str(self),)


class ProcessingError(CoffeaDiracError):
    """User code raised while a work item was processed; ``__cause__`` is the original error.

    With ``errors="collect"`` it is raised after all else is done, and ``partial_output`` is what that merges to.
    """

    partial_output: Any = None


class StageError(CoffeaDiracError, TypeError):
    """A ``@stage`` function is called or written so that its result cannot be kept; the message says what to write."""


class VerificationError(CoffeaDiracError):
    """A result was computed again, as ``StageCache(verify=...)`` asks for, and is not what the cache has."""


class CodeMismatchError(CoffeaDiracError):
    """A worker unpickled other code than the submitter fingerprinted."""


class StoreError(CoffeaDiracError):
    """A store cannot be reached, read or written."""


class CorruptRecordError(StoreError):
    """Bytes read from a store fail their check: magic, key, digest, length or signature."""


class CodecError(CoffeaDiracError):
    """A value cannot be written by any codec.

    Parameters
    ----------
    path : str
        Where in the result the value sits, for example ``result["cutflow"]["4j2b"]``.
    type_name : str
        The value's type.
    """

    def __init__(self, path: str, type_name: str, hint: str = "") -> None:
        self.path = path
        self.type_name = type_name
        self.hint = hint
        super().__init__(
            f"{path} is a {type_name}, which no codec can write"
            + (f": {hint}" if hint else f"; write register_codec({type_name.rsplit('.', 1)[-1]}, dump, load)")
        )

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.path, self.type_name, self.hint)


class PayloadError(CodecError):
    """A payload cannot be read: it is damaged, of another version, or of a type that is not registered here."""

    def __init__(self, why: str) -> None:
        self.path = self.type_name = self.hint = ""
        self.why = why
        Exception.__init__(self, f"a payload cannot be read: {why}")

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.why,)


class FingerprintError(CoffeaDiracError):
    """A value cannot be fingerprinted.

    Parameters
    ----------
    path : str
        How the value is reached, for example ``process -> select -> global 'RNG'``.
    why : str
        Why it has no fingerprint, and what to write instead.
    """

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.why)


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and all it came from, outermost first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found
