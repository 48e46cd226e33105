"""An issuer of tokens on the loopback interface: a thread that says who it is, and with which keys it signs."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coffea_dirac.grid.certificates import Pki


def start_issuer(keys: Pki) -> http.server.ThreadingHTTPServer:
    """Start an issuer of tokens: what it is, and its public keys."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = f"https://localhost:{port}"
            ends = ("authorization", "token", "introspection", "userinfo")
            facts = {
                "issuer": url,
                "jwks_uri": f"{url}/jwks",
                **{f"{end}_endpoint": f"{url}/{end}" for end in ends},
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            body = json.dumps(keys.jwks if self.path == "/jwks" else facts).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.host_cert, keys.host_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
