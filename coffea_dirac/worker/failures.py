"""What went wrong at a worker: which errors may pass, where in the user's code they arose, how they travel."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Callable
from typing import Any

from coffea_dirac.errors import NoReplicaError, VerificationError, chain
from coffea_dirac.inputs.paths import package_roots

RETRY_PAUSE_S = 0.5
# Failures to open that another attempt cannot mend.
_FINAL_OS_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NoReplicaError)


def with_retries(step: Callable[[], Any], io_retries: int, reset: Callable[[], None] = lambda: None) -> Any:
    """Return what `step` returns, with further attempts, after a `reset`, after errors of reading that may pass."""
    for n in range(io_retries):
        try:
            return step()
        except Exception as error:
            if not is_io_error(error):
                raise
            reset()
            time.sleep(RETRY_PAUSE_S * 2**n)
    return step()


def attempt(
    shared: tuple[Callable[[Any], Any], int], position: int, item: Any
) -> tuple[int, Any, BaseException | None]:
    """Return (position, result, None), or (position, None, error) if the function of `shared` failed for `item`."""
    function, io_retries = shared
    try:
        return position, with_retries(lambda: function(item), io_retries), None
    except Exception as error:  # noqa: BLE001 - handed to the submitter, which raises it or skips the file
        return position, None, portable(error)


def innermost(error: BaseException) -> BaseException:
    """Return what started a chain of exceptions."""
    return chain(error)[-1]


def told(error: BaseException, *, inline: bool) -> BaseException:
    """Return the error of a work item as it goes to the submitter; what verifying found stands for itself."""
    found = next((link for link in chain(error) if isinstance(link, VerificationError)), error)
    return found if inline else portable(found)


def is_io_error(error: BaseException) -> bool:
    """Whether another attempt at reading could succeed."""
    links = chain(error)
    return any(isinstance(e, OSError) for e in links) and not any(isinstance(e, _FINAL_OS_ERRORS) for e in links)


def user_line(error: BaseException) -> str:
    """Return the last line of the user's own code in a traceback as ``file:line in function: text``, and its stage."""
    notes = (note for link in chain(error) for note in getattr(link, "__notes__", ()))
    stage = "".join(f", {note}" for note in notes if note.startswith("in stage "))
    for link in reversed(chain(error)):
        for frame in reversed(traceback.extract_tb(link.__traceback__)):
            if not os.path.realpath(frame.filename).startswith(package_roots()):
                return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}{stage}"
    return ""


def portable(error: BaseException) -> BaseException:
    """Return an exception that survives the way to the submitter, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    for link in chain(error):
        link.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, a moment old
    except Exception:  # noqa: BLE001 - any failure to pickle means the same
        plain = RuntimeError(f"{type(innermost(error)).__name__}: {innermost(error)}")
        plain.__notes__ = list(error.__notes__)
        return plain
    return error
