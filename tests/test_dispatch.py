"""Bundles are runs of neighbouring work items of one file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.running.call import Source
from coffea_dirac.running.dispatch import BUNDLE_SECONDS, LEAST_SECONDS, Offer, Pending, bundle_size
from coffea_dirac.running.rooms import Rooms

pytestmark = pytest.mark.core


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 8), st.one_of(st.none(), st.floats(1e-4, 100)))
def test_every_item_is_handed_out_once_and_never_with_items_of_another_file(
    files: list[int], slots: int, cost: float | None
) -> None:
    pending = Pending([(i, f, f"k{i}") for i, f in enumerate(files)], file_of=lambda f: f)
    seen = []
    while pending:
        bundle = pending.take(Offer(slots), seconds_per_item=cost)
        assert len({f for _, f, _ in bundle}) == 1
        seen += [i for i, _, _ in bundle]
    assert seen == list(range(len(files)))


def test_bundles_hold_one_item_while_the_cost_is_unknown() -> None:
    assert bundle_size(1000, slots=2, seconds_per_item=None) == 1


def test_bundles_are_bounded_by_time() -> None:
    assert bundle_size(10_000, slots=1, seconds_per_item=BUNDLE_SECONDS / 3) == 3


def test_the_last_bundles_go_to_slots_that_are_free_and_wait_behind_no_other() -> None:
    pending = Pending([(n, "a", "") for n in range(100)], file_of=lambda item: item)
    busy, free = Offer(2, is_free=False), Offer(2)
    sizes = []
    while bundle := pending.take(busy, seconds_per_item=0.05):
        sizes.append(len(bundle))
    left = len(pending)
    assert 0 < left < 100 - sizes[0]
    assert len(pending.take(free, seconds_per_item=0.05)) == min(left, 4)
    assert len(pending.take(free, seconds_per_item=0.05)) == min(left - 4, 4)


def test_bundles_get_smaller_towards_the_end_but_not_smaller_than_what_pays() -> None:
    assert [bundle_size(n, slots=2, seconds_per_item=1.0) for n in (80, 40, 8, 1)] == [10, 5, 1, 1]
    sizes = [bundle_size(n, slots=2, seconds_per_item=0.01) for n in (800, 240, 80, 1)]
    assert sizes == [100, 30, 20, 20]
    assert sizes[-1] * 0.01 == LEAST_SECONDS


SITES = {"a": frozenset({"A"}), "b": frozenset({"B"}), "both": frozenset({"A", "B"}), "far": frozenset({"C"})}


def pending_at(*files: str) -> Pending:
    triples = [(i, file, f"k{i}") for i, file in enumerate(files)]
    return Pending(triples, file_of=lambda file: file, sites_of=lambda file: SITES.get(file, frozenset()))


def taken(pending: Pending, offer: Offer) -> list[str]:
    found = []
    while bundle := pending.take(offer, seconds_per_item=None):
        found += [file for _, file, _ in bundle]
    return found


def test_a_site_gets_its_own_files_first_then_those_that_nobody_has_near() -> None:
    pending = pending_at("nowhere", "b", "far", "both", "a")
    busy = Offer(2, site="A", is_free=False, staffed=frozenset("AB"))
    assert taken(pending, busy) == ["both", "a", "nowhere", "far"]
    assert len(pending) == 1


def test_what_lies_elsewhere_goes_to_a_worker_that_has_nothing_else_to_do() -> None:
    pending = pending_at("b", "b", "a")
    assert taken(pending, Offer(2, site="A", is_free=True, staffed=frozenset("AB"))) == ["a", "b", "b"]


def test_what_tells_whether_a_worker_is_broken_goes_out_before_all_else_wherever_it_lies() -> None:
    pending = Pending([(n, n, "k") for n in range(6)], file_of=lambda n: n, sites_of=lambda n: frozenset({"A"}))
    pending.add_first((7, 7, "k"))
    assert len(pending) == 7
    taken = [pending.take(Offer(1, site=site, staffed=frozenset("AB")), seconds_per_item=1.0) for site in "BAA"]
    assert [triples[0][0] for triples in taken] == [7, 0, 1]
    assert len(pending) == 4


def test_what_failed_at_a_site_goes_to_another_one_as_long_as_there_is_any() -> None:
    def positions(staffed: str) -> list[int]:
        pending = Pending([(0, 0, "k")], file_of=lambda n: n)
        pending.add_first((7, 7, "k"), failed_at="A")
        offers = [
            Offer(1, site="A", staffed=frozenset(staffed)),
            Offer(1, site=staffed[-1], staffed=frozenset(staffed)),
        ]
        return [pending.take(offer, seconds_per_item=1.0)[0][0] for offer in offers]

    assert positions("AB") == [0, 7]
    assert positions("A") == [7, 0]


def test_a_site_without_workers_is_not_waited_for() -> None:
    pending = pending_at("b", "b")
    assert taken(pending, Offer(2, site="A", is_free=False, staffed=frozenset("A"))) == ["b", "b"]


@given(
    st.lists(st.sampled_from([*SITES, "nowhere"]), max_size=40),
    st.lists(st.tuples(st.sampled_from("AB"), st.booleans()), max_size=100),
)
def test_with_sites_every_item_is_still_handed_out_once(files: list[str], offers: list[tuple[str, bool]]) -> None:
    pending, seen = pending_at(*files), []
    for site, is_free in [*offers, *[("A", True)] * len(files)]:
        offer = Offer(2, site=site, is_free=is_free, staffed=frozenset("AB"))
        seen += [i for i, _, _ in pending.take(offer, seconds_per_item=1.0)]
    assert sorted(seen) == list(range(len(files)))


def test_an_error_of_the_only_worker_that_has_what_a_call_needs_is_not_doubted() -> None:
    gpu = (("GPU", 1.0),)
    rooms = Rooms(Source(lambda offer: None, kinds=[gpu]), lambda resources: False)
    rooms.workers = {
        "tcp://a": {"nthreads": 1, "site": "A"},
        "tcp://b": {"nthreads": 1, "site": "B"},
        "tcp://c": {"nthreads": 1, "site": "B", "resources": {"GPU": 1}},
    }
    assert rooms.has_peer("tcp://a", ())
    assert not rooms.has_peer("tcp://c", gpu)
