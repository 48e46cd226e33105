"""The AGC's own ``TtbarAnalysis``, unchanged, runs through DiracExecutor.

It is not in this repository: name a checkout of iris-hep/analysis-grand-challenge by ``AGC_ORIGINAL``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agc_example.generate import generate

FOLDER = Path(os.environ.get("AGC_ORIGINAL", "")) / "analyses" / "cms-open-data-ttbar"

# Takes the class out of the AGC's script as it stands, with the imports above it, and runs it with both executors.
PROGRAM = """
import ast, json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path

source = Path("ttbar_analysis_pipeline.py").read_text()
tree = ast.parse(source)
kept = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TtbarAnalysis"]
wanted = {"ak", "correctionlib", "hist", "np", "processor", "PackedSelection", "copy", "utils", "NanoAODSchema"}
imports = [
    node for node in tree.body
    if isinstance(node, (ast.Import, ast.ImportFrom)) and wanted & {a.asname or a.name.split(".")[0] for a in node.names}
]
module = "\\n".join(ast.get_source_segment(source, node) for node in [*imports, *kept])
Path("agc_class.py").write_text(module)

import numpy as np
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from agc_class import TtbarAnalysis
from agc_example.inputs import CROSS_SECTIONS
from coffea_dirac import DiracExecutor

NanoAODSchema.warn_missing_crossrefs = False
fileset = {}
for process, variations in json.loads(Path(sys.argv[1]).read_text()).items():
    for variation, sample in variations.items():
        metadata = {"process": process, "variation": variation, "nevts": sample["nevts_total"], "xsec": CROSS_SECTIONS[process]}
        fileset[f"{process}__{variation}"] = {"files": [f["path"] for f in sample["files"]], "metadata": metadata}

def run(executor):
    runner = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=1000, metadata_cache={})
    return runner(fileset, TtbarAnalysis(use_inference=True, use_triton=False), treename="Events"), runner.executor

if __name__ == "__main__":
    dirac, executor = run(DiracExecutor(cache=sys.argv[2], workers=2, status=False))
    found = {"work_items": executor.report.work_items, "notes": executor.report.notes, "worst": 0.0, "compared": 0}
    if "--compare" in sys.argv:
        plain, _ = run(processor.IterativeExecutor(status=False))
        for kind in ("hist_dict", "ml_hist_dict"):
            for name, h in plain[kind].items():
                for variation in h.axes["variation"]:
                    if variation == "pt_res_up":  # random numbers without a seed
                        continue
                    for p in h.axes["process"]:
                        a, b = h[:, p, variation].values(flow=True), dirac[kind][name][:, p, variation].values(flow=True)
                        assert np.allclose(a, b, rtol=1e-12, atol=0), (kind, name, p, variation)
                        found["compared"] += 1
    print("RESULT " + json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.skipif(not FOLDER.is_dir(), reason="AGC_ORIGINAL names no checkout of iris-hep/analysis-grand-challenge")
def test_the_original_class_runs_unchanged_and_a_second_process_computes_nothing(tmp_path: Path) -> None:
    inputs = generate(tmp_path / "data", files=1, events=1000, enriched=True)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    here = str(Path(__file__).parents[1])

    def run(*options: str) -> dict[str, object]:
        command = [sys.executable, str(program), str(inputs), str(tmp_path / "cache"), *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), here]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=280)
        assert "RESULT" in done.stdout, done.stderr[-3000:]
        found: dict[str, object] = json.loads(done.stdout.rpartition("RESULT ")[2])
        return found

    cold = run("--compare")
    assert cold["work_items"] == {"hits": 0, "misses": 9}
    assert int(str(cold["compared"])) > 1000
    assert run()["work_items"] == {"hits": 9, "misses": 0}
