"""The benchmark programs run and compare what they say they compare; how fast anything is, is not tested here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pairs import Line, Pairs, interleave

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("program", ["cold", "fingerprint", "startup"])
def test_benchmark_runs_at_tiny_size_and_writes_its_table(program, tmp_path):
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", program, "--tiny", "--page", str(page)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.count("\n| ") >= 2, text
    assert "Machine:" in text
    assert "coffea 20" in text


def test_a_tiny_run_never_writes_the_page_of_the_documentation(monkeypatch, tmp_path):
    import benchmarks.__main__ as program

    line = Line("a", "1 s", "2 s", "ratio 0.5", "at most 1", holds=True)
    monkeypatch.setattr(program, "PROGRAMS", {"one": lambda **_: [line]})
    monkeypatch.setattr(program, "TINY", {"one": {}})
    monkeypatch.setattr(program, "PAGE", tmp_path / "page.md")
    program.main(["--tiny"])
    assert not (tmp_path / "page.md").exists()
    program.main([])
    assert "| a | 1 s | 2 s | ratio 0.5 | at most 1 | met |" in (tmp_path / "page.md").read_text()


def test_measurements_alternate_after_a_first_pair_that_does_not_count():
    called = []
    values = iter([100.0, 100.0, 2.0, 4.0, 3.0, 3.0, 1.0, 4.0])

    def measured(name):
        called.append(name)
        return next(values)

    pairs = interleave(lambda: measured("a"), lambda: measured("b"), pairs=3)
    assert called == ["a", "b"] * 4
    assert pairs == Pairs((2.0, 3.0, 1.0), (4.0, 3.0, 4.0))
    assert pairs.ratio == 0.5
    assert pairs.difference_s == -2.0
