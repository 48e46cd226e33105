"""``coffea-dirac doctor --site``: one short job tells what is there, and what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grids import NOWHERE, SITE_A
from scenario import write_nano

pytestmark = pytest.mark.needs("diracx")


def doctor(grid: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DIRACX_URL": grid["diracx"], "DIRACX_CREDENTIALS_PATH": grid["token_file"]}
    command = [sys.executable, "-m", "coffea_dirac", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)


def test_site_is_told_with_what_a_job_reads_and_writes_there(grid: dict[str, Any], tmp_path: Path) -> None:
    file = write_nano(tmp_path / "nano.root", events=10)
    done = doctor(grid, str(tmp_path / "cache"), "--site", SITE_A, "--file", str(file), "--json")
    assert done.returncode == 0, done.stderr
    checks = {row["check"]: row for row in json.loads(done.stdout)}
    assert list(checks) == ["node", "versions", "import", "read a file", "write a record"]
    assert checks["node"]["found"].startswith(SITE_A)
    assert checks["versions"]["found"] == "as at the submitter"
    assert checks["read a file"]["found"].endswith("objects")
    assert {row["problem"] for row in checks.values()} == {""}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_wrong_at_a_site_is_one_line_each(grid: dict[str, Any], tmp_path: Path) -> None:
    done = doctor(grid, "/proc/no-place", "--site", SITE_A, "--file", str(tmp_path / "none.root"), "--json")
    assert done.returncode == 1
    problems = {row["check"]: row["problem"] for row in json.loads(done.stdout)}
    assert "none.root" in problems["read a file"]
    assert "/proc/no-place" in problems["write a record"]
    assert not problems["import"]


def test_job_that_never_starts_is_an_error_with_the_words_of_dirac(grid: dict[str, Any]) -> None:
    done = doctor(grid, "--site", NOWHERE, "--timeout", "4")
    assert done.returncode == 2
    assert "did not end within 4 s" in done.stderr
    assert "Waiting, Pilot Agent Submission" in done.stderr
