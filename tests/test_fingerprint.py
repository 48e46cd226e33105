"""Fingerprints of values and code: equal for equal, explained where different, the same in other processes."""

import functools
import importlib.util
import json
import linecache
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.errors import FingerprintError
from coffea_dirac.fingerprint import describe, diff, digest_file, digest_value, fingerprint, ingredients

PACKAGE = Path(__file__).parent.parent / "coffea_dirac"

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def exact(value: object) -> object:
    """Return a value as one that is equal only if types, bits and orders are."""
    if isinstance(value, dict):
        return ("dict", tuple((exact(k), exact(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, tuple(map(exact, value)))
    if isinstance(value, float):
        return ("float", np.float64(value).tobytes())
    return (type(value).__name__, value)


@given(plain, plain)
def test_plain_values_have_equal_digests_if_and_only_if_they_are_equal_in_type_and_bits(
    one: object, two: object
) -> None:
    assert (digest_value(one) == digest_value(two)) == (exact(one) == exact(two))


@given(plain)
def test_a_pickled_copy_has_the_same_digest(value: object) -> None:
    assert digest_value(cloudpickle.loads(cloudpickle.dumps(value))) == digest_value(value)


@given(st.sets(st.text() | st.integers() | st.tuples(st.text(), st.integers())))
def test_a_set_has_the_digest_of_its_elements_in_any_order(value: set) -> None:
    backwards = sorted(value, key=str, reverse=True)
    assert digest_value(set(backwards)) == digest_value(value)


def test_a_list_that_holds_itself_has_a_digest() -> None:
    value: list = [1]
    value.append(value)
    assert digest_value(value) == digest_value(cloudpickle.loads(cloudpickle.dumps(value)))
    assert digest_value(value) != digest_value([1, [1]])


def test_values_of_the_stack_differ_by_content() -> None:
    import awkward as ak
    import hist
    import pandas as pd

    filled = hist.Hist.new.Reg(3, 0, 1).Weight()
    filled.fill([0.1])
    values = [
        filled,
        hist.Hist.new.Reg(3, 0, 1).Weight(),
        pd.Series([1, 2], name="a"),
        pd.Series([1, 2], name="b"),
        pd.Series(["a", "b"], dtype="category"),
        pd.Index([1, 2]),
        pd.RangeIndex(2),
        ak.Array([1, 2]),
        ak.Array([1, None]),
        ak.Record({"a": 1}),
        np.array([1, 2]),
        np.array([1, 2]).astype("M8[s]"),
        np.array(["a", "b"]),
        np.float64(1),
        np.random.RandomState(1),
        np.dtype("f4"),
    ]
    assert len({digest_value(v) for v in values}) == len(values)
    assert [digest_value(v) for v in cloudpickle.loads(cloudpickle.dumps(values))] == [digest_value(v) for v in values]


def test_an_array_counts_with_the_behavior_it_carries() -> None:
    import awkward as ak
    from coffea.nanoevents.methods import vector

    def twice(array: object) -> int:
        return 2

    def thrice(array: object) -> int:
        return 3

    columns = {"pt": np.ones(2), "phi": np.ones(2)}
    behaviors = [None, vector.behavior, *({**vector.behavior, ("*", "P"): kind} for kind in (twice, thrice))]
    values = [ak.zip(columns, with_name="P", behavior=behavior) for behavior in behaviors]
    assert len({digest_value(value) for value in values}) == len(values)
    for value, behavior in zip(values, behaviors, strict=True):
        again = behavior and dict(reversed(behavior.items()))
        assert digest_value(ak.zip(columns, with_name="P", behavior=again)) == digest_value(value)


def test_what_is_registered_for_records_counts_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import awkward as ak

    def times(n: int, array: object) -> int:
        return n

    digests = []
    for n in (2, 3):
        monkeypatch.setitem(ak.behavior, ("*", "Mine_of_test"), functools.partial(times, n))
        digests.append(describe({"array": ak.Array([1])}).digest)
    assert digests[0] != digests[1]


def test_a_model_has_the_digest_of_its_trees() -> None:
    xgboost = pytest.importorskip("xgboost")
    data = np.arange(40.0).reshape(20, 2)
    digests = set()
    for depth in (1, 1, 3):
        model = xgboost.XGBClassifier(n_estimators=2, max_depth=depth)
        model.fit(data, np.arange(20) % 2)
        digests.add(digest_value(model.get_booster()))
    assert len(digests) == 2


def test_files_enter_by_content(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("1")
    before = (fingerprint(len, file), fingerprint(len, inputs=[file]), fingerprint(len, str(file)), digest_file(file))
    file.write_text("2")
    after = (fingerprint(len, file), fingerprint(len, inputs=[file]), fingerprint(len, str(file)), digest_file(file))
    assert all(a != b for a, b in zip(before, after, strict=True))
    with pytest.raises(FingerprintError, match="cannot be read"):
        fingerprint(len, inputs=[tmp_path / "none"])


def test_strings_that_may_name_files_are_told_and_do_not_enter_a_description_by_content(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("1")
    before = describe({"x": [str(file), "two\nlines"]})
    file.write_text("2")
    assert describe({"x": [str(file), "two\nlines"]}).digest == before.digest
    assert before.strings == {str(file)}


def load(path: Path, text: str, name: str = "user_code") -> types.ModuleType:
    """Write and import a module that is not in sys.modules."""
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROCESSOR = """
    CUT = 30
    def select_jets(x):
        return [
            v for v in x
            if v > 30
        ]
    class P:
        def process(self, events): return select_jets(events), CUT
        def postprocess(self, accumulator): return accumulator
"""


def test_an_edit_is_told_with_its_line_and_token(tmp_path: Path) -> None:
    old = describe({"p": load(tmp_path / "a.py", PROCESSOR).P()})
    new = describe({"p": load(tmp_path / "b.py", PROCESSOR.replace("v > 30", "v > 25")).P()})
    assert [d.text for d in diff(old.tree, new.tree)] == ["new code: select_jets, line 4: `30` became `25`"]
    stored = json.loads(json.dumps(old.tree))
    assert diff(stored, old.tree) == []


def test_a_changed_value_is_told_by_name(tmp_path: Path) -> None:
    old = describe({"p": load(tmp_path / "a.py", PROCESSOR).P()})
    new = describe({"p": load(tmp_path / "b.py", PROCESSOR.replace("CUT = 30", "CUT = 25")).P()})
    assert [d.text for d in diff(old.tree, new.tree)] == ["new value: P.process -> CUT: `30` became `25`"]


def test_the_body_of_an_omitted_method_does_not_enter_unless_other_code_names_it(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return describe({"p": load(tmp_path / "a.py", text).P()}, omit={"postprocess"}).digest

    edited = PROCESSOR.replace("return accumulator", "return None")
    assert digest(PROCESSOR) == digest(edited)
    named = PROCESSOR.replace("return select_jets", "return self.postprocess(1), select_jets")
    assert digest(named) != digest(named.replace("return accumulator", "return None"))


def test_code_edited_on_disk_after_its_import_keeps_what_is_live(tmp_path: Path) -> None:
    module = load(tmp_path / "a.py", PROCESSOR)
    (tmp_path / "a.py").write_text(textwrap.dedent(PROCESSOR).replace("v > 30", "v > 25"))
    assert (
        describe({"p": module.P()}).digest
        != describe({"p": load(tmp_path / "b.py", PROCESSOR.replace("v > 30", "v > 25")).P()}).digest
    )


def cell(text: str, name: str, namespace: dict) -> None:
    """Run a cell as a notebook does: its source is in linecache only."""
    text = textwrap.dedent(text)
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), namespace)


def test_a_cell_run_again_or_beside_others_changes_nothing() -> None:
    notebook: dict = {"__name__": "__main__"}
    cell("K = 1\ndef h(x): return x + K", "<cell 1>", notebook)
    cell("def run(x): return h(x)", "<cell 2>", notebook)
    before = fingerprint(notebook["run"])
    cell("# again\nK = 1\n\ndef h(x): return x + K", "<cell 3>", notebook)
    cell("other = 3", "<cell 4>", notebook)
    assert fingerprint(notebook["run"]) == before
    cell("def h(x): return x + K + 1", "<cell 5>", notebook)
    assert fingerprint(notebook["run"]) != before


RECEIVER = """
import pickle, sys
import cloudpickle
from coffea_dirac.fingerprint import describe
value, sources = cloudpickle.loads(sys.stdin.buffer.read())
print(describe({"p": value}, sources=sources).digest, describe({"p": value}).digest)
"""

SENDER = """
import json, logging, os, sys, cloudpickle, dataclasses, enum, functools, typing
import numpy as np
from coffea_dirac.fingerprint import describe
log = logging.getLogger(__name__)
HERE = os.path.dirname(os.path.abspath(__file__))
memo = {}
class E(enum.Enum):
    A = 1
@dataclasses.dataclass
class Config:
    cut: int = 30
    names: list = dataclasses.field(default_factory=list)
class N(typing.NamedTuple):
    a: int = 1
class Base:
    n = E.A
    @property
    def q(self): return self.n
class P(Base):
    '''Doc.'''
    def __init__(self): self.c = Config(); self.s = {"a", "b"}; self.t = N(2)
    def process(self, x):
        log.info(HERE)
        if False: print(absent)
        memo[x] = super().q
        return helper(x) + np.sum(x)
def deco(f):
    @functools.wraps(f)
    def w(*a): return f(*a)
    return w
@deco
def helper(x: int) -> int:
    # comment
    return x * len(memo)
p = P()
made = describe({"p": p})
if len(sys.argv) > 1: p.process(3)
sys.stdout.write(made.digest + " " + describe({"p": p}).digest + " ")
sys.stdout.flush()
sys.stdout.buffer.write(cloudpickle.dumps((p, made.sources)).hex().encode())
"""


def python(*arguments: str, data: bytes = b"", seed: str = "1", cwd: Path | None = None) -> str:
    """Return what another Python process prints."""
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, *arguments], input=data, capture_output=True, timeout=120, env=environment, cwd=cwd
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_code_shipped_by_value_has_the_same_digest_where_it_arrives(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SENDER)
    first, second, shipped = python(str(script), "call").split()
    assert first == second
    script.unlink()
    with_sources, without = python("-c", RECEIVER, data=bytes.fromhex(shipped), seed="2").split()
    assert with_sources == first
    assert without != first


def test_main_and_imported_code_have_the_same_digest(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SENDER)
    first = python(str(script)).split()[0]
    imported = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import script"
    assert python("-c", imported, seed="3", cwd=Path("/")).split()[0] == first


def interpreters() -> list[str]:
    """Return other Python versions of this machine, by the names they have on the path or beside each other."""
    folders = [
        *os.environ.get("PATH", "").split(os.pathsep),
        *(str(p) for p in Path(sys.base_prefix).parent.glob("3.1[123]*/bin")),
    ]
    found = {}
    for version in ("3.11", "3.12", "3.13"):
        for folder in folders:
            path = Path(folder) / f"python{version}"
            if path.is_file() and version not in found:
                done = subprocess.run([str(path), "-c", "pass"], capture_output=True, timeout=60, check=False)
                found.update({version: str(path)} if done.returncode == 0 else {})
    return sorted(found.values())


BARE = """
import importlib, json, pathlib, sys, types
package = types.ModuleType("coffea_dirac")
package.__path__ = [sys.argv[1]]
sys.modules["coffea_dirac"] = package
sys.path.insert(0, sys.argv[2])
from coffea_dirac.fingerprint import fingerprint
known = set(sys.modules)
found = {}
for case in sorted(pathlib.Path(sys.argv[3]).iterdir()):
    sys.path.insert(0, str(case))
    work = importlib.import_module("work")
    found[case.name] = fingerprint(work.run)
    sys.path.remove(str(case))
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("work", "helpers", "pkg", "space"):
            del sys.modules[name]
print(json.dumps(found))
"""


def test_python_versions_agree_where_source_exists(tmp_path: Path) -> None:
    from fingerprint_cases.agree import AGREE
    from fingerprint_cases.differ import DIFFER

    pythons = interpreters()
    if len(pythons) < 2:
        pytest.skip("needs two of Python 3.11, 3.12 and 3.13")
    for name, (side, _) in {**DIFFER, **AGREE}.items():
        files = side if isinstance(side, dict) else {"work.py": side}
        text = "".join(files.values())
        if "generated" in name or any(f"import {n}" in text or f"from {n}" in text for n in LIBRARIES):
            continue
        for file, content in files.items():
            path = tmp_path / name.replace(" ", "_") / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    found = []
    for interpreter in pythons:
        command = [interpreter, "-B", "-c", BARE, str(PACKAGE), str(Path(__file__).parent), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert len(found[0]) > 100
    assert {n for n in found[0] if len({side[n] for side in found}) > 1} == set()


LIBRARIES = ("numpy", "awkward", "hist", "pandas", "coffea", "correctionlib", "numba", "scipy", "attrs")


def test_an_installed_package_enters_by_version_and_an_editable_one_by_source(tmp_path: Path) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    for folder in (site, source):
        folder.mkdir()
    metadata = site / "fakelib-1.0.dist-info"
    metadata.mkdir()
    (site / "fakelib.py").write_text("def f(x): return 1\n")
    (metadata / "RECORD").write_text("fakelib.py,,\nfakelib-1.0.dist-info/METADATA,,\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fakelib\nVersion: 1.0\n")
    (tmp_path / "work.py").write_text("import fakelib\ndef run(x): return fakelib.f(x)\n")

    def digest(*paths: Path) -> str:
        code = f"import sys; sys.path[:0] = {[str(p) for p in (tmp_path, *paths)]!r}; import work; from coffea_dirac.fingerprint import fingerprint as f; print(f(work.run))"
        return python("-B", "-c", code)

    first = digest(site)
    (site / "fakelib.py").write_text("def f(x): return 22\n")
    assert digest(site) == first
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fakelib\nVersion: 1.1\n")
    assert digest(site) != first
    (metadata / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))
    (site / "fakelib.py").rename(source / "fakelib.py")
    editable = digest(source, site)
    (source / "fakelib.py").write_text("def f(x): return 333\n")
    assert digest(source, site) != editable


def test_the_tree_tells_where_code_is_and_the_digest_does_not_hold_it(tmp_path: Path) -> None:
    found = ingredients(load(tmp_path / "a.py", PROCESSOR).P().process)
    moved = ingredients(load(tmp_path / "b.py", "\n\n" + PROCESSOR).P().process)
    assert found.tree["@places"]["select_jets"]["file"] == str(tmp_path / "a.py")
    assert found.digest == moved.digest
    assert set(found.modules) == {"user_code"}
