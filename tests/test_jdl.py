"""Job descriptions: what is written is what DIRAC's own parser reads, and what it would misunderstand is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.dirac.jdl import job_description
from coffea_dirac.dirac.script import job_script
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Job

ClassAd = pytest.importorskip("DIRACCommon.Core.Utilities.ClassAd.ClassAdLight").ClassAd

words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,12}", fullmatch=True)
sites = st.builds(lambda grid, name, land: f"{grid}.{name}.{land}", words, words, words)
JOBS = st.builds(
    Job,
    st.just(()),
    name=words,
    sites=st.lists(sites, max_size=3, unique=True).map(tuple),
    cores=st.integers(1, 64),
    memory_bytes=st.integers(0, 1 << 40),
    cpu_time_s=st.integers(100, 500_000),
    tags=st.lists(words, max_size=3, unique=True).map(tuple),
)


@given(job=JOBS, group=words)
def test_dirac_reads_what_was_meant(job: Job, group: str) -> None:
    found = ClassAd(f"[{job_description(job, group, 'SB:SandboxSE|/S3/x/sha256:1.tar.zst')}]")
    assert found.isOK()
    assert found.getAttributeString("JobName") == found.getAttributeString("Arguments") == job.name
    assert found.getAttributeString("JobGroup") == group
    assert found.getAttributeInt("CPUTime") == job.cpu_time_s
    assert found.getListFromExpression("Site") == list(job.sites or ["ANY"])
    assert found.getListFromExpression("Tags") == list(job.tags)
    assert found.getListFromExpression("InputSandbox") == ["SB:SandboxSE|/S3/x/sha256:1.tar.zst"]
    assert (found.getAttributeInt("NumberOfProcessors") or 1) == job.cores
    assert (found.getAttributeInt("MinRAM") or 0) * 1_000_000 >= job.memory_bytes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 'worker-0"; Site = "X'}, "name has letters"),
        ({"name": "x" * 129}, "128 at most"),
        ({"sites": ("RAL",)}, "no name of a DIRAC site"),
        ({"sites": ('LCG.A.uk"};',)}, "no name of a DIRAC site"),
        ({"sites": ("LCG.A.uk",), "banned_sites": ("LCG.A.uk",)}, "both asked for and banned"),
        ({"tags": ("GPU, CPU",)}, "a tag has letters"),
        ({"cpu_time_s": 99}, "100 to 500000 s, not 99"),
        ({"cpu_time_s": 500_001}, "an hour is cpu_time=3600"),
        ({"cores": 0}, "at least one core"),
    ],
)
def test_what_dirac_would_refuse_or_misunderstand_is_an_error(changes: dict[str, object], said: str) -> None:
    options = {"name": "worker-0", **changes}
    with pytest.raises(ConfigurationError, match=said):
        job_description(Job((), **options), "group", "SB:x")  # type: ignore[arg-type]


def test_group_longer_than_its_column_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="32 at most"):
        job_description(Job((), name="a"), "g" * 33, "SB:x")


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ("/cvmfs/x/setup.sh", ". /cvmfs/x/setup.sh"),
        ("/cvmfs/x/my env", "python='/cvmfs/x/my env/bin'/python3"),
        ("image:/cvmfs/x", 'apptainer exec --bind "$PWD" --pwd "$PWD" /cvmfs/x /bin/sh "$0" "$@"'),
    ],
)
def test_environment_is_a_file_a_folder_or_an_image(environment: str, line: str) -> None:
    assert line in job_script(Job(("-c", "pass"), environment=environment))


def test_other_environments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="neither a path at the site nor an image"):
        job_script(Job((), environment="conda:analysis"))
