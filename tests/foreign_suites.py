"""Other projects' own tests, run in processes of their own: as they are, and with a plug-in of `tests/foreign`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
Outcomes = dict[str, str]


def source_of(package: str, version: str) -> Path:
    """Return the folder of a source distribution, from the package index if it is not here yet."""
    folder = ROOT / ".foreign"
    unpacked = folder / f"{package}-{version}"
    if not unpacked.exists():
        folder.mkdir(exist_ok=True)
        subprocess.run(
            f"{sys.executable} -m pip download --quiet --no-deps --no-binary :all: {package}=={version}".split(),
            cwd=folder,
            check=True,
            timeout=600,
        )
        with tarfile.open(folder / f"{package}-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked


def outcomes(
    folder: Path,
    files: Sequence[str],
    report: Path,
    *,
    plugin: str | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    python: str = sys.executable,
) -> Outcomes:
    """Run the tests of `files` in `folder` in a process of their own and return what came of each case."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *options]
    command += [*(["-p", plugin] if plugin else []), *files]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "foreign"), **(env or {})}
    log = report.with_suffix(".log")
    with log.open("wb") as out:
        subprocess.run(command, cwd=folder, env=environment, timeout=2400, check=False, stdout=out, stderr=out)
    if not report.exists():
        raise AssertionError(f"{' '.join(command)}: no report; its output ends with\n{log.read_text()[-3000:]}")
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds.pop() if kinds else "passed"
    return found


def is_excluded(case: str, excluded: Collection[str]) -> bool:
    """Whether a case is one of the excluded ones, which are named by a part of their name."""
    return any(name in case for name in excluded)


def lost(plain: Outcomes, excluded: Collection[str], *others: Outcomes) -> list[str]:
    """Return the cases that pass as they are and not in one of the other runs, the excluded ones left out."""
    expected = sorted(
        case for case, outcome in plain.items() if outcome == "passed" and not is_excluded(case, excluded)
    )
    return [case for case in expected if any(run.get(case) != "passed" for run in others)]


def table(heads: Sequence[str], runs: Sequence[Outcomes]) -> list[str]:
    """Return the lines of a table of what passed, a line for each test function."""
    tests = sorted({case.partition("[")[0] for case in runs[0]})
    lines = [f"| test | cases | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
    for test in tests:
        cases = [case for case in runs[0] if case.partition("[")[0] == test]
        passed = [str(Counter(run.get(case) for case in cases)["passed"]) for run in runs]
        lines.append(f"| `{test.removeprefix('tests.')}` | {len(cases)} | {' | '.join(passed)} |")
    return lines


def renew(page: Path, head: str, title: str, lines: Sequence[str]) -> None:
    """Write one part of a page, under its title, and leave the others as they are; `head` is written anew."""
    _, *old = page.read_text().split("\n## ") if page.exists() else [""]
    kept = [part for part in old if part.partition("\n")[0] != title]
    parts = [*(part.rstrip() + "\n" for part in kept), "\n".join([title, "", *lines]) + "\n"]
    page.write_text("\n## ".join([head.rstrip() + "\n", *parts]))
