"""A WebDAV server on loopback that fails as told: overloaded, deaf, or in the middle of an answer."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Faults:
    """What the server does with the next requests, and what it has seen."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.answers: list[tuple[int, dict[str, str]]] = []
        """Status and headers of the next answers, before it begins to work."""
        self.lost: list[str] = []
        """Verbs whose next request is done, but never answered."""
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.port = 0


@contextmanager
def faulty_server() -> Iterator[Faults]:
    faults = Faults()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            if self.command in faults.lost:
                faults.lost.remove(self.command)
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def _found(self) -> list[str]:
            folder = f"{self.path.rstrip('/')}/"
            return [name for name in faults.blobs if name == self.path or name.rpartition("/")[0] + "/" == folder]

        def do(self) -> None:
            faults.seen.append((self.command, self.path, dict(self.headers)))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if faults.answers:
                status, headers = faults.answers.pop(0)
                self._answer(status, **headers)
            elif self.command == "PUT":
                faults.blobs[self.path] = body
                self._answer(201)
            elif self.command == "DELETE":
                self._answer(204 if faults.blobs.pop(self.path, None) is not None else 404)
            elif self.command == "PROPFIND" and (found := self._found()):
                listed = "".join(_PROPERTIES.format(name, len(faults.blobs[name])) for name in found)
                self._answer(207, f'<D:multistatus xmlns:D="DAV:">{listed}</D:multistatus>'.encode())
            elif self.path not in faults.blobs:
                self._answer(404)
            else:
                # As many small servers: whatever the range, all of it.
                self._answer(200, faults.blobs[self.path])

        do_PUT = do_GET = do_DELETE = do_PROPFIND = do

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    faults.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


_PROPERTIES = (
    "<D:response><D:href>{}</D:href><D:propstat><D:prop><D:resourcetype/>"
    "<D:getcontentlength>{}</D:getcontentlength></D:prop></D:propstat></D:response>"
)
