"""What is in a sandbox of DIRAC: a tar archive, compressed with zstandard or not.

DiracX's own client unpacks it with an option that Python has since 3.11.4 only, and Debian 12 has 3.11.2.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

ZSTANDARD = b"\x28\xb5\x2f\xfd"


def files_of(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each plain file; what would lie outside of the folder, and links, are left out.

    Parameters
    ----------
    archive : bytes
        The sandbox, as it was downloaded.

    Examples
    --------
    >>> found = io.BytesIO()
    >>> with tarfile.open(fileobj=found, mode="w") as tar:
    ...     for name in ("std.out", "../outside"):
    ...         tar.addfile(tarfile.TarInfo(name))
    >>> list(files_of(found.getvalue()))
    [('std.out', b'')]
    """
    if archive.startswith(ZSTANDARD):
        import zstandard

        archive = zstandard.ZstdDecompressor().stream_reader(archive).read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isfile() and not path.is_absolute() and ".." not in path.parts:
                content = tar.extractfile(member)
                assert content is not None, "a plain file has content"
                yield member.name, content.read()
