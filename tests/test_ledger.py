"""A ledger against a list: whatever the order in which results come, fly, get lost and come again."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coffea_dirac.interfaces import Row
from coffea_dirac.ledger import MERGE_LEAST, Found, Group, Ledger, UnreadableError
from coffea_dirac.merge import Leaf, Node, Place, leaves_of, tree

pytestmark = pytest.mark.core

# So often a record that is to be added in this process cannot be read after all.
UNREADABLE = 0.1
sizes = st.lists(st.lists(st.sampled_from([1, 1, 2, 3, 35, 70]), min_size=1, max_size=4), min_size=1, max_size=3)


def plant(datasets: list[list[int]]) -> list[Leaf]:
    """Return the leaves of datasets whose files have so many work items."""
    leaves: list[Leaf] = []
    for d, files in enumerate(datasets):
        for f, n in enumerate(files):
            leaves += [Leaf(f"d{d}", f"d{d}f{f}", f"{d}-{f}-{i}", len(leaves) + i) for i in range(n)]
    return leaves


def nodes_of(place: Place) -> list[Node]:
    return [] if isinstance(place, Leaf) else [place, *(node for child in place.children for node in nodes_of(child))]


def rows_of(group: Group) -> list[Row]:
    return [row for part in group.parts for row in ([part] if isinstance(part, Row) else rows_of(part))]


class LedgerMachine(RuleBasedStateMachine):
    """Results are lists of positions; the model is the set of leaves that have one."""

    @initialize(datasets=sizes, seed=st.integers(0, 2**32 - 1))
    def begin(self, datasets: list[list[int]], seed: int) -> None:
        self.random = random.Random(seed)
        self.rows: dict[Row, list[int]] = {}
        self.marks: dict[int, str] = {}
        self.merged: set[Row] = set()
        self.flying: dict[Node, Group] = {}
        self.there: set[int] = set()
        self.absent: set[int] = set()
        self.halves: set[int] = set()
        self.order = plant(datasets)
        self.leaf = {leaf.position: leaf for leaf in self.order}
        self.ledger = Ledger(tree(self.order), self.load, lambda total, value: (total or []) + value)

    def load(self, place: Place, found: Found) -> list[int]:
        """Return what is to be added here; now and then a record turns out to be unreadable."""
        if found.row is not None and self.random.random() < UNREADABLE:
            raise UnreadableError
        return self.value(found)

    def value(self, found: Found) -> list[int]:
        return list(self.rows[found.row]) if found.row is not None else found.value

    def settle(self, known: float = 0.7) -> None:
        """Look again for what could not be read to be added here."""
        while self.ledger.unreadable:
            place, found = self.ledger.unreadable.pop()
            assert found.row is not None
            self.look_again([place], {found.row}, known)

    # ------------------------------------------------------------ the model's small change

    def row(self, positions: list[int], mark: str) -> Row:
        row = Row(mark, (), "", "", "json", f"pack{len(self.rows)}", 0, 1)
        self.rows[row] = positions
        return row

    @property
    def open(self) -> list[Leaf]:
        return [leaf for leaf in self.order if leaf.position not in self.there | self.absent]

    def present_below(self, place: Place) -> list[int]:
        return [leaf.position for leaf in leaves_of(place) if leaf.position not in self.absent]

    def know(self, leaf: Leaf) -> None:
        """Give a leaf a full key, sometimes another one than it had: an input may have changed."""
        self.marks[leaf.position] = f"{leaf.position}.{self.random.randrange(3)}"
        self.ledger.know(leaf, self.marks[leaf.position])

    def enter(self, leaf: Leaf, *, keeps: bool) -> None:
        self.there.add(leaf.position)
        if not keeps or leaf.position in self.halves:
            self.ledger.enter(leaf, Found(value=[leaf.position]))
            return
        self.know(leaf)
        self.ledger.enter(leaf, Found(self.row([leaf.position], self.marks[leaf.position])))

    def some(self, most: int | str) -> list[Leaf]:
        """Return neighbours that have no result yet, in any order."""
        first = self.random.randrange(len(self.open))
        if most == "all":
            leaves = self.open
        elif most == "file":
            leaves = [leaf for leaf in self.open if leaf.filename == self.open[first].filename]
        else:
            leaves = self.open[first : first + int(most)]
        self.random.shuffle(leaves)
        return leaves

    # ------------------------------------------------------------ what happens

    @precondition(lambda self: not self.there and not self.absent)
    @rule(share=st.sampled_from([0.5, 1.0]), merged=st.sampled_from([0.0, 0.3]))
    def survey(self, share: float, merged: float) -> None:
        """Enter what a cache has, as far as it has been merged."""
        known = [leaf for leaf in self.order if self.random.random() < share and leaf.position not in self.halves]
        for leaf in known:
            self.know(leaf)
        marks = {node: self.ledger.mark(node) for node in nodes_of(self.ledger.root)}
        waiting = [self.ledger.root]
        while waiting:
            place = waiting.pop()
            if isinstance(place, Node):
                if marks[place] and self.random.random() < merged:
                    self.there.update(self.present_below(place))
                    self.ledger.enter(place, Found(self.row(self.present_below(place), marks[place])))
                else:
                    waiting.extend(place.children)
            elif place in known:
                self.there.add(place.position)
                self.ledger.enter(place, Found(self.row([place.position], self.marks[place.position])))
        self.settle()

    @precondition(lambda self: self.open)
    @rule(most=st.sampled_from([1, 3, 40, 100, "file", "file", "all"]), memory=st.sampled_from([0, 0, 0, 0.02, 1]))
    def results_come(self, most: int | str, memory: float) -> None:
        for leaf in self.some(most):
            self.enter(leaf, keeps=self.random.random() >= memory)
        self.settle()

    @precondition(lambda self: self.open)
    @rule(most=st.sampled_from([1, 2, 40, "file", "all"]))
    def some_have_none(self, most: int | str) -> None:
        for leaf in self.some(most):
            self.absent.add(leaf.position)
            self.ledger.leave_out(leaf)
        self.settle()

    @precondition(lambda self: self.open)
    @rule()
    def one_is_halved(self) -> None:
        (leaf,) = self.some(1)
        new = [leaf._replace(position=len(self.leaf) + i) for i in range(2)]
        where = self.order.index(leaf)
        self.order[where : where + 1] = new
        self.leaf.update({half.position: half for half in new})
        self.halves.update(half.position for half in new)
        self.ledger.split(leaf, new)

    @rule(is_last=st.booleans(), most=st.integers(1, 4))
    def merges_leave(self, is_last: bool, most: int) -> None:
        for _ in range(most):
            node = self.ledger.take(is_last=is_last)
            if node is None:
                return
            self.leaves(node, is_last=is_last)

    def leaves(self, node: Node, *, is_last: bool) -> None:
        """Check a merge that is handed out."""
        below = {leaf.position for leaf in leaves_of(node)}
        assert below <= self.there | self.absent, "a result below is missing"
        for other in self.flying:
            assert not below & {leaf.position for leaf in leaves_of(other)}, "it overlaps with one in flight"
        group = self.ledger.group(node)
        rows = rows_of(group)
        assert [i for row in rows for i in self.rows[row]] == self.present_below(node)
        assert len(rows) > 1, "there is nothing to merge"
        assert is_last or len(rows) >= MERGE_LEAST
        assert not self.merged & set(rows), "merged already"
        assert group.mark == self.fresh_mark(node)
        self.flying[node] = group

    def fresh_mark(self, node: Node) -> str:
        """Return the mark of a node as a ledger that is asked for the first time tells it."""
        other = Ledger(node, self.load, lambda total, value: value)
        for leaf in leaves_of(node):
            if leaf.position in self.absent:
                other.leave_out(leaf)
            else:
                other.know(leaf, self.marks[leaf.position])
        return other.mark(node)

    def lands(self) -> Node:
        node = self.random.choice(list(self.flying))
        self.ledger.landed(node)
        return node

    @precondition(lambda self: self.flying)
    @rule(is_kept=st.sampled_from([True, True, True, False]))
    def a_merge_comes_back(self, is_kept: bool) -> None:
        node = self.lands()
        group = self.flying.pop(node)
        rows = rows_of(group)
        self.merged.update(rows)
        positions = [i for row in rows for i in self.rows[row]]
        found = Found(self.row(positions, group.mark)) if is_kept else Found(value=positions)
        self.ledger.enter(node, found)
        self.settle()

    @precondition(lambda self: self.flying)
    @rule()
    def a_merge_is_lost(self) -> None:
        node = self.lands()
        del self.flying[node]
        self.ledger.put_back(node)

    @precondition(lambda self: self.flying)
    @rule(share=st.sampled_from([0.05, 0.5, 1.0]), known=st.sampled_from([0.0, 0.7, 1.0]))
    def records_below_a_merge_are_lost(self, share: float, known: float) -> None:
        node = self.lands()
        rows = rows_of(self.flying.pop(node))
        lost = [row for row in rows if self.random.random() < share] or rows[:1]
        if self.random.random() < 0.5:
            for row in lost:
                self.look_again(self.ledger.reopen(node, [row]), {row}, known)
        else:
            self.look_again(self.ledger.reopen(node, lost), set(lost), known)
        self.settle(known)

    def look_again(self, places: list[Place], lost: set[Row], known: float) -> None:
        assert [self.present_below(place) for place in places], "each has a place"
        found = sorted(i for place in places for i in self.present_below(place))
        assert found == sorted(i for row in lost for i in self.rows[row])
        self.there.difference_update(found)
        for i in found:
            if self.random.random() < known:
                self.enter(self.leaf[i], keeps=True)

    # ------------------------------------------------------------ what must hold

    @invariant()
    def everything_that_is_there_is_there_once_and_in_order(self) -> None:
        found = [i for place, found in self.ledger.so_far() for i in self.value(found)]
        assert found == [leaf.position for leaf in self.order if leaf.position in self.there]

    @invariant()
    def it_is_done_only_when_nothing_is_missing(self) -> None:
        if self.ledger.is_done:
            assert not self.open
            assert not self.flying

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for _ in range(10_000):
            if self.ledger.is_done:
                break
            if self.open and self.random.random() < 0.5:
                if self.random.random() < 0.8:
                    self.results_come(self.random.choice(["file", "all"]), self.random.choice([0, 0, 0.02]))
                else:
                    self.some_have_none("file")
            node = self.ledger.take(is_last=not self.open or self.random.random() < 0.2)
            if node is not None:
                self.leaves(node, is_last=True)
            assert self.flying or self.open or self.ledger.is_done, "not done, and there is nothing to do"
            if self.flying and self.random.random() < 0.3:
                self.a_merge_comes_back(is_kept=self.random.random() < 0.9)
        assert self.ledger.is_done
        present = [leaf.position for leaf in self.order if leaf.position not in self.absent]
        result = self.ledger.result
        assert (self.value(result) if result is not None else []) == present
        assert self.ledger.take(is_last=True) is None


def check(**profile: Any) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        LedgerMachine, settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **profile)
    )


def test_a_ledger_does_what_a_list_does() -> None:
    check(max_examples=300, stateful_step_count=20)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_ledger_does_what_a_list_does_at_length() -> None:
    check(max_examples=3000, stateful_step_count=40)


def filled(datasets: list[list[int]], n: int) -> tuple[Ledger, list[Leaf]]:
    """Return a ledger that has a row for its first `n` leaves."""
    leaves = plant(datasets)
    ledger = Ledger(
        tree(leaves),
        lambda place, found: [str(found.row.key)] if found.row is not None else found.value,
        lambda total, value: (total or []) + value,
    )
    for leaf in leaves[:n]:
        enter_row(ledger, leaf)
    return ledger, leaves


def enter_row(ledger: Ledger, leaf: Leaf) -> None:
    ledger.know(leaf, leaf.identity)
    ledger.enter(leaf, Found(row(leaf.identity)))


def row(key: str) -> Row:
    return Row(key, (), "", "", "json", key, 0, 1)


def test_a_file_merged_while_all_others_turn_out_to_have_none_is_the_result() -> None:
    ledger, leaves = filled([[40, 1]], 40)
    node = ledger.take(is_last=False)
    assert node is not None
    ledger.leave_out(leaves[40])
    ledger.landed(node)
    ledger.enter(node, Found(row("merged")))
    assert ledger.is_done
    assert ledger.result == Found(row("merged"))


def test_a_merge_that_cannot_be_kept_is_added_here_also_when_nothing_is_missing_any_more() -> None:
    ledger, leaves = filled([[40, 40]], 40)
    first = ledger.take(is_last=False)
    assert first is not None
    for leaf in leaves[40:]:
        enter_row(ledger, leaf)
    ledger.landed(first)
    ledger.enter(first, Found(value=["first"]))
    second = ledger.take(is_last=True)
    assert second is not None
    ledger.landed(second)
    ledger.enter(second, Found(row("second")))
    assert ledger.result is not None
    assert ledger.result.value == ["first", "second"]
