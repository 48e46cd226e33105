"""Bad input: one clear message each, and nothing that was finished is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Scenario, write_nano

from coffea_dirac import DiracExecutor
from coffea_dirac.errors import ConfigurationError

pytestmark = pytest.mark.core


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path)


def failing(scenario: Scenario, *expected: str, **options: object) -> str:
    """Run, and return the message of an error that holds each of `expected`."""
    result = scenario.run(**options)  # type: ignore[arg-type]
    assert result.error is not None
    name, message = result.error
    assert name in ("InputError", "ProcessingError"), result.error
    for text in expected:
        assert text in message, message
    return message


def test_a_missing_file_is_named_with_its_dataset(scenario: Scenario) -> None:
    scenario.fileset["ttbar"]["files"].append("gone.root")
    failing(scenario, "gone.root", "'ttbar'", "missing", "skipbadfiles=True")


def test_a_file_that_is_not_root_is_named(scenario: Scenario) -> None:
    scenario.write("two.root", "no ROOT file at all")
    failing(scenario, "two.root", "'wjets'", "not a ROOT file")


def test_a_truncated_file_is_named(scenario: Scenario) -> None:
    path = scenario.folder / "two.root"
    path.write_bytes(path.read_bytes()[:400])
    failing(scenario, "two.root", "'wjets'")


def test_a_wrong_tree_name_is_named_with_the_trees_there_are(scenario: Scenario) -> None:
    write_nano(scenario.folder / "two.root", tree="Other")
    failing(scenario, "two.root", "'Events'", "Other", "treename=")


def test_a_missing_branch_names_the_users_line_and_the_call_that_runs_it_again(scenario: Scenario) -> None:
    scenario.edit("helper.py", "jets.pt > CUT", "jets.btag > CUT")
    message = failing(scenario, "btag", "helper.py:6 in good", "entries 0 to 50", "inline=True", "WorkItem(")
    assert "one.root" in message


def test_an_error_in_user_code_is_not_retried_and_keeps_the_other_results(scenario: Scenario) -> None:
    scenario.edit(
        "analysis.py",
        "total = float",
        "open('tries.txt', 'a').write('x')\n        assert events.metadata['xsec'] > 2, 'too small'\n        total = float",
    )
    failing(scenario, "AssertionError: too small", "analysis.py", "two.root", "(dataset 'wjets')")
    assert (scenario.folder / "tries.txt").read_text() == "xxx"
    scenario.fileset["wjets"]["metadata"]["xsec"] = 3.0
    assert (scenario.run().hits) == 2


def test_an_exception_that_cannot_say_what_it_is_still_has_a_place(scenario: Scenario) -> None:
    own = "type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})"
    scenario.edit("analysis.py", "total = float", f"raise {own}()\n        total = float")
    failing(scenario, "Mute: its text cannot be had", "ZeroDivisionError", "analysis.py", "one.root")


def test_a_file_error_in_user_code_is_not_retried(scenario: Scenario) -> None:
    scenario.edit("analysis.py", 'open("weights.json")', 'open("nowhere.json")')
    failing(scenario, "FileNotFoundError", "nowhere.json", "analysis.py")


def test_bad_files_are_skipped_by_name_and_tried_again(scenario: Scenario) -> None:
    path = scenario.folder / "two.root"
    sound = path.read_bytes()
    path.unlink()
    result = scenario.run(runner={"skipbadfiles": True})
    assert result.error is None
    assert result.missing == {"wjets": {"files": {"two.root": "Events"}, "metadata": {"xsec": 1.5, "unread": 1}}}
    assert not result.complete
    path.write_bytes(sound)
    again = scenario.run(runner={"skipbadfiles": True})
    assert again.complete
    assert (again.hits, again.misses) == (2, 2)


def test_a_file_replaced_after_it_was_planned_is_an_error_that_names_the_metadata_cache(scenario: Scenario) -> None:
    make = (
        "executor = DiracExecutor(cache='cache', inline=True, status=False)\n"
        "        plan = list(processor.Runner(executor=executor, **runner).preprocess(fileset, treename='Events'))\n"
        "        from scenario import write_nano; import pathlib; write_nano(pathlib.Path('one.root'), events=150)\n"
        "        fileset = plan"
    )
    failing(
        scenario,
        "one.root",
        "150 entries",
        "planned for 100",
        "metadata_cache={}",
        make=make,
        env={"PYTHONPATH": str(Path(__file__).parent)},
    )


@pytest.mark.parametrize("kind", ["file", "unwritable", "full"])
def test_a_broken_cache_directory_changes_nothing_but_one_warning(scenario: Scenario, kind: str) -> None:
    cache = scenario.folder / "cache"
    if kind == "file":
        cache.write_text("a file")
    elif kind == "unwritable":
        cache = Path("/proc/coffea_dirac")
    else:
        cache = Path("/dev/full/cache")
    result = scenario.run(cache=str(cache), compare=True)
    assert result.error is None
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    assert len(result.warnings) == 1, result.warnings
    assert str(cache) in result.warnings[0]
    assert "not kept" in result.warnings[0]


def test_a_typo_in_an_option_is_named_with_the_option_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="no option 'worker': did you mean workers"):
        DiracExecutor(worker=2)


def test_options_that_mean_nothing_are_refused() -> None:
    for workers in (0, True, "4"):
        with pytest.raises(ConfigurationError, match="workers=4"):
            DiracExecutor(workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"client=Client\('tcp://10.0.0.1:8786'\)"):
        DiracExecutor(client="tcp://10.0.0.1:8786")
    with pytest.raises(ConfigurationError, match="not both"):
        DiracExecutor(client=object(), cluster=object())


def test_a_processor_that_cannot_be_fingerprinted_is_computed_and_not_kept(scenario: Scenario) -> None:
    scenario.edit("analysis.py", "    scale = 2.0", "    scale = 2.0\n    lines = (line for line in 'ab')")
    # A class attribute that cannot be pickled either: it is reached by import, not by value.
    result = scenario.run(compare=True)
    assert result.error is None
    assert result.out == pytest.approx(result.plain, rel=1e-12)
    assert any("lines" in text and "not kept" in text for text in result.warnings), result.warnings
    assert scenario.run().hits == 0


def test_with_nothing_given_one_line_says_what_is_used_and_the_environment_can_change_it(scenario: Scenario) -> None:
    make = "executor = DiracExecutor()"
    cold = scenario.run(make=make, env={"COFFEA_DIRAC_CACHE": "mine", "COFFEA_DIRAC_WORKERS": "1"})
    said = [line for line in cold.stderr.splitlines() if line.startswith("DiracExecutor:")]
    assert len(said) == 1
    assert "1 processes of this machine" in said[0]
    assert str(scenario.folder / "mine") in said[0]
    assert scenario.run(make=make, env={"COFFEA_DIRAC_CACHE": "mine"}).misses == 0
    assert scenario.run(make="executor = DiracExecutor(inline=True)", env={"COFFEA_DIRAC_CACHE": "off"}).hits == 0
