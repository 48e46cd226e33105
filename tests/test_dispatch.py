"""Bundles are runs of neighbouring work items of one file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.running.dispatch import BUNDLE_SECONDS, LEAST_SECONDS, Pending, bundle_size

pytestmark = pytest.mark.core


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 8), st.one_of(st.none(), st.floats(1e-4, 100)))
def test_every_item_is_handed_out_once_and_never_with_items_of_another_file(
    files: list[int], slots: int, cost: float | None
) -> None:
    pending = Pending.of([(i, f, f"k{i}") for i, f in enumerate(files)], file_of=lambda f: f)
    seen = []
    while pending.runs:
        bundle = pending.take(slots=slots, seconds_per_item=cost)
        assert len({f for _, f, _ in bundle}) == 1
        seen += [i for i, _, _ in bundle]
    assert seen == list(range(len(files)))


def test_bundles_hold_one_item_while_the_cost_is_unknown() -> None:
    assert bundle_size(1000, slots=2, seconds_per_item=None) == 1


def test_bundles_are_bounded_by_time() -> None:
    assert bundle_size(10_000, slots=1, seconds_per_item=BUNDLE_SECONDS / 3) == 3


def test_bundles_get_smaller_towards_the_end_but_not_smaller_than_what_pays() -> None:
    assert [bundle_size(n, slots=2, seconds_per_item=1.0) for n in (80, 40, 8, 1)] == [10, 5, 1, 1]
    sizes = [bundle_size(n, slots=2, seconds_per_item=0.01) for n in (800, 240, 80, 1)]
    assert sizes == [100, 30, 20, 20]
    assert sizes[-1] * 0.01 == LEAST_SECONDS
