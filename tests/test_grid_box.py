"""``coffea-dirac grid``: up, status and down, also twice, at once, after a crash, and with what cannot mean anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import coffea_dirac
from coffea_dirac.grid import box
from coffea_dirac.testing_jobs import wait_until

SITE = "LCG.Box-C.uk"


class Command:
    """``coffea-dirac grid`` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = dict(os.environ)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-P", "-m", "coffea_dirac", "grid", *arguments, "--directory", str(self.directory)]
        return subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.directory.parent,
        )

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    found = Command(tmp_path / "grid")
    yield found
    if (found.directory / "grid.log").exists():
        assert box.down(found.directory) == []


def processes(found: dict[str, Any]) -> list[psutil.Process]:
    """Return the processes of a grid, with all that they have started."""
    ours = [psutil.Process(pid) for pid in found["pids"].values()]
    return [*ours, *(child for process in ours for child in process.children(recursive=True))]


def are_gone(before: list[psutil.Process]) -> bool:
    return not [one for one in before if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


# -- what cannot mean anything


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--site", "RAL:2"], "'RAL:2' is no site: NAME:SLOTS"),
        (["--site", f"{SITE}:many"], "is no site"),
        (["--site", f"{SITE}:0"], "is no site"),
        (["--site", "../../x.uk:1"], "is no site"),
        (["--site", f"{SITE}:1", "--site", f"{SITE}:2"], "is given twice"),
        (["--heartbeat", "0.5"], "heartbeats are 1.1 s apart at least"),
        (["--access-minutes", "0"], "1 minute"),
    ],
)
def test_options_that_mean_nothing_are_one_line(command: Command, arguments: list[str], said: str) -> None:
    code, out, err = command("up", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not command.directory.exists()


def test_without_a_grid_status_says_so_and_down_has_nothing_to_do(command: Command) -> None:
    assert command("status")[:2] == (1, "no grid runs: coffea-dirac grid up\n")
    assert command("status", "--json")[:2] == (1, "{}\n")
    assert command("down")[:2] == (0, "no grid runs\n")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_directory_with_something_else_in_it_is_left_as_it_is(command: Command, verb: str) -> None:
    command.directory.mkdir()
    (command.directory / "thesis.tex").write_text("years of work")
    code, out, err = command(verb)
    assert (code, out) == (2, "")
    assert "is no grid's, and is left as it is" in err
    assert (command.directory / "thesis.tex").read_text() == "years of work"


def test_a_directory_that_cannot_be_is_one_line(command: Command) -> None:
    command.directory.parent.joinpath("file").touch()
    command.directory = command.directory.parent / "file" / "grid"
    with pytest.raises(box.ConfigurationError, match=r"a grid cannot be in .*another --directory"):
        box.up(command.directory)


@pytest.mark.parametrize("python", ["/nonexistent/python", sys.executable], ids=["missing", "without packages"])
def test_an_environment_without_a_server_is_said_with_what_makes_one(command: Command, python: str) -> None:
    command.environment[box.ENVIRONMENT.variable] = python
    code, out, err = command("up", "--json")
    assert (code, out) == (2, "")
    assert "diracx/bin/pip install 'diracx-routers==0.7.*'" in err
    assert f"export {box.ENVIRONMENT.variable}=" in err
    assert not command.directory.exists()


def installed(command: Command, folder: Path) -> None:
    """Let a command find this package where no checkout is around it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(coffea_dirac.__file__).parent, folder / "coffea_dirac", ignore=ignored)
    command.environment |= {"PYTHONPATH": str(folder)}
    command.environment.pop(box.ENVIRONMENT.variable, None)


def test_outside_of_a_checkout_it_is_said_what_a_grid_needs(command: Command, tmp_path: Path) -> None:
    installed(command, tmp_path / "site")
    code, out, err = command("up", "--json")
    assert (code, out) == (2, "")
    assert "a grid in a box needs git and an environment with a DiracX server" in err


# -- a grid of its own


@pytest.mark.needs("diracx")
@pytest.mark.long
@pytest.mark.timeout(600)
def test_grid_goes_up_and_down_by_command_and_leaves_no_process(command: Command) -> None:
    code, out, _ = command("up", "--json", "--site", f"{SITE}:1:GPU")
    assert code == 0
    found = json.loads(out)
    assert set(found) >= {"diracx", "token_file", "sites", "vo", "user", "directory", "pids"}
    assert found["sites"] == {SITE: {"slots": 1, "tags": ["GPU"]}}
    assert json.loads(command("up", "--json")[1]) == found
    assert json.loads(command("up", "--json", "--site", f"{SITE}:1:GPU")[1]) == found
    assert json.loads(command("status", "--json")[1]) == found
    assert f"DIRACX_URL={found['diracx']}" in command("status")[1]
    code, out, err = command("up", "--json", "--site", f"{SITE}:2")
    assert (code, out) == (2, "")
    assert f"a grid with other sites runs in {command.directory} ({SITE})" in err
    before = processes(found)
    assert command("down")[0] == 0
    assert are_gone(before)
    assert not command.directory.exists()


@pytest.mark.needs("diracx")
@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_that_start_a_grid_at_once_get_the_same_one(command: Command) -> None:
    both = [command.start("up", "--json") for _ in range(2)]
    told = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    first, second = (json.loads(out) for out, _ in told)
    assert first == second


@pytest.mark.needs("diracx")
@pytest.mark.long
@pytest.mark.timeout(600)
def test_after_a_crash_nothing_of_the_old_grid_is_left_and_a_new_one_comes_up(command: Command) -> None:
    found = json.loads(command("up", "--json")[1])
    before = processes(found)
    psutil.Process(found["pids"]["grid"]).kill()
    wait_until(lambda: are_gone(before), timeout_s=30, what="its processes have ended")
    assert command("status")[0] == 1
    again = json.loads(command("up", "--json")[1])
    assert again["pids"]["grid"] != found["pids"]["grid"]
    assert again["sites"] == found["sites"]


@pytest.mark.needs("diracx")
@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_installed_package_starts_a_grid_with_the_environment_it_is_given(command: Command, tmp_path: Path) -> None:
    python = box.server_python()
    installed(command, tmp_path / "site")
    command.environment[box.ENVIRONMENT.variable] = str(python)
    code, out, err = command("up", "--json")
    assert code == 0, err
    assert set(json.loads(out)["sites"]) == {site.partition(":")[0] for site in box.SITES}
