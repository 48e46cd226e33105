"""What a job finds at a site: ``python -m coffea_dirac.worker.probe FILE`` there, `probe_site` here.

Each check has its seconds and, if something is wrong, the problem in one line.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coffea_dirac.errors import JobServiceError
from coffea_dirac.interfaces import Job, JobService

PACKAGES = ("coffea", "dask", "distributed", "awkward", "uproot", "numpy", "hist", "cloudpickle")
MARK = "coffea_dirac probe: "
POLL_S = 0.5
Check = dict[str, Any]


def probe_site(service: JobService, job: Job, *, timeout_s: float) -> list[Check]:
    """Run a probe as a job and return its checks.

    Parameters
    ----------
    service : JobService
        Who runs it.
    job : Job
        What `probe_job` returned.
    timeout_s : float
        How long to wait for its end.

    Raises
    ------
    JobServiceError
        It did not come to its end, with what the service says of it.
    """
    (job_id,) = service.submit([job])
    deadline = time.monotonic() + timeout_s
    while (facts := service.describe([job_id])[job_id]).status in ("waiting", "running"):
        if time.monotonic() > deadline:
            service.kill([job_id])
            raise JobServiceError(
                f"The probe at {' or '.join(job.sites)} (job {job_id}) did not end within {timeout_s:.0f} s, and was "
                f"killed. DIRAC says: {facts.told}, since {facts.since}. A queue that is long: --timeout "
                f"{2 * timeout_s:.0f}; a site's name that is wrong looks just so."
            )
        time.sleep(POLL_S)
    log = service.logs(job_id)
    for line in log.splitlines():
        if line.startswith(MARK):
            checks: list[Check] = json.loads(line.removeprefix(MARK))
            return checks
    raise JobServiceError(f"The probe at {facts.site} (job {job_id}) failed. It said:\n{log or facts.told}")


def probe_job(site: str, *, environment: str = "", setup: str = "", file: str = "", store: str = "") -> Job:
    """Return the job that probes a site.

    Parameters
    ----------
    site : str
        Which one.
    environment, setup : str
        As for `coffea_dirac.WorkerGroup`.
    file, store : str
        A ROOT file to read there, and a store in which to write.
    """
    here = {name: version_of(name) for name in ("python", *PACKAGES)}
    options = json.dumps({"file": file, "store": store, "versions": here})
    arguments = ("-m", "coffea_dirac.worker.probe", "probe.json")
    files = {"probe.json": options.encode()}
    return Job(arguments, files, name="probe", sites=(site,), cpu_time_s=600, environment=environment, setup=setup)


def version_of(name: str) -> str:
    """Return the version of a package, or of Python without its last part; empty if there is none.

    Examples
    --------
    >>> version_of("python").count("."), version_of("no-such-package")
    (1, '')
    """
    if name == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def run(options: Mapping[str, Any]) -> list[Check]:
    """Do all checks here.

    Examples
    --------
    >>> [check["check"] for check in run({"file": "", "store": "", "versions": {}})]
    ['node', 'versions', 'import']
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("node", _node),
        ("versions", lambda: _versions(options["versions"])),
        ("import", _import),
    ]
    if options["file"]:
        checks.append(("read a file", lambda: _read(options["file"])))
    if options["store"]:
        checks.append(("write a record", lambda: _write(options["store"])))
    return [_checked(name, check) for name, check in checks]


def _checked(name: str, check: Callable[[], str]) -> Check:
    start, found, problem = time.monotonic(), "", ""
    try:
        found = check()
    except Exception as error:  # noqa: BLE001 - whatever is wrong there is what is asked for
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    return {"check": name, "found": found, "problem": problem, "seconds": round(time.monotonic() - start, 3)}


def _node() -> str:
    free = shutil.disk_usage(".").free >> 30
    cores = len(os.sched_getaffinity(0))
    where = f"{os.environ.get('DIRACSITE', '')} {platform.node()}".strip()
    return f"{where}, {cores} cores, {free} GiB free, Python {platform.python_version()} at {sys.executable}"


def _versions(wanted: Mapping[str, str]) -> str:
    found = {name: version_of(name) for name in wanted}
    other = [f"{name} {found[name] or 'missing'} (here {here})" for name, here in wanted.items() if found[name] != here]
    if other:
        raise RuntimeError(f"other than at the submitter: {', '.join(other)}")
    return "as at the submitter"


def _import() -> str:
    for name in ("coffea.processor", "coffea.nanoevents", "distributed"):
        importlib.import_module(name)
    return "coffea, distributed"


def _read(file: str) -> str:
    import uproot

    with uproot.open(file) as found:
        return f"{len(found.keys())} objects"


def _write(place: str) -> str:
    from coffea_dirac.stores import open_store

    store, name, content = open_store(place), f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(1 << 16)
    store.create(name, content)
    try:
        if store.read(name) != content:
            raise RuntimeError("what is read is not what was written")
    finally:
        store.delete(name)
    return "written, read and deleted"


if __name__ == "__main__":
    print(MARK + json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))), flush=True)  # noqa: T201 - its log
