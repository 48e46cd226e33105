"""Versions of installed packages in fingerprints: as they are, or major.minor only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stage_scene import DRIVER, Scene

from coffea_dirac import StageCache
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.fingerprint import describe, diff

pytestmark = pytest.mark.core


class Site(Scene):
    """A scene whose stage d uses an installed package, and whose driver says what was planned and what came."""

    def __init__(self, folder: Path, versions: str = "exact") -> None:
        super().__init__(folder)
        self.install("3.2.1")
        self.edit("from coffea_dirac import stage", "import fakelib\nfrom coffea_dirac import stage")
        self.edit("return ak.num(up)", "return fakelib.VALUE * ak.num(up)")
        self.count_versions(versions)

    def install(self, version: str) -> None:
        site = self.folder / "site"
        for old in site.glob("*.dist-info/*"):
            old.unlink()
        for old in site.glob("*.dist-info"):
            old.rmdir()
        metadata = site / f"fakelib-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Name: fakelib\nVersion: {version}\n")
        (metadata / "RECORD").write_text(f"fakelib.py,,\nfakelib-{version}.dist-info/METADATA,,\n")
        (site / "fakelib.py").write_text("VALUE = 1\n")

    def count_versions(self, versions: str) -> None:
        text = DRIVER.replace("import json, sys, warnings", "import json, sys, warnings; sys.path.insert(0, 'site')")
        text = text.replace('cache="cache"', f'cache=StageCache("cache", versions="{versions}")')
        text = text.replace('StageCache("cache").wrap', f'StageCache("cache", versions="{versions}").wrap')
        text = text.replace(
            "    error = None\n",
            "    error = planned = None\n"
            "    if how == 'inline':\n"
            "        planned = executor.cache.plan(run, fileset, work, treename='Events')\n",
        )
        text = text.replace(
            'json.dumps({"out"',
            'json.dumps({"said": [str(planned), str(report)], "counts": [planned and planned.counts, report and report.counts], "out"',
        )
        (self.folder / "driver.py").write_text(text)


def test_a_new_version_is_the_reason_before_and_after_a_run(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run("inline")
    site.install("3.3.0")
    again = site.run("inline")
    assert again["ran"] == {"d": 4}, "y is cut"
    for said in again["said"]:
        assert "new version: fakelib 3.2.1 -> 3.3.0: all 4 items" in said
    assert ["new version: fakelib 3.2.1 -> 3.3.0", 4] in again["why"]
    planned, reported = again["counts"]
    assert planned["computed"] == reported["computed"] + reported["cut"]


@pytest.mark.parametrize("how", ["inline", "workers", "iterative"])
def test_with_minor_the_last_part_of_a_version_does_not_count(tmp_path: Path, how: str) -> None:
    site = Site(tmp_path, "minor")
    first = site.run(how)
    site.install("3.2.4")
    again = site.run(how)
    assert (again["ran"], again["out"]) == ({}, first["out"])
    site.edit("* scale", "* 2 * scale")
    assert site.run(how)["ran"] == {"y": 4}, "stages agree too"
    site.install("3.3.0")
    assert site.run(how)["ran"] == {"d": 4}


def test_the_two_settings_do_not_see_each_others_results(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.install("3.2")
    site.run("inline")
    site.count_versions("minor")
    other = site.run("inline")
    assert sum(other["ran"].values()) == 20
    assert "new setting: versions: `exact` became `minor`" in other["said"][1]


def test_versions_with_a_year_have_a_minor_part_too() -> None:
    from coffea.nanoevents import NanoEventsFactory

    exact, minor = describe({"": NanoEventsFactory}), describe({"": NanoEventsFactory}, versions="minor")
    assert exact.tree["packages"]["coffea"].split(".")[:2] == minor.tree["packages"]["coffea"].split(".")
    assert exact.digest != minor.digest != describe({"array": 3}, versions="minor").digest
    assert describe({"n": 3}).digest != describe({"n": 3}, versions="minor").digest
    assert json.loads(json.dumps(minor.tree))["versions"] == "minor"
    assert [d.text for d in diff(exact.tree, minor.tree)] == ["new setting: versions: `exact` became `minor`"]


def test_graphs_of_dask_count_versions_as_the_cache_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    from coffea_dirac.graph import values

    def counts(versions: Any, numpy: str) -> dict[str, int]:
        monkeypatch.setattr(values, "versions", lambda: (("numpy", numpy),))
        with StageCache(tmp_path, versions=versions) as cache:
            assert dask.delayed(sum)([1, 2]).compute() == 3
        return cache.report.counts

    computed, loaded = {"loaded": 0, "computed": 1, "cut": 0}, {"loaded": 1, "computed": 0, "cut": 0}
    assert counts("minor", "2.3.1") == computed
    assert counts("minor", "2.3.4") == loaded
    assert counts("minor", "2.4.0") == computed
    assert counts("exact", "2.3") == computed
    assert counts("exact", "2.3.1") == computed


@pytest.mark.parametrize("versions", ["patch", None, 3])
def test_another_setting_is_refused(tmp_path: Path, versions: Any) -> None:
    with pytest.raises(ConfigurationError, match='"exact", or "minor"'):
        StageCache(tmp_path, versions=versions)
