"""A server in front of another one, which answers in its place what a test asks for."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy(ThreadingHTTPServer):
    """Forwards requests, unless `fault` gives a status to answer with: (method, path, number of such requests) -> status."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.fault: Callable[[str, str, int], int] = lambda *_: 0
        self.after = False
        """Whether the fault comes after the request was forwarded: it is done, and the answer gets lost."""
        self.seen: dict[tuple[str, str], int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        key = (self.command, path)
        self.server.seen[key] = self.server.seen.get(key, 0) + 1
        status = self.server.fault(self.command, path, self.server.seen[key])
        answer, kind = b'{"detail": "a fault for the test"}', "application/json"
        if not status or self.server.after:
            connection = http.client.HTTPConnection(
                self.server.target.hostname or "", self.server.target.port, timeout=60
            )
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            real = connection.getresponse()
            content = real.read()
            if not status:
                status, answer, kind = real.status, content, real.headers.get("Content-Type", kind)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_one


@contextmanager
def in_front_of(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(10)
