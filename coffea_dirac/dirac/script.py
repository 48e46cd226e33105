"""What runs at a site: the shell script of a job, and this package as a file that travels with it.

``Job.environment`` says where the interpreter comes from:

==========================  ==================================================================================
``""``                      this very interpreter if its path exists there (a shared file system), else ``python3``
``"/cvmfs/x/setup.sh"``     a file to be sourced; then ``python3``
``"/cvmfs/x/env"``          a virtual or conda environment: its ``bin/python3``
``"image:/cvmfs/x"``        a container image for apptainer; in it, ``python3``
``"venv:PLACE"``            this environment, packed and stored at a place (`coffea_dirac.dirac.venv`)
==========================  ==================================================================================
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import zipfile
from functools import cache
from pathlib import Path

from coffea_dirac.dirac import venv
from coffea_dirac.dirac.local import THREAD_VARIABLES
from coffea_dirac.errors import ConfigurationError
from coffea_dirac.interfaces import Job

SCRIPT = "job.sh"
PACKAGE = "coffea_dirac.zip"
_PACKAGE_ROOT = Path(__file__).parent.parent


def job_script(job: Job) -> str:
    """Return the shell script that runs a job's command line at a site.

    Raises
    ------
    ConfigurationError
        The environment is none of the forms above.

    Examples
    --------
    >>> print(job_script(Job(("-m", "coffea_dirac.dirac.start_worker", "worker.json"), environment="/cvmfs/x/env")))
    #!/bin/sh
    exec 2>&1
    umask 077
    chmod -R go= .
    touch DISABLE_WATCHDOG_CPU_WALLCLOCK_CHECK
    export COFFEA_DIRAC_JOB="$1" PYTHONUNBUFFERED=1
    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
    python=/cvmfs/x/env/bin/python3
    PATH=/cvmfs/x/env/bin:$PATH
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "coffea_dirac: $python on $(hostname) is missing or older than Python 3.11: DiracCluster(environment=...)"
        exit 3
    }
    "$python" -m zipfile -e coffea_dirac.zip .package || exit 3
    export PYTHONPATH="$PWD/.package${PYTHONPATH:+:$PYTHONPATH}"
    exec "$python" -P -m coffea_dirac.dirac.start_worker worker.json
    """
    threads = " ".join(f"{name}=1" for name in THREAD_VARIABLES)
    lines = [
        "#!/bin/sh",
        "exec 2>&1",
        "umask 077",
        "chmod -R go= .",
        # An idle worker is no stalled job.
        "touch DISABLE_WATCHDOG_CPU_WALLCLOCK_CHECK",
        'export COFFEA_DIRAC_JOB="$1" PYTHONUNBUFFERED=1',
        f"export {threads}",
        *_interpreter(job.environment),
        *filter(None, [job.setup]),
        "\"$python\" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {",
        '    echo "coffea_dirac: $python on $(hostname) is missing or older than Python 3.11: '
        'DiracCluster(environment=...)"',
        "    exit 3",
        "}",
        f'"$python" -m zipfile -e {PACKAGE} .package || exit 3',
        'export PYTHONPATH="$PWD/.package${PYTHONPATH:+:$PYTHONPATH}"',
        f'exec "$python" -P {shlex.join(job.arguments)}',
    ]
    return "\n".join(lines) + "\n"


def _interpreter(environment: str) -> list[str]:
    if environment.startswith(venv.PREFIX) or environment == "venv":
        return venv.script_lines(environment)
    kind, _, image = environment.partition("image:")
    if image and not kind:
        inside = f'exec apptainer exec --bind "$PWD" --pwd "$PWD" {shlex.quote(image)} /bin/sh "$0" "$@"'
        return [
            f'if [ -z "$COFFEA_DIRAC_INSIDE" ]; then export COFFEA_DIRAC_INSIDE=1; {inside}; fi',
            "python=python3",
        ]
    if environment.endswith(".sh") and environment.startswith("/"):
        return [f". {shlex.quote(environment)}", "python=python3"]
    if environment.startswith("/"):
        folder = shlex.quote(f"{environment.rstrip('/')}/bin")
        return [f"python={folder}/python3", f"PATH={folder}:$PATH"]
    if environment:
        raise ConfigurationError(
            f"environment={environment!r} is neither a path at the site nor an image: environment='/cvmfs/x/setup.sh', "
            "'/cvmfs/x/env', 'image:/cvmfs/x' or 'venv:PLACE'."
        )
    here = shlex.quote(sys.executable)
    return [f"python={here}; [ -x {here} ] || python=python3"]


@cache
def package() -> bytes:
    """Return this package as a zip archive, the same bytes each time: it is uploaded once.

    Examples
    --------
    >>> "coffea_dirac/interfaces.py" in zipfile.ZipFile(io.BytesIO(package())).namelist()
    True
    """
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_PACKAGE_ROOT.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = os.fspath(path.relative_to(_PACKAGE_ROOT.parent))
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return found.getvalue()
