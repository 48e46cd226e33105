"""Codecs: a result comes back as it was, to the bit, and equal results make equal bytes."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import awkward as ak
import boost_histogram as bh
import hist
import numpy as np
import pytest
from codec_values import AXES, STORAGES, digests, filled, named_values, same
from coffea.processor import accumulate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from coffea_dirac.codecs import decode, encode, register_codec, tree
from coffea_dirac.errors import CodecError, ConfigurationError, PayloadError

DATA = Path(__file__).parents[2] / "shared" / "data"
NAMES = sorted(named_values())


def again(value: Any) -> Any:
    return decode(*encode(value))


@pytest.mark.parametrize("name", NAMES)
def test_a_result_comes_back_to_the_bit(name: str) -> None:
    value = named_values()[name]
    back = again(value)
    assert same(back, value)
    assert same(value, named_values()[name]), "the original was changed"
    assert encode(back) == encode(value)


def test_payloads_are_the_same_in_processes_with_other_hash_seeds() -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import codec_values, json; print(json.dumps(codec_values.digests()))"
    here = digests()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        )
        there = json.loads(done.stdout)
        assert {name for name in here if here[name] != there[name]} == set()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.complex_numbers()
    | st.text(st.characters(codec=None))
    | st.binary()
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
ARRAYS = st_numpy.arrays(
    st_numpy.scalar_dtypes() | st_numpy.array_dtypes(max_size=3),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(HASHABLE, inner, max_size=3).map(lambda d: defaultdict(list, d))
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_nested_value_comes_back_to_the_bit(value: Any) -> None:
    payload = encode(value)
    back = decode(*payload)
    assert same(back, value)
    assert encode(back) == payload


@settings(max_examples=100, deadline=None)
@given(st.lists(HASHABLE, max_size=6))
def test_the_order_in_which_a_set_was_filled_does_not_matter(members: list[Any]) -> None:
    # Equal members of different types (1 and True) leave the first one in the set: they make other sets.
    unique = {(type(m), m): m for m in members if m == m}
    if len(set(unique.values())) == len(unique):
        backwards: set[Any] = set()
        for member in reversed(list(unique.values())):
            backwards.add(member)
        assert encode(set(unique.values())) == encode(backwards)


# ------------------------------------------------------------------------------------------- different values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("a", b"a"),
        ([1], (1,)),
        ({1}, frozenset({1})),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({}, OrderedDict()),
        (1.0, np.float64(1)),
        (np.int64(1), np.int32(1)),
        (np.arange(3), np.arange(3.0)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (defaultdict(int), defaultdict(float)),
        (hist.Hist(hist.axis.Regular(2, 0, 1)), hist.Hist(hist.axis.Regular(2, 0, 1, label="x"))),
        (hist.Hist(hist.axis.Regular(2, 0, 1)), hist.Hist(hist.axis.Regular(2, 0, np.nextafter(1, 2)))),
    ],
)
def test_different_results_make_different_payloads(one: Any, other: Any) -> None:
    assert encode(one) != encode(other)
    assert not same(again(one), other)


def test_what_lies_between_fields_does_not_matter() -> None:
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    # No copies: what numpy leaves between the fields of a copy is not said.
    one, other = (np.frombuffer(bytearray([fill]) * 3 * dtype.itemsize, dtype) for fill in (0, 255))
    for array in (one, other):
        array["a"], array["b"] = 1, 2.5
    assert one.view(np.uint8).tolist() != other.view(np.uint8).tolist()
    assert encode(one) == encode(other)


def test_gaps_and_directions_in_memory_do_not_matter() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert encode(array) == encode(np.repeat(array, 2, axis=1)[:, ::2]) == encode(array[::-1].copy()[::-1])


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_sums_over_what_comes_back_round_as_before_whatever_the_order_in_memory(axes: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).normal(size=(13, 17, 19)).transpose(axes)
    back = again(array)
    assert (back == array).all()
    assert back.strides == array.strides
    assert back.sum() == array.sum()
    assert all((back.sum(axis=axis) == array.sum(axis=axis)).all() for axis in range(3))
    assert again(np.ma.MaskedArray(array, array > 0)).sum() == np.ma.MaskedArray(array, array > 0).sum()
    assert encode(back) == encode(array)


def test_a_payload_with_axes_that_cannot_be_is_refused() -> None:
    payload = encode(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    for axes in (b"[1,1]", b"[0,2]", b"[0  ]"):
        with pytest.raises(CodecError, match="other axes"):
            decode(payload.codec, payload.data.replace(b"[1,0]", axes))


def test_arrays_that_come_back_can_be_added_to() -> None:
    back = again({"a": np.zeros(3), "b": np.ma.MaskedArray([1.0]), "c": [np.zeros((), "f4")]})
    back["a"] += 1
    back["b"] += 1
    back["c"][0] += 1
    assert back["a"].tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------------------- histograms


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: type(s).__name__)
def test_merging_kept_histograms_equals_merging_unkept_ones(storage: Any, axis: str) -> None:
    def leaves() -> list[dict[str, Any]]:
        # The single entry of seed 7 leaves bins whose variance is not defined yet.
        sizes = [(0, 40), (7, 1), (8, 1), (9, 0), (10, 40)]
        # Axes that grow themselves cannot be merged by boost-histogram unless they have grown alike.
        seeds = [0] * 5 if "growing" in axis else [seed for seed, _ in sizes]
        return [
            {"h": filled(AXES[axis](), storage, seed=seed, size=size if "growing" not in axis else 40)}
            for seed, (_, size) in zip(seeds, sizes, strict=True)
        ]

    unkept = accumulate(leaves())
    assert same(accumulate([again(leaf) for leaf in leaves()]), unkept)
    halves = [again(accumulate(leaves()[:2])), again(accumulate(leaves()[2:]))]
    assert same(accumulate(halves), accumulate([accumulate(leaves()[:2]), accumulate(leaves()[2:])]))


@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: type(s).__name__)
def test_filling_goes_on_after_loading(storage: Any) -> None:
    one, other = filled(AXES["regular"](), storage), again(filled(AXES["regular"](), storage))
    options = {"sample": [3.5]} if isinstance(storage, hist.storage.Mean | hist.storage.WeightedMean) else {}
    for h in (one, other):
        h.fill([0.3], "new process", **options)
    assert same(one, other)


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 50), st.booleans())
def test_edges_of_regular_axes_are_exact(start: float, width: float, bins: int, circular: bool) -> None:
    if start + width == start:
        return
    h = hist.Hist(hist.axis.Regular(bins, start, start + width, name="x", circular=circular))
    back = again(h)
    assert same(back, h)
    assert back.axes[0].edges.tobytes() == h.axes[0].edges.tobytes()


def test_edges_of_axes_that_have_grown_or_are_transformed_are_exact() -> None:
    rng = np.random.default_rng(5)
    inexact = 0
    for _ in range(300):
        bins, start, width = int(rng.integers(1, 50)), rng.normal(), abs(rng.normal()) + 0.01
        grown = hist.Hist(hist.axis.Regular(bins, start, start + width, growth=True, name="x"))
        grown.fill([start - rng.random(), start + width + rng.random()])
        power = hist.axis.transform.Pow(rng.random() + 0.1)
        for h in (
            grown,
            hist.Hist(hist.axis.Regular(bins, abs(start) + 0.01, abs(start) + 1, transform=power, name="x")),
        ):
            assert same(again(h), h)
            axis = h.axes[0]
            options = {"growth": True} if h is grown else {"transform": power}
            rebuilt = hist.axis.Regular(axis.size, axis.edges[0], axis.edges[-1], **options)
            inexact += rebuilt._ax.__getstate__()[-2:] != axis._ax.__getstate__()[-2:]
    # Otherwise this test would say nothing: from the edges alone some axes come out otherwise.
    assert inexact > 5


@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: type(s).__name__)
def test_histograms_that_come_back_share_nothing(storage: Any) -> None:
    payload = encode(hist.Hist(hist.axis.Regular(2, 0, 1, name="x", label="pt"), storage=storage))
    one, other = decode(*payload), decode(*payload)
    one.axes[0].label = "eta"
    one.fill([0.3], **({"sample": [3.5]} if isinstance(storage, hist.storage.Mean | hist.storage.WeightedMean) else {}))
    assert other.axes[0].label == "pt"
    assert encode(other) == encode(decode(*payload)) == payload != encode(one)


def test_unlimited_storage_is_not_changed_by_being_kept() -> None:
    h = filled(AXES["regular"](), hist.storage.Unlimited())
    before = h._hist.__getstate__()[-3:-1]
    encode(h)
    assert h._hist.__getstate__()[-3:-1] == before


def test_an_axis_with_a_transform_of_the_user_is_refused() -> None:
    numba = pytest.importorskip("numba")
    function = numba.cfunc("float64(float64)")(lambda x: x)
    own = bh.axis.transform.Function(function.ctypes, function.ctypes)
    with pytest.raises(CodecError, match="transform of your own"):
        encode({"h": bh.Histogram(bh.axis.Regular(2, 1, 3, transform=own))})


# ------------------------------------------------------------------------------------------- awkward and NanoEvents


@pytest.mark.filterwarnings("ignore:Branch Photon:RuntimeWarning")
def test_arrays_of_nanoevents_come_back_with_their_behavior() -> None:
    path = DATA / "nano_dimuon.root"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    from coffea.nanoevents import NanoAODSchema, NanoEventsFactory

    for mode in ("eager", "virtual"):
        events = NanoEventsFactory.from_root({str(path): "Events"}, schemaclass=NanoAODSchema, mode=mode).events()
        muons = events.Muon
        for value in (muons, muons[muons.pt > 20], muons[0], events.Muon.pt[:5], muons[:, :1].mass):
            back = again({"muons": value})["muons"]
            assert type(back) is type(value)
            assert ak.array_equal(back, value, same_content_types=True, check_parameters=True, equal_nan=True)
        pairs = again(muons[ak.num(muons) == 2])
        assert ak.all((pairs[:, 0] + pairs[:, 1]).mass >= 0)


def test_of_a_selection_only_what_was_selected_is_kept() -> None:
    events = ak.unflatten(np.arange(10_000.0), np.full(1000, 10))
    chosen = events[[997, 3]]
    assert encode(chosen) == encode(ak.Array(chosen.to_list()))
    assert len(encode(chosen).data) < 1000
    assert again(chosen).to_list() == chosen.to_list()


class Heavy(ak.Array):
    pass


def test_an_array_whose_class_is_not_known_here_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ak.behavior, ("*", "heavy"), Heavy)
    payload = encode(ak.Array([{"x": 1}], with_name="heavy"))
    assert type(decode(*payload)) is Heavy
    monkeypatch.delitem(ak.behavior, ("*", "heavy"))
    with pytest.raises(PayloadError, match="Heavy, whose behavior is not registered here"):
        decode(*payload)


def test_a_behavior_of_the_user_is_refused_with_what_to_do() -> None:
    class Own(ak.Array):
        pass

    array = ak.Array([{"x": 1}], with_name="own", behavior={("*", "own"): Own, "own": ak.Record})
    with pytest.raises(CodecError, match="behavior"):
        encode([array])


# ------------------------------------------------------------------------------------------- what is refused


def attributed() -> OrderedDict[str, int]:
    found = OrderedDict(a=1)
    found.note = "lost"  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ({"cutflow": {"4j2b": object()}}, 'result["cutflow"]["4j2b"]', "register_codec(object, dump, load)"),
        ([1, (2, {"x": print})], "result[1][1]['x']", "builtin_function_or_method"),
        ({"d": attributed()}, "result['d']", "note"),
        ({"d": defaultdict(lambda: 0)}, "result['d']", "functools.partial"),
        ({"d": defaultdict(functools.partial(open, "x"))}, "result['d']", "default_factory"),
        ({("a" * 100): object()}, "result['aaa", "..."),
        (np.zeros(1, [("a", object)]), "result", "fields"),
        (np.zeros(1, np.dtype("f8", metadata={"a": 1})), "result", "fields"),
        (np.rec.array([(1,)]), "result", "recarray"),
        ({"t": type}, "result['t']", "type"),
        (ak.ArrayBuilder(), "result", "ArrayBuilder"),
        (iter([]), "result", "iterator"),
    ],
)
def test_what_has_no_codec_is_refused_with_its_path(value: Any, path: str, words: str) -> None:
    with pytest.raises(CodecError) as raised:
        encode(value)
    assert raised.value.path.startswith(path.replace('"', "'"))
    assert words in str(raised.value)


def test_a_result_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(CodecError, match="contains itself"):
        encode(loop)
    own: dict[str, Any] = {}
    own["a"] = np.array([own], dtype=object)
    with pytest.raises(CodecError, match="contains itself"):
        encode(own)


# ------------------------------------------------------------------------------------------- register_codec


class Spectrum:
    def __init__(self, counts: Any) -> None:
        self.counts = counts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spectrum) and bool(np.array_equal(self.counts, other.counts))

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def own_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_own_by_type", {})
    monkeypatch.setattr(tree, "_own_by_name", {})


@pytest.mark.usefixtures("own_codecs")
def test_a_registered_type_comes_back() -> None:
    with pytest.raises(CodecError, match=r"register_codec\(Spectrum, dump, load\)"):
        encode({"s": Spectrum(np.arange(3))})
    register_codec(Spectrum, lambda s: {"counts": s.counts}, lambda t: Spectrum(t["counts"]))
    assert again({"s": [Spectrum(np.arange(3))]}) == {"s": [Spectrum(np.arange(3))]}
    register_codec(Spectrum, lambda s: s.counts.tobytes(), lambda b: Spectrum(np.frombuffer(b, int)))
    assert again(Spectrum(np.arange(3))) == Spectrum(np.arange(3))


@pytest.mark.usefixtures("own_codecs")
def test_a_type_that_is_not_registered_here_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    register_codec(Spectrum, lambda s: s.counts, Spectrum)
    payload = encode(Spectrum(np.arange(3)))
    monkeypatch.setattr(tree, "_own_by_name", {})
    with pytest.raises(PayloadError, match=r"register_codec\(Spectrum, \.\.\.\)"):
        decode(*payload)
    register_codec(Spectrum, lambda s: s.counts, Spectrum, version=2)
    with pytest.raises(PayloadError, match="version 1"):
        decode(*payload)


class Finer(Spectrum):
    def __add__(self, other: Any) -> Any:
        return self


@pytest.mark.usefixtures("own_codecs")
def test_a_dump_that_fails_names_the_place_and_a_load_that_fails_is_a_miss() -> None:
    register_codec(Spectrum, lambda s: 1 / s.counts, Spectrum)
    with pytest.raises(CodecError, match=r"result\['s'\]\[0\] is a .*Spectrum.*dump function raised ZeroDivisionError"):
        encode({"s": [Spectrum(0)]})
    register_codec(Spectrum, lambda s: {"inner": s.counts}, lambda t: Spectrum(t["other"]))
    with pytest.raises(CodecError, match=r"result\['s'\]\['dump\(\)'\]\['inner'\] is a builtins.object"):
        encode({"s": Spectrum(object())})
    with pytest.raises(PayloadError, match="KeyError: 'other'"):
        decode(*encode(Spectrum(3)))
    register_codec(Spectrum, lambda s: s, lambda s: s)
    with pytest.raises(CodecError, match="contains itself"):
        encode(Spectrum(3))


@pytest.mark.usefixtures("own_codecs")
def test_a_subclass_of_a_registered_type_is_refused_until_it_is_registered_too() -> None:
    assert type(again(Finer(1))) is Finer
    register_codec(Spectrum, lambda s: s.counts, Spectrum)
    with pytest.raises(CodecError, match=r"register_codec\(Finer, dump, load\)"):
        encode({"s": Finer(1)})
    register_codec(Finer, lambda s: s.counts, Finer)
    assert type(again(Finer(1))) is Finer


@pytest.mark.usefixtures("own_codecs")
def test_registering_nonsense_is_refused() -> None:
    class Local:
        pass

    for kind, words in (
        (dict, "kept already"),
        (np.ndarray, "kept already"),
        (Local, "inside a function"),
        (3, "a type"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            register_codec(kind, bytes, bytes)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="two functions"):
        register_codec(Spectrum, bytes, None)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- bytes that are not ours


def payload_of(node: Any, *buffers: bytes) -> bytes:
    encoder = tree.Encoder()
    for data in buffers:
        encoder.buffer(data)
    return encoder.finish(node)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x05",
        b"\xff" * 100,
        payload_of({"a": 1}),
        payload_of(["no such kind"]),
        payload_of(["own", "os.system/1", "true"]),
        payload_of(["os:system", "true"]),
        payload_of([["list"]]),
        payload_of([]),
        payload_of(["bytes", 0]),
        payload_of(["bytes", -1], b"x"),
        payload_of(["list", ["bytes", 0], ["bytes", 0]], b"x"),
        payload_of(1, b"left over"),
        payload_of(["dict", "a", 1, "a", 2]),
        payload_of(["dict", "a"]),
        payload_of(["dict", ["list"], 1]),
        payload_of(["numpy:array", "<f8", [10**12], 0], b"12345678"),
        payload_of(["numpy:array", "|O", [1], 0], b"12345678"),
        payload_of(["numpy:array", ["fields", 8, False, [["a", "|O", 0]]], [1], 0], b"12345678"),
        payload_of(["numpy:array", "|O", [0], 0], b""),
        payload_of(["numpy:array", "<f8", [-1], 0], b"12345678"),
        payload_of(["numpy:array", "<f8", [1.0], 0], b"12345678"),
        payload_of(["numpy:objects", [10**12]]),
        payload_of(["numpy:scalar", "|O", "0000000000000000"]),
        payload_of(["collections:defaultdict", "os.system"]),
        payload_of(["collections:defaultdict", ["partial", "builtins.eval", [], []]]),
        payload_of(["hist:sum", "__class__", []]),
        payload_of(["hist:histogram", "hist.Hist", "Double", 1, [["", "<f8"]], [["Regular", [True, True, False, False], ["", 10**9, 0.0, 1.0, 0.0, 1.0]]], [], 0], b"8" * 8),
        payload_of(["hist:histogram", "hist.Hist", "__class__", 1, [["", "<f8"]], [], [], 0], b"8" * 8),
        payload_of(["awkward:array", ['{"class": "NumpyArray", "primitive": "float64", "form_key": "a"}', 10**9, [["a-data", 0]]], "awkward.highlevel.Array", None, []], b"8" * 8),
        payload_of(["awkward:array", ['{"class": "EmptyArray", "form_key": null}', 0, []], "awkward.highlevel.Array", "os", []]),
        json.dumps([1, []]).encode(),
        b"\x08" + b"\0" * 7 + b"[" * 8,
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)  # fmt: skip
def test_bytes_that_are_no_payload_are_refused(data: bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(PayloadError):
        decode("tree/1", data)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_in_a_result_comes_back_as_what_it_holds(name: str) -> None:
    value = named_values()[name]
    inside = encode({"first": b"x", "part": encode(value), "last": [encode(1)]})
    back = decode(*inside)
    assert same(back, {"first": b"x", "part": named_values()[name], "last": [1]})
    assert encode(value).data in inside.data, "its bytes are not made again"


def test_a_payload_of_a_codec_of_before_is_written_as_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    old = encode([1.5, "x"])._replace(codec="tree/0")
    read = tree.decode
    monkeypatch.setattr(tree, "decode", lambda codec, data: read("tree/1", data))
    assert tree.encode({"part": old}) == encode({"part": [1.5, "x"]})


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0), st.integers(0, 255))
def test_a_damaged_payload_in_a_payload_raises_nothing_but_payload_errors(name: str, place: int, byte: int) -> None:
    data = bytearray(encode({"part": encode(_VALUES[name])}).data)
    inner = encode(_VALUES[name]).data
    begin = bytes(data).index(inner)
    data[begin + place % min(len(inner), 16 + int.from_bytes(inner[:8], "little"))] = byte
    try:
        decode("tree/1", bytes(data))
    except PayloadError:
        pass


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(PayloadError, match="pickle"):
        decode("pickle", b"cos\nsystem\n")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0), st.integers(0, 255), st.booleans())
def test_damaged_payloads_raise_nothing_but_payload_errors(name: str, place: int, byte: int, cut: bool) -> None:
    data = bytearray(encode(_VALUES[name]).data)
    # The head is where there is something to misunderstand; numbers in buffers are just other numbers.
    place %= min(len(data), 16 + int.from_bytes(data[:8], "little"))
    data = data[:place] if cut else data[:place] + bytes([byte]) + data[place + 1 :]
    try:
        decode("tree/1", bytes(data))
    except PayloadError:
        pass


_VALUES = named_values()
