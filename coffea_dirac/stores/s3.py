"""How an S3 service does the four verbs.  The only file that imports s3fs.

Where the service is and who asks is read as everywhere: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``~/.aws/``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import s3fs
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from coffea_dirac.errors import StoreError
from coffea_dirac.interfaces import Blob
from coffea_dirac.stores.remote import DEADLINE_S, PassingError, duration_s

_AT_ONCE = 16
_MISSING = ("NoSuchKey", "NoSuchBucket", "404", "NotFound")
_TAKEN = ("PreconditionFailed", "412")
_REFUSED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


@functools.cache
def _system() -> Any:
    """Return the client of this process, which takes a second to make."""
    timeouts = {"connect_timeout": DEADLINE_S / 2, "read_timeout": DEADLINE_S, "max_pool_connections": _AT_ONCE}
    # What is tried again, and how often, is decided in one place.
    return s3fs.S3FileSystem(config_kwargs={**timeouts, "retries": {"total_max_attempts": 1}}, skip_instance_cache=True)


class S3Wire:
    """Objects below a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._system = _system()

    def list(self, prefix: str) -> Iterator[Blob]:
        """Yield the blobs whose name starts with `prefix`, a thousand in one request."""
        more: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self._prefix + prefix, **more)
            for found in (page or {}).get("Contents", ()):
                yield Blob(found["Key"][len(self._prefix) :], found["Size"], found["LastModified"].timestamp())
            if not page or not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, name: str, start: int, stop: int | None) -> bytes | None:
        """Return a slice of an object."""
        if stop is not None and (start < 0) == (stop < 0) and stop <= start:
            return b"" if self._call("head_object", Key=self._prefix + name) is not None else None
        if (start < 0 and stop is not None) or (stop is not None and stop < 0):
            whole = self.read(name, 0, None)
            return None if whole is None else whole[start:stop]
        until = "" if stop is None else str(stop - 1)
        span = (
            {} if (start, stop) == (0, None) else {"Range": f"bytes={start}" if start < 0 else f"bytes={start}-{until}"}
        )
        size = 0 if stop is None else stop - start
        found = self._call("get_object", size, Key=self._prefix + name, **span)
        return None if found is None else bytes(found["data"])

    def create(self, name: str, data: bytes) -> None:
        """Write an object; where the service knows conditions, none is written over another."""
        self._call("put_object", len(data), Key=self._prefix + name, Body=data, IfNoneMatch="*")

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._call("delete_object", Key=self._prefix + name)

    def _call(self, method: str, size: int = 0, **arguments: Any) -> Any:
        """Return what the service answers, None if there is nothing of that name."""

        async def call() -> Any:
            await self._system.set_session()
            answer = await getattr(self._system.s3, method)(Bucket=self._bucket, **arguments)
            if method == "get_object":
                async with answer["Body"] as body:
                    answer["data"] = await body.read()
            return answer

        try:
            return sync(self._system.loop, call, timeout=2 * duration_s(min(size, 1 << 30)))
        except Exception as error:  # noqa: BLE001 - what is not understood is raised again
            return _understood(error, method)


def _understood(error: Exception, method: str) -> Any:
    """Return None for a missing object and empty bytes for a range behind its end; raise anything else, explained."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if code in _MISSING and method != "put_object":
            return None
        if code == "InvalidRange" or status == 416:
            return {"data": b""}
        if code in _TAKEN:
            raise FileExistsError(code) from error
        text = f"{code}: {said.get('Message', '')}".rstrip(".: ")
        if status in (409, 429) or status >= 500 or code == "SlowDown":
            raise PassingError(text, _seconds(headers.get("retry-after"))) from error
        hint = (
            "Look at AWS_ACCESS_KEY_ID, AWS_PROFILE and ~/.aws/credentials"
            if code in _REFUSED
            else "Make the bucket first"
        )
        raise StoreError(f"{text}. {hint}." if code in (*_REFUSED, *_MISSING) else f"{text}.") from error
    if isinstance(error, NoCredentialsError):
        raise StoreError(f"{error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.") from error
    if isinstance(error, BotoCoreError | OSError | FSTimeoutError | TimeoutError):
        raise PassingError(str(error) or type(error).__name__) from error
    raise error


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
