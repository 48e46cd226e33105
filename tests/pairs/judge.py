"""Evaluates sides of pairs, each in a process of its own; run as a program it is a fork server.

It reads one job (JSON) a line and answers with one line.  The scientific packages are imported once, before any fork, and
only if they are installed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from typing import Any


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Return the fingerprint and the value of one side."""
    os.chdir(job["cwd"] or job["folder"])
    sys.path.insert(0, job["folder"])
    os.environ.update(job["env"])
    from coffea_dirac.errors import FingerprintError
    from coffea_dirac.fingerprint import fingerprint

    names: dict[str, Any] = {"folder": job["folder"], "importlib": importlib, "sys": sys}
    if "m.py" in job["files"]:
        names["m"] = importlib.import_module("m")
    exec(job["setup"], names)
    fn, args, inputs = (eval(job[part], names) for part in ("call", "args", "inputs"))
    try:
        found = {"fingerprint": fingerprint(fn, *args, inputs=inputs)}
    except FingerprintError as error:
        found = {"fingerprint": "", "error": str(error)}
    return {**found, "value": repr(fn(*args))}


def answer(line: str) -> str:
    """Evaluate a job in a forked child and return its answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as out, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                result = evaluate(json.loads(line))
            except BaseException as error:
                import traceback

                result = {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            out.write(json.dumps(result))
            out.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as found:
        text = found.read()
    os.waitpid(child, 0)
    return text


def warm_up() -> None:
    """Import what pairs use, where it is installed."""
    for name in ("numpy", "awkward", "hist", "pandas", "correctionlib", "coffea.processor", "coffea_dirac.fingerprint"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    """Serve jobs from standard input, or do the one job of the command line."""
    if len(sys.argv) > 1:
        print(json.dumps(evaluate(json.loads(sys.argv[1]))))
        return
    warm_up()
    mutant = os.environ.get("FINGERPRINT_MUTANT")
    if mutant:
        from pairs.mutants import apply

        apply(mutant)
    for line in sys.stdin:
        print(answer(line), flush=True)


if __name__ == "__main__":
    main()
