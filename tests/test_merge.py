"""The merge tree depends on the set of leaves only, and folds from left to right."""

from __future__ import annotations

import random
from typing import Any

import hist
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.interfaces import Discovered, Row
from coffea_dirac.ledger import Found, Ledger
from coffea_dirac.merge import Leaf, Node, Place, leaves_of, tree
from coffea_dirac.stages.rows import full_key
from coffea_dirac.worker.fold import add

pytestmark = pytest.mark.core


def make_leaves(counts: list[int]) -> list[Leaf]:
    found: list[Leaf] = []
    for dataset, n in enumerate(counts):
        for i in range(n):
            found.append(Leaf(f"dataset{dataset % 3}", f"file{dataset}.root", f"{dataset}-{i}", len(found)))
    return found


def positions(place: Place) -> list[int]:
    return [leaf.position for leaf in leaves_of(place)]


def nodes(place: Place) -> set[str]:
    return set() if isinstance(place, Leaf) else {place.digest}.union(*(nodes(child) for child in place.children))


def ledger_of(leaves: list[Leaf]) -> Ledger:
    return Ledger(tree(leaves), lambda place, found: found.value, add)


def merged(leaves: list[Leaf], values: dict[int, Any], order: list[int]) -> Any:
    ledger = ledger_of(leaves)
    for i in order:
        ledger.enter(leaves[i], Found(value=values[i]))
    assert ledger.result is not None
    return ledger.result.value


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_every_leaf_is_merged_once_and_in_order(counts: list[int]) -> None:
    leaves = make_leaves(counts)
    assert positions(tree(leaves)) == list(range(len(leaves)))


@given(st.lists(st.integers(2, 200), min_size=2, max_size=6))
def test_dropping_a_file_leaves_the_other_files_nodes_as_they_are(counts: list[int]) -> None:
    leaves = make_leaves(counts)
    fewer = [leaf for leaf in leaves if leaf.filename != "file0.root"]
    of_files = set().union(*(nodes(tree([x for x in fewer if x.filename == f])) for f in {x.filename for x in fewer}))
    assert of_files <= nodes(tree(leaves)) & nodes(tree(fewer))


def test_no_group_has_a_single_child() -> None:
    def check(place: Place) -> None:
        if isinstance(place, Node):
            assert len(place.children) > 1
            for child in place.children:
                check(child)

    check(tree(make_leaves([1, 1, 3, 200, 65, 1])))


def test_one_new_work_item_changes_one_path_of_the_tree() -> None:
    leaves = [Leaf("d", "f", f"{i}", i) for i in range(5000)]
    changed = [*leaves[:2500], Leaf("d", "f", "new", 5000), *leaves[2500:]]
    before, after = nodes(tree(leaves)), nodes(tree(changed))
    assert len(after - before) <= 8
    assert len(before) > 300


def test_the_sum_does_not_depend_on_the_order_in_which_results_arrived() -> None:
    rng = np.random.default_rng(1)
    values = {i: {"x": float(x)} for i, x in enumerate(rng.lognormal(0, 10, 500))}
    leaves = make_leaves([200, 200, 100])
    order = list(range(500))
    expected = merged(leaves, {i: dict(v) for i, v in values.items()}, order)
    random.Random(3).shuffle(order)
    assert merged(leaves, {i: dict(v) for i, v in values.items()}, order) == expected


def test_a_leaf_without_a_result_is_left_out() -> None:
    leaves = make_leaves([4])
    ledger = ledger_of(leaves)
    for leaf in leaves:
        if leaf.position == 2:
            ledger.leave_out(leaf)
        else:
            ledger.enter(leaf, Found(value={leaf.position: 1}))
    assert ledger.result is not None
    assert ledger.result.value == {0: 1, 1: 1, 3: 1}


def test_nothing_but_absent_leaves_merges_to_nothing() -> None:
    leaves = make_leaves([3, 2])
    ledger = ledger_of(leaves)
    for leaf in leaves:
        ledger.leave_out(leaf)
    assert ledger.is_done
    assert ledger.result is None


def test_halves_are_merged_where_their_whole_was() -> None:
    leaves = make_leaves([3])
    ledger = ledger_of(leaves)
    halves = [leaves[1]._replace(position=3), leaves[1]._replace(position=4)]
    ledger.enter(leaves[2], Found(value=["c"]))
    ledger.split(leaves[1], halves)
    ledger.enter(halves[1], Found(value=["b2"]))
    ledger.enter(leaves[0], Found(value=["a"]))
    assert [found.value for _, found in ledger.so_far()] == [["a"], ["b2"], ["c"]]
    ledger.enter(halves[0], Found(value=["b1"]))
    assert ledger.result is not None
    assert ledger.result.value == ["a", "b1", "b2", "c"]


def test_one_partial_sum_for_each_level_is_all_that_is_in_memory() -> None:
    leaves = make_leaves([300, 300, 300])
    ledger, most = ledger_of(leaves), 0
    for leaf in leaves:
        ledger.enter(leaf, Found(value=[leaf.position]))
        most = max(most, sum(1 for _ in ledger.so_far()))
    assert most <= 8


def test_histograms_with_growing_categories_merge_in_fileset_order() -> None:
    def one(i: int) -> hist.Hist:
        h = hist.Hist.new.StrCat([], growth=True, name="process").Reg(4, 0, 1, name="x").Weight()
        h.fill(process=f"p{i % 3}", x=[0.1 * i % 1], weight=0.1 * i)
        return h

    found = merged(make_leaves([7]), {i: one(i) for i in range(7)}, [3, 2, 6, 1, 0, 5, 4])
    assert list(found.axes[0]) == ["p0", "p1", "p2"]
    assert found.sum(flow=True).value == sum(0.1 * i for i in range(7))


def test_results_with_other_inputs_have_other_full_keys_also_when_memory_is_used_again() -> None:
    digests: dict[Any, str] = {}
    rows = (Row("k", (Discovered("metadata", "xsec", f"{i}"),), "", "", "json", "p", 0, 1) for i in range(1000))
    assert len({full_key(row, digests) for row in rows}) == 1000
