"""A real S3 service on loopback: moto's server in a process of its own."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from pathlib import Path

from servers import ROOT

from coffea_dirac.grid.server import free_port

_REQUEST = re.compile(r'"(?:GET|PUT|POST|HEAD|DELETE) /')


class S3Server:
    """One service with the bucket ``bucket``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "moto.log"
        self.url = "s3://bucket/store"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What clients need in their environment."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "jdoe",
            "AWS_SECRET_ACCESS_KEY": "secret-of-jdoe",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def version(self) -> str:
        return urllib.request.urlopen(self.environment["AWS_ENDPOINT_URL"], timeout=10).headers["Server"]

    def n_requests(self) -> int:
        """Return how many requests the service has logged."""
        return len(_REQUEST.findall(self.log.read_text(errors="replace")))

    def start(self, deadline_s: float = 60) -> S3Server:
        command = [
            ROOT / ".venv-diracx" / "bin" / "python",
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + deadline_s
        bucket = urllib.request.Request(f"http://127.0.0.1:{self.port}/bucket", method="PUT")
        while True:
            try:
                urllib.request.urlopen(bucket, timeout=5).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"moto does not start:\n{self.log.read_text()[-3000:]}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
