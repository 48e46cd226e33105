"""The tutorial and the how-to pages do what they say: their code is run, and what they print is compared.

In a page, ```` ```python title="x.py" ```` is a file, ```` ```diff title="x.py" ```` an edit of it, ```` ```python ```` a script, ```` ```bash ````
commands, and ```` ```text ```` after any of these is what they print, among other lines.  ```` ```py ```` is a fragment that needs more than this machine.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/tutorial/*.md"), *ROOT.glob("docs/how-to/*.md"), ROOT / "docs/reference/cli.md"])
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
RUN = {"python", "bash", "diff", "text"}


def blocks(page):
    """Yield (language, title, text) of each block that the test runs, in order."""
    return [found.groups() for found in FENCE.finditer(page.read_text()) if found[1] in RUN]


def edit(path, diff):
    """Apply a diff of neighbouring lines: what was there goes, what is new comes."""
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has not exactly one {old!r}"
    path.write_text(text.replace(old, new))


def run(command, folder):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COFFEA_DIRAC_CACHE": str(folder / "default-cache"),
        "COFFEA_DIRAC_WORKERS": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check(page, folder):
    printed = ""
    for n, (language, title, text) in enumerate(blocks(page)):
        if language == "diff":
            edit(folder / title, text)
        elif language == "python" and title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(text)
        elif language == "python":
            (folder / f"block_{n}.py").write_text(text)
            printed = run([sys.executable, f"block_{n}.py"], folder)
        elif language == "bash":
            printed = run(["bash", "-ec", text], folder)
        elif printed:
            missing = [line for line in text.splitlines() if not matches(line, printed)]
            assert not missing, f"{page.name} says that this is printed: {missing}; printed was:\n{printed}"


def matches(line, printed):
    """Whether `line`, in which ... stands for anything, is among the printed lines."""
    pattern = ".*".join(re.escape(part) for part in line.strip().split("..."))
    return any(re.fullmatch(pattern, other.strip()) for other in printed.splitlines())


@pytest.fixture(scope="module")
def tutorial_files(tmp_path_factory):
    """What the first steps of the tutorial leave: how-to pages start there."""
    folder = tmp_path_factory.mktemp("tutorial")
    for language, title, text in blocks(ROOT / "docs/tutorial/first-run.md"):
        if language == "python":
            (folder / title).write_text(text)
    run([sys.executable, "make_data.py"], folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_is_what_happens(page, tmp_path, tutorial_files):
    if page.parent.name != "tutorial":
        shutil.copytree(tutorial_files, tmp_path, dirs_exist_ok=True)
    check(page, tmp_path)


def test_a_page_that_lies_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```python\nprint("1 work item: 1 computed")\n```\n\n```text\n1 work item: 1 loaded\n```\n')
    with pytest.raises(AssertionError, match="says that this is printed"):
        check(page, tmp_path)


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
