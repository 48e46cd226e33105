"""Typed jobs -> JDL, DIRAC's language for jobs, checked before it is sent.

DiracX takes some descriptions that mean nothing (a quote that does not end), and refuses others without a reason ("JDL
syntax error"); its tests run on a database without limits of length.  So everything is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from coffea_dirac.dirac.script import SCRIPT
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Job

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
LOG = "std.out"
# Columns of DIRAC's database.
NAME_LENGTH, GROUP_LENGTH = 128, 32
CPU_TIME_S = (100, 500_000)


def job_description(job: Job, group: str, sandbox: str) -> str:
    """Return the JDL of a job.

    Parameters
    ----------
    job : Job
        What to run.
    group : str
        DIRAC's JobGroup, by which jobs are found again.
    sandbox : str
        Where its files are, as ``create_sandbox`` returned.

    Raises
    ------
    ConfigurationError
        Something in it that DIRAC would refuse, or take and misunderstand.

    Examples
    --------
    >>> job = Job((), name="worker-0", sites=("LCG.UKI-LT2-IC-HEP.uk",), cores=2, cpu_time_s=3600)
    >>> print(job_description(job, "coffea-dirac-1", "SB:SandboxSE|/S3/box/sha256:12.tar.zst"))
    Executable = "job.sh";
    Arguments = "worker-0";
    JobName = "worker-0";
    JobGroup = "coffea-dirac-1";
    JobType = "User";
    CPUTime = 3600;
    StdOutput = "std.out";
    StdError = "std.err";
    OutputSandbox = {"std.out"};
    InputSandbox = {"SB:SandboxSE|/S3/box/sha256:12.tar.zst"};
    Site = {"LCG.UKI-LT2-IC-HEP.uk"};
    NumberOfProcessors = 2;
    """
    _check(job, group)
    found = {
        "Executable": _text(SCRIPT),
        "Arguments": _text(job.name),
        "JobName": _text(job.name),
        "JobGroup": _text(group),
        "JobType": _text("User"),
        "CPUTime": str(job.cpu_time_s),
        "StdOutput": _text(LOG),
        "StdError": _text("std.err"),
        "OutputSandbox": _list([LOG]),
        "InputSandbox": _list([sandbox]),
    }
    # DIRAC refuses empty lists, without saying so.
    # Of the jobs in one call, all must name a site or none: the server writes them as rows of the same columns.
    lists = {"Site": job.sites or ("ANY",), "BannedSites": job.banned_sites, "Tags": job.tags}
    found.update((name, _list(texts)) for name, texts in lists.items() if texts)
    if job.cores > 1:
        found["NumberOfProcessors"] = str(job.cores)
    if job.memory_bytes:
        found["MinRAM"] = str(-(-job.memory_bytes // 1_000_000))
    return "\n".join(f"{name} = {value};" for name, value in found.items())


def _check(job: Job, group: str) -> None:
    if not NAME.fullmatch(job.name) or len(job.name) > NAME_LENGTH:
        raise ConfigurationError(f"a job's name has letters, digits and ._- only, {NAME_LENGTH} at most: {job.name!r}")
    if not NAME.fullmatch(group) or len(group) > GROUP_LENGTH:
        raise ConfigurationError(f"a job's group has letters, digits and ._- only, {GROUP_LENGTH} at most: {group!r}")
    for site in (*job.sites, *job.banned_sites):
        if not SITE.fullmatch(site):
            raise ConfigurationError(
                f"{site!r} is no name of a DIRAC site, which has a grid, a name and a country, as in "
                "sites={'LCG.UKI-SOUTHGRID-RALPP.uk': 20}"
            )
    if banned := set(job.sites) & set(job.banned_sites):
        raise ConfigurationError(f"{', '.join(sorted(banned))} is both asked for and banned")
    for tag in job.tags:
        if not NAME.fullmatch(tag):
            raise ConfigurationError(f"a tag has letters, digits and ._- only, as in tags=['GPU']: {tag!r}")
    least, most = CPU_TIME_S
    if not least <= job.cpu_time_s <= most:
        raise ConfigurationError(
            f"a job's CPU time is {least} to {most} s, not {job.cpu_time_s}; an hour is cpu_time=3600"
        )
    if job.cores < 1 or job.memory_bytes < 0:
        raise ConfigurationError(f"a job needs at least one core and no negative memory: cores={job.cores}")


def _text(text: str) -> str:
    if '"' in text or "\\" in text or not text.isascii() or not text.isprintable():
        raise ConfigurationError(f"{text!r} cannot be written in a job description, which is printable ASCII")
    return f'"{text}"'


def _list(texts: Iterable[str]) -> str:
    return "{" + ", ".join(map(_text, texts)) + "}"
