"""Fingerprint ``work.run`` of every case below a folder and print the digests as JSON; runs in its own process."""

import importlib
import json
import sys
from pathlib import Path

from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import fingerprint


def main(folder: str) -> None:
    """Print case -> digest, or the message of the error."""
    known = set(sys.modules)
    found = {}
    for case in sorted(Path(folder).iterdir()):
        sys.path.insert(0, str(case))
        importlib.invalidate_caches()
        try:
            work = importlib.import_module("work")
            getattr(work, "before_fingerprint", lambda: None)()
            found[case.name] = fingerprint(work.run, *getattr(work, "ARGUMENTS", ()))
        except FingerprintError as error:
            found[case.name] = f"refused: {error}"
        sys.path.remove(str(case))
        if "awkward" in sys.modules:
            sys.modules["awkward"].behavior.pop("Mine_of_test", None)
        for name in [
            n for n in sys.modules if n not in known and str(case) in str(getattr(sys.modules[n], "__file__", ""))
        ]:
            del sys.modules[name]
        for name in [n for n in list(sys.modules) if n.partition(".")[0] in ("work", "helpers", "pkg", "space")]:
            sys.modules.pop(name, None)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
