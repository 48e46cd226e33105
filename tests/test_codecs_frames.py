"""pandas: what was kept adds as before, and what would lose something is refused; that it comes back is in test_codecs."""

from __future__ import annotations

from typing import Any

import dateutil.tz
import numpy as np
import pandas as pd
import pytest
from codec_values import pandas_values, same
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_dirac.codecs import decode, encode
from coffea_dirac.errors import CodecError

pytestmark = pytest.mark.core

COLUMNS = (
    st.lists(st.integers(-5, 5) | st.none(), min_size=3, max_size=3).map(lambda v: pd.array(v, dtype="Int64"))
    | st.lists(st.floats(), min_size=3, max_size=3).map(np.array)
    | st.lists(st.text(max_size=3) | st.none(), min_size=3, max_size=3).map(lambda v: pd.array(v, dtype=object))
    | st.lists(st.text(st.characters(codec="utf-8"), max_size=3), min_size=3, max_size=3).map(
        lambda v: pd.array(v, dtype="str")
    )
    | st.lists(st.sampled_from("abc"), min_size=3, max_size=3).map(pd.Categorical)
)
LABELS = st.text("abc", max_size=2) | st.integers(0, 3) | st.tuples(st.integers(0, 1), st.just("t"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(LABELS, COLUMNS), max_size=4), st.lists(LABELS, min_size=3, max_size=3))
def test_any_frame_comes_back(columns: list[tuple[Any, Any]], rows: list[Any]) -> None:
    index = pd.Index(rows, tupleize_cols=False)
    series = [pd.Series(column, index=index) for _, column in columns]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=index)
    frame.columns = pd.Index([label for label, _ in columns], tupleize_cols=False, dtype=object)
    payload = encode(frame)
    found = decode(*payload)
    assert same(found, frame)
    assert encode(found) == payload


def test_frames_add_as_they_did() -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=["a", "b"])
    other = pd.DataFrame({"n": [5]}, index=["b"])
    found = decode(*encode(frame)).add(decode(*encode(other)), fill_value=0)
    assert same(found, frame.add(other, fill_value=0))


def test_what_comes_back_can_be_changed() -> None:
    for value in ({"n": [1, 2]}, {"n": [0.5, 1]}, {"t": ["a", "b"]}):
        frame = decode(*encode(pd.DataFrame(value)))
        frame.iloc[0, 0] = frame.iloc[1, 0]
        assert frame.iloc[0, 0] == value[next(iter(value))][1]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pd.Series(pd.arrays.SparseArray([0, 0, 1])), "Sparse"),
        (pd.Series([True, None], dtype="bool[pyarrow]"), "pyarrow"),
        (pd.DataFrame({"n": [object()]}), "builtins.object"),
        (pd.Timestamp("2026-01-01", tz=dateutil.tz.tzoffset("here", 5400)), "cannot be had by its name"),
        (
            pd.date_range("2026", periods=2, freq=pd.offsets.CustomBusinessDay(holidays=["2026-01-02"])),
            "index.freq = None",
        ),
        (type("Mine", (pd.DataFrame,), {"__module__": __name__})({"n": [1]}), "register_codec"),
    ],
)
def test_what_would_lose_something_is_refused(value: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        encode({"a": value})


def test_what_lies_under_missing_numbers_does_not_matter() -> None:
    one, other = (pd.arrays.IntegerArray(np.array([1, fill]), np.array([False, True])) for fill in (7, 8))
    assert encode(pd.Series(one)) == encode(pd.Series(other))


def test_the_values_have_the_dtypes_that_they_are_there_for() -> None:
    # pandas' guesses change from version to version; without these the round trips would say less than they seem to.
    values = pandas_values()
    assert {str(value.dtype) for value in values["texts"][1:]} == {"string"} | (
        {"str"} if pd.__version__ >= "3" else set()
    )
    assert all(value.dtype == object for value in values["objects"][:5])
