"""What holds for all tests."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import servers
from grids import grid as grid
from storage import keys, open_folder, other_site, rucio, s3, token, xrootd, xrootd_with_tokens  # noqa: F401 - fixtures

# A shell that starts a job in the background has it ignore Ctrl-C, and what it starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Doctests import every file, also on the stack that has not what these need; none of them has core tests.
_PACKAGES = {
    "dask_mode.py": "dask_awkward",
    "test_catalogs_rucio.py": "cryptography",
    "test_stores_failing.py": "cryptography",
}
collect_ignore = [name for name, package in _PACKAGES.items() if find_spec(package) is None]
_DOCTESTS = {
    "catalogs/rucio.py": "rucio",
    "grid/certificates.py": "cryptography",
    "grid/supervise_lake.py": "cryptography",
    "stores/s3.py": "s3fs",
    "stores/xrootd.py": "XRootD",
}


class _LeavesOut:
    """A plugin, since what a conftest ignores it ignores in its own folder only."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        package = _DOCTESTS.get("/".join(collection_path.parts[-2:]))
        return True if package and find_spec(package) is None else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_LeavesOut())


# -- tests that need a server: passed, failed or left out, by server


def _needed(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("needs"):
        yield from mark.args


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        # Properties travel with the reports, also from the processes of pytest-xdist.
        item.user_properties.extend(("server", name) for name in dict.fromkeys(_needed(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in _needed(item):
        if why := servers.why_missing(name):
            if servers.must_be_there():
                pytest.fail(f"no {name} server: {why}", pytrace=False)
            pytest.skip(f"no {name} server: {why}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, str] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name in [value for kind, value in getattr(report, "user_properties", ()) if kind == "server"]:
                counts[name][outcome] += 1
                if outcome == "skipped":
                    reasons[name] = str(report.longrepr[2]).removeprefix("Skipped: ")
    if counts:
        terminalreporter.section("servers")
    for name, count in sorted(counts.items()):
        told = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
        terminalreporter.line(f"{name}: {told}" + (f" ({reasons[name]})" if name in reasons else ""))
