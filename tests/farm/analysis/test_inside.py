"""The walk among the commits inside a merge: what is measured next, and who is named."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.analysis.inside import MOST_AT_ONCE, SPREAD, Found, Pair, Shown, search

Inside = Mapping[str, Sequence[str]]

STRAIGHT: Inside = {"c1": ["P"], "c2": ["c1"], "c3": ["c2"]}
FORKED_EARLIER: Inside = {"c1": ["B"], "c2": ["c1"]}
# the branch took in the main line (Q) between its two commits
CAUGHT_UP: Inside = {"c1": ["B"], "up": ["c1", "Q"], "c2": ["up"]}
NESTED: Inside = {"c1": ["P"], "i1": ["c1"], "i2": ["i1"], "m": ["c1", "i2"], "c2": ["m"]}
LONG: Inside = {f"c{n}": [f"c{n - 1}" if n > 1 else "P"] for n in range(1, 21)}
ROOTS: Inside = {"r": [], "c": ["r"]}


def tips(inside: Inside) -> list[str]:
    return ["P", *(one for one in inside if not any(one in parents for parents in inside.values()))]


@pytest.mark.parametrize(
    ("inside", "shown", "next_pairs", "named"),
    [
        (STRAIGHT, {}, {("c1", "P"), ("c2", "c1"), ("c3", "c2")}, ()),
        (STRAIGHT, {("c1", "P"): "does not", ("c2", "c1"): "shows it", ("c3", "c2"): "does not"}, set(), ("c2",)),
        (STRAIGHT, {("c1", "P"): "shows it", ("c2", "c1"): "shows it", ("c3", "c2"): "does not"}, set(), ("c1", "c2")),
        (FORKED_EARLIER, {}, {("c1", "B"), ("c2", "c1")}, ()),
        (CAUGHT_UP, {}, {("c1", "B"), ("c2", "up")}, ()),
        (CAUGHT_UP, {("c1", "B"): "does not", ("c2", "up"): "shows it"}, set(), ("c2",)),
        (NESTED, {}, {("c1", "P"), ("m", "c1"), ("c2", "m")}, ()),
        (
            NESTED,
            {("c1", "P"): "does not", ("m", "c1"): "shows it", ("c2", "m"): "does not"},
            {("i1", "c1"), ("i2", "i1")},
            (),
        ),
        (ROOTS, {}, {("c", "r")}, ()),
    ],
)
def test_each_commit_is_compared_with_its_own_first_parent(
    inside: Inside, shown: Mapping[Pair, Shown], next_pairs: set[Pair], named: tuple[str, ...]
) -> None:
    found = search(tips(inside), inside, shown)
    assert set(found.next) == next_pairs
    assert found.named == named


def test_a_merge_inside_is_named_where_nothing_in_it_shows_the_change() -> None:
    shown: dict[Pair, Shown] = {("c1", "P"): "does not", ("m", "c1"): "shows it", ("c2", "m"): "does not"}
    shown |= {("i1", "c1"): "does not", ("i2", "i1"): "does not"}
    assert search(tips(NESTED), NESTED, shown) == Found(named=("m",))


def test_nothing_is_named_and_nothing_asked_where_no_commit_shows_it() -> None:
    shown: dict[Pair, Shown] = {("c1", "P"): "does not", ("c2", "c1"): "does not", ("c3", "c2"): "does not"}
    assert search(tips(STRAIGHT), STRAIGHT, shown).nothing
    shown["c2", "c1"] = "undecided"
    assert search(tips(STRAIGHT), STRAIGHT, shown).undecided


def test_what_is_being_measured_is_waited_for() -> None:
    shown: dict[Pair, Shown] = {("c1", "P"): "pending", ("m", "c1"): "shows it", ("c2", "m"): "pending"}
    found = search(tips(NESTED), NESTED, shown)
    assert found.pending
    assert not found.next


def test_of_a_long_branch_only_the_stretch_that_shows_it_is_looked_at() -> None:
    first = search(tips(LONG), LONG, {})
    assert [pair[0] for pair in first.next] == ["c4", "c8", "c12", "c16", "c20"]
    shown: dict[Pair, Shown] = dict.fromkeys(first.next, "does not")
    shown["c12", "c8"] = "shows it"
    second = search(tips(LONG), LONG, shown)
    assert second.next == (("c9", "c8"), ("c10", "c9"), ("c11", "c10"), ("c12", "c11"))
    shown |= dict.fromkeys(second.next, "does not")
    assert search(tips(LONG), LONG, shown) == Found(together=(("c9", "c10", "c11", "c12"),))


@dataclass(frozen=True)
class History:
    """A merge of a random history; `slow` are the commits inside that add the change by themselves."""

    inside: dict[str, list[str]]
    parents: list[str]
    slow: frozenset[str]

    def ancestors(self, commit: str) -> frozenset[str]:
        found: set[str] = set()
        waiting = [commit]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self.inside.get(one, [])
        return frozenset(found)

    def shows(self, pair: Pair) -> Shown:
        """A pair shows the change where its commit contains more slow ones than what it is compared with."""
        more = self.slow & self.ancestors(pair[0]) - self.ancestors(pair[1])
        return "shows it" if more else "does not"


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Any DAG: each commit has one to three parents among the earlier ones and three of the main line."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 40))
    inside: dict[str, list[str]] = {}
    for number in range(count):
        earlier = ["P", "B", "Q", *inside][-chance.choice([1, 2, 5, 50]) :]
        inside[f"c{number}"] = chance.sample(earlier, min(len(earlier), chance.choice([1, 1, 1, 2, 3])))
    made_from = {parent for parents in inside.values() for parent in parents}
    slow = frozenset(chance.sample(list(inside), chance.choice([0, 1, 1, 2])) if count > 1 else [])
    return History(inside, ["P", *(one for one in inside if one not in made_from)], slow)


@given(histories())
def test_the_walk_ends_and_asks_no_pair_twice(history: History) -> None:
    shown: dict[Pair, Shown] = {}
    while (found := search(history.parents, history.inside, shown)).next:
        assert not shown.keys() & set(found.next)
        assert len(set(found.next)) == len(found.next)
        assert len({commit for pair in found.next for commit in pair}) <= max(MOST_AT_ONCE, SPREAD + 1)
        assert all(pair[0] in history.inside for pair in found.next), (
            "what is outside is compared with, not asked about"
        )
        shown |= {pair: history.shows(pair) for pair in found.next}
    assert not found.unasked
    assert not found.pending
    assert set(found.named) <= set(history.inside)
    for commit in found.named:
        assert history.slow & history.ancestors(commit), "nobody is named for what came without him"


@given(st.integers(1, 60), st.data())
def test_the_one_slow_commit_of_a_branch_is_named(length: int, data: st.DataObject) -> None:
    inside = {f"c{n}": [f"c{n - 1}" if n else "P"] for n in range(length)}
    slow = f"c{data.draw(st.integers(0, length - 1))}"
    history = History(inside, ["P", f"c{length - 1}"], frozenset({slow}))
    shown: dict[Pair, Shown] = {}
    campaigns = 0
    while (found := search(history.parents, inside, shown)).next:
        shown |= {pair: history.shows(pair) for pair in found.next}
        campaigns += 1
    assert found == Found(named=(slow,))
    assert campaigns <= 3
