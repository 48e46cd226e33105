"""Edits that must be seen and edits that must not: each side in its own process with its own hash seed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fingerprint_cases.agree import AGREE
from fingerprint_cases.differ import DIFFER
from fingerprint_cases.refused import REFUSED

CHILD = Path(__file__).parent / "fingerprint_cases" / "child.py"


def digests(folder: Path, cases: dict[str, dict[str, str]], seed: str, *flags: str) -> dict[str, str]:
    """Write the cases below `folder` and return their digests from a process of their own."""
    for name, files in cases.items():
        for file, text in files.items():
            path = folder / name.replace(" ", "_") / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *flags, str(CHILD), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sides(cases: dict) -> tuple[dict, dict]:
    """Return the files before and after the edits of all cases."""
    before = {name: as_files(one) for name, (one, _) in cases.items()}
    return before, {name: {**as_files(cases[name][0]), **as_files(two)} for name, (_, two) in cases.items()}


def as_files(side: object) -> dict[str, str]:
    """Return the files of a side; a bare text is ``worker/work.py``."""
    return dict(side) if isinstance(side, dict) else {"work.py": str(side)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of all cases before and after."""
    one, two = sides({**DIFFER, **AGREE})
    return digests(tmp_path_factory.mktemp("one"), one, "1"), digests(tmp_path_factory.mktemp("two") / "x", two, "2")


@pytest.mark.parametrize("name", sorted(DIFFER))
def test_an_edit_that_can_change_the_result_is_seen(name: str, both: tuple[dict[str, str], dict[str, str]]) -> None:
    before, after = (side[name.replace(" ", "_")] for side in both)
    assert not before.startswith("refused"), before
    assert not after.startswith("refused"), after
    assert before != after


@pytest.mark.parametrize("name", sorted(AGREE))
def test_an_edit_that_cannot_change_the_result_is_not_seen(
    name: str, both: tuple[dict[str, str], dict[str, str]]
) -> None:
    before, after = (side[name.replace(" ", "_")] for side in both)
    assert not before.startswith("refused"), before
    assert before == after


def test_the_same_files_have_the_same_digests_in_another_folder_process_and_under_o(
    tmp_path: Path, both: tuple[dict[str, str], dict[str, str]]
) -> None:
    again = digests(tmp_path, sides({**DIFFER, **AGREE})[0], "77", "-O")
    assert {n for n in again if again[n] != both[0][n]} == set()


def test_what_has_no_fingerprint_is_refused_with_the_path_to_it(tmp_path: Path) -> None:
    found = digests(tmp_path, {name: as_files(source) for name, (source, _) in REFUSED.items()}, "1")
    for name, (_, words) in REFUSED.items():
        message = found[name.replace(" ", "_")]
        assert message.startswith("refused"), (name, message)
        assert all(word in message for word in words), (name, message)
