"""Tests that need a server say so, and what was left out is told with its reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = """
import pytest

@pytest.mark.needs("there")
def test_one(): pass

@pytest.mark.needs("there", "not_there")
def test_two(): pass

@pytest.mark.needs("there")
def test_three(): assert False

def test_four(): pass
"""


@pytest.mark.parametrize(("must", "processes"), [(True, "0"), (False, "2")])
def test_summary_names_each_server_and_what_was_left_out(tmp_path: Path, must: bool, processes: str) -> None:
    shutil.copy(HERE / "conftest.py", tmp_path)
    text = (HERE / "servers.py").read_text()
    text += "\nSERVERS.update(there=lambda: '', not_there=lambda: 'its port is taken')"
    (tmp_path / "servers.py").write_text(f"{text}\ndef must_be_there(): return {must}\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = . {HERE}\nmarkers =\n  needs: server\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", processes, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    if must:
        # One that cannot be set up is an error.
        assert "there: 1 passed, 1 failed, 1 error" in lines
        assert "not_there: 1 error" in lines
        assert "no not_there server: its port is taken" in done.stdout
    else:
        assert "there: 1 passed, 1 failed, 1 skipped (no not_there server: its port is taken)" in lines
        assert "not_there: 1 skipped (no not_there server: its port is taken)" in lines
