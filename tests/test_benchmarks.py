"""The benchmark programs run and compare what they say they compare; how fast anything is, is not tested here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import PROGRAMS
from benchmarks.pairs import Line, Point, Range, Spent, cpu_s, ratios, take_turns

ROOT = Path(__file__).parent.parent


NEEDS = {"grid": ["diracx"], "lake": ["rucio", "xrootd"]}


@pytest.mark.parametrize(
    "program", [pytest.param(name, marks=[pytest.mark.needs(one) for one in NEEDS.get(name, [])]) for name in PROGRAMS]
)
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

    points = [Point("DiracExecutor, cold", 200, 2.0), Point("DiracExecutor, cold", 2000, 20.0)]
    line = Line("a", "1 s", "2 s", "ratio 0.5", "at most 1", True, points)
    monkeypatch.setattr(program, "PROGRAMS", {"one": lambda **_: [line]})
    monkeypatch.setattr(program, "TINY", {"one": {}})
    monkeypatch.setattr(program, "PAGE", tmp_path / "page.md")
    program.main(["--tiny"])
    assert not (tmp_path / "page.md").exists()
    program.main([])
    assert "| a | 1 s | 2 s | ratio 0.5 | at most 1 | met |" in (tmp_path / "page.md").read_text()
    assert ">DiracExecutor, cold<" in (tmp_path / "page.svg").read_text()


def test_a_run_of_one_program_renews_its_section_and_leaves_the_others(monkeypatch, tmp_path):
    import benchmarks.__main__ as program

    def lines(what):
        return lambda **_: [Line(what, "1 s", "-", "-", "-", True)]

    page = tmp_path / "page.md"
    monkeypatch.setattr(program, "PAGE", page)
    monkeypatch.setattr(program, "PROGRAMS", {"one": lines("old one"), "two": lines("old two")})
    program.main([])
    picture = (tmp_path / "page.svg").read_bytes()
    before = page.read_text()
    monkeypatch.setattr(program, "PROGRAMS", {"one": lines("old one"), "two": lines("new two")})
    program.main(["two"])
    after = page.read_text()
    assert (before.count("old two"), after.count("old two"), after.count("new two")) == (1, 0, 1)
    assert after.partition("## two")[0] == before.partition("## two")[0]
    assert (tmp_path / "page.svg").read_bytes() == picture


def test_measurements_take_turns_after_a_first_round_that_does_not_count():
    called = []
    values = iter([100.0, 100.0, 2.0, 4.0, 3.0, 3.0, 1.0, 4.0])

    def measured(name):
        called.append(name)
        return Spent(next(values))

    found = take_turns({name: lambda name=name: measured(name) for name in "ab"}, rounds=3)
    assert called == ["a", "b"] * 4
    assert [[s.wall_s for s in found[name]] for name in "ab"] == [[2.0, 3.0, 1.0], [4.0, 3.0, 4.0]]
    assert ratios(found["a"], found["b"]) == Range(0.25, 0.5, 1.0)


def test_processor_time_counts_processes_that_have_ended():
    before = cpu_s()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True, timeout=120)
    assert cpu_s() - before > 0.1
