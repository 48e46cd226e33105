"""The merge tree depends on the set of leaves only, and folds from left to right."""

from __future__ import annotations

import random

import hist
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coffea_dirac.merge import Leaf, Node, fold, tree

pytestmark = pytest.mark.core


def leaves_of(counts: list[int]) -> list[Leaf]:
    found = []
    for dataset, n in enumerate(counts):
        for i in range(n):
            found.append(Leaf(f"dataset{dataset % 3}", f"file{dataset}.root", f"{dataset}-{i}", len(found)))
    return found


def positions(node: Node | Leaf) -> list[int]:
    return [node.position] if isinstance(node, Leaf) else [p for child in node.children for p in positions(child)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_every_leaf_is_merged_once_and_in_order(counts: list[int]) -> None:
    leaves = leaves_of(counts)
    assert positions(tree(leaves)) == list(range(len(leaves)))


@given(st.lists(st.integers(1, 200), min_size=2, max_size=6))
def test_dropping_a_file_leaves_the_other_files_nodes_as_they_are(counts: list[int]) -> None:
    def file_nodes(leaves: list[Leaf]) -> set[str]:
        return {
            tree([leaf for leaf in leaves if leaf.filename == name]).digest for name in {x.filename for x in leaves}
        }

    leaves = leaves_of(counts)
    fewer = [leaf for leaf in leaves if leaf.filename != "file0.root"]
    assert file_nodes(fewer) < file_nodes(leaves)


def nodes(node: Node | Leaf) -> set[str]:
    return set() if isinstance(node, Leaf) else {node.digest}.union(*(nodes(child) for child in node.children))


def test_one_new_work_item_changes_one_path_of_the_tree() -> None:
    leaves = [Leaf("d", "f", f"{i}", i) for i in range(5000)]
    changed = [*leaves[:2500], Leaf("d", "f", "new", 5000), *leaves[2500:]]
    before, after = nodes(tree(leaves)), nodes(tree(changed))
    assert len(after - before) <= 8
    assert len(before) > 300


def test_the_sum_does_not_depend_on_the_order_in_which_results_arrived() -> None:
    rng = np.random.default_rng(1)
    values = [{"x": float(x)} for x in rng.lognormal(0, 10, 500)]
    leaves = leaves_of([200, 200, 100])
    arrived = list(range(500))
    random.Random(3).shuffle(arrived)
    store = {i: dict(values[i]) for i in arrived}
    assert fold(tree(leaves), lambda i: store[i]) == fold(tree(leaves), lambda i: dict(values[i]))


def test_a_leaf_without_a_result_is_left_out() -> None:
    leaves = leaves_of([4])
    assert fold(tree(leaves), lambda i: None if i == 2 else {i: 1}) == {0: 1, 1: 1, 3: 1}


def test_histograms_with_growing_categories_merge_in_fileset_order() -> None:
    def one(i: int) -> hist.Hist:
        h = hist.Hist.new.StrCat([], growth=True, name="process").Reg(4, 0, 1, name="x").Weight()
        h.fill(process=f"p{i % 3}", x=[0.1 * i % 1], weight=0.1 * i)
        return h

    merged = fold(tree(leaves_of([7])), one)
    assert list(merged.axes[0]) == ["p0", "p1", "p2"]
    assert merged.sum(flow=True).value == sum(0.1 * i for i in range(7))
