"""The judge of the fingerprint: what it must see and what it must not, each side in a process of its own.

Both sides are also run: a pair that must differ has different results, one that must agree has equal ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pairs import language, same, values
from pairs.model import Pair, Side
from pairs.mutants import MUTANTS

pytestmark = pytest.mark.core
TESTS = Path(__file__).parent
ALL = [*language.PAIRS, *values.PAIRS, *same.PAIRS]


class Judge:
    """A fork server with a hash seed, and with a mutant of the fingerprint if one is named."""

    def __init__(self, seed: int, mutant: str = "") -> None:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "FINGERPRINT_MUTANT": mutant}
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "pairs" / "judge.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self, folder: Path, pair: Pair, side: Side) -> dict[str, Any]:
        for name, text in side.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        job = {"folder": str(folder), "files": list(side.files), "call": pair.call, "args": pair.args}
        job |= {"inputs": pair.inputs, "setup": side.setup, "env": side.env, "cwd": side.cwd}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "failed" not in found, found["traceback"]
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def judges() -> Iterator[tuple[Judge, Judge]]:
    both = Judge(1), Judge(2)
    yield both
    for judge in both:
        judge.close()


def is_right(pair: Pair, before: dict[str, Any], after: dict[str, Any]) -> bool:
    assert before["fingerprint"], before["error"]
    assert after["fingerprint"], after["error"]
    return (before["fingerprint"] == after["fingerprint"]) == (pair.expect == "agree")


@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_a_pair_is_judged_rightly(pair: Pair, judges: tuple[Judge, Judge], tmp_path: Path) -> None:
    before = judges[0](tmp_path / "before", pair, pair.before)
    after = judges[1](tmp_path / "and after", pair, pair.after)
    assert (before["value"] == after["value"]) == pair.values_agree, "the pair itself is wrong"
    assert is_right(pair, before, after), (before, after)


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_mutant_of_the_fingerprint_turns_at_least_three_pairs_red(mutant: str, tmp_path: Path) -> None:
    judge, red = Judge(3, mutant), []
    try:
        for i, pair in enumerate(language.PAIRS):
            before = judge(tmp_path / f"{i}" / "before", pair, pair.before)
            after = judge(tmp_path / f"{i}" / "after", pair, pair.after)
            if not is_right(pair, before, after):
                red.append(pair.name)
            if len(red) >= 3:
                break
    finally:
        judge.close()
    assert len(red) >= 3, red


def test_no_two_pairs_have_the_same_name() -> None:
    names = [pair.name for pair in ALL]
    assert len(set(names)) == len(names)
    assert len(names) >= 100
