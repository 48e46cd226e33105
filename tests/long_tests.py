"""Run the long tests of one stack, and write what came of them into docs/reference/long-tests.md.

Usage: ``python tests/long_tests.py A "long" [what pytest takes]``.  Rows of tests that are not run stay as they are.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "long-tests.md"
HEAD = """# Long tests

<!-- Written by `make test-long`; do not edit. -->

`make test-long` runs what takes too long for each change: the model of the executor at length, sessions that share a
cache and are killed, a grid in a box whose parts are killed, large results, coffea's own tests, the ttbar analysis edited
and against its original. What came of each test when it was run last; seconds are those of a machine that had other work
too.
"""

DRILLS = PAGE.with_name("lake-drills.md")
DRILLS_HEAD = """# Drills of the data lake

<!-- Written by `make test-long`; do not edit. -->

What comes of an analysis that reads a logical file when something happens to the nearest replica, its site, Rucio or the token: before
it starts, or after its worker has opened the file and read from it. Two real XRootD servers are the sites, of which one is near; Rucio is a real
server. Work is done in the process that asks for it, or at a worker where the table says so. Seconds are those of the
whole run, which takes about one when nothing happens, and a few more with workers; what is said is the report's note or the error.

| what | when | outcome | said | s |
|---|---|---|---|---:|"""


class Row(NamedTuple):
    """What came of a test: passed, or how not, with the reason."""

    test: str
    result: str
    seconds: float
    date: str

    def __str__(self) -> str:
        return f"| `{self.test}` | {self.result} | {self.seconds:.0f} | {self.date} |"


def rows(report: ET.Element, date: str) -> list[Row]:
    """Return the rows of a report as pytest writes it for CI systems.

    Examples
    --------
    >>> text = '<testsuite><testcase classname="tests.test_drills" name="test_a[0]" time="61.2"/></testsuite>'
    >>> print(*rows(ET.fromstring(text), "2026-11-26"))
    | `test_drills::test_a[0]` | passed | 61 | 2026-11-26 |
    """
    found = []
    for case in report.iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        result = "passed" if bad is None else f"{bad.tag}: {_one_line(bad.get('message', ''))}"
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        found.append(Row(name, result, float(case.get("time", 0)), date))
    return found


def drill_rows(report: ET.Element) -> list[str]:
    """Return the rows of the page of drills, from what tests have written down.

    Examples
    --------
    >>> text = "<a><property name='drill' value='[&quot;site down&quot;, &quot;later&quot;, &quot;ok&quot;, &quot;&quot;, 1.5]'/></a>"
    >>> drill_rows(ET.fromstring(text))
    ['| site down | later | ok |  | 1.5 |']
    """
    found = []
    for drill in (p for p in report.iter("property") if p.get("name") == "drill"):
        cells = [re.sub(r"[|\s]+", " ", str(cell)) for cell in json.loads(drill.get("value", ""))]
        cells[3] = cells[3].partition(" To run it again")[0]
        cells[3] = re.sub(r"/tmp/\S*/|(?<=localhost:)\d+|(?<=port=)\d+", "", cells[3])
        found.append("| " + " | ".join(cells) + " |")
    return found


def _one_line(text: str) -> str:
    return re.sub(r"[|`\s]+", " ", text).strip()[:200]


def page(old: str, stack: str, title: str, new: list[Row]) -> str:
    """Return the page with new rows in the section of a stack.

    Examples
    --------
    >>> first = page("", "A", "coffea 1", [Row("test_x::a", "passed", 1.0, "monday")])
    >>> print(page(first, "A", "coffea 2", [Row("test_x::b", "passed", 2.0, "tuesday")]).partition("## ")[2].rstrip())
    Stack A: coffea 2
    <BLANKLINE>
    | test | result | s | run on |
    |---|---|---:|---|
    | `test_x::a` | passed | 1 | monday |
    | `test_x::b` | passed | 2 | tuesday |
    """
    sections = {part[: len("Stack A")]: part for part in old.split("\n## ")[1:]}
    name = f"Stack {stack}"
    kept = dict(re.findall(r"^(\| `(?!test \|)[^`]+`) (\|.*)$", sections.get(name, ""), re.MULTILINE))
    for row in new:
        kept.update([re.findall(r"^(\| `[^`]+`) (\|.*)$", str(row))[0]])
    lines = [f"{name}: {title}", "", "| test | result | s | run on |", "|---|---|---:|---|"]
    sections[name] = "\n".join([*lines, *(f"{test} {rest}" for test, rest in sorted(kept.items()))]) + "\n"
    return "\n## ".join([HEAD, *(sections[name].rstrip() + "\n" for name in sorted(sections))])


def main(stack: str, marker: str, *more: str) -> int:
    """Run the tests, write the page and return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", marker, f"--junitxml={report}", *more]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        found = rows(ET.parse(report).getroot(), time.strftime("%Y-%m-%d"))
        drills = drill_rows(ET.parse(report).getroot())
        if drills:
            DRILLS.write_text(f"{DRILLS_HEAD}\n" + "\n".join(drills) + "\n")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("coffea", "dask"))
    title = f"{versions}, Python {sys.version.split()[0]}, {os.cpu_count()} cores"
    PAGE.write_text(page(PAGE.read_text() if PAGE.exists() else "", stack, title, found))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
