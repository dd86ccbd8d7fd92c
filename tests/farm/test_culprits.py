"""The search inside a merge, on a real database: from a confirmed finding to the commit that did it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from farm import answers, culprits
from farm.results import queries
from farm.results.database import reading, transact
from farm.results.queries import EVERYTHING
from farm.results.tables import Finding, Owner, Session
from farm.settings import RepositorySettings
from reports.headlines import finding_sentences
from tests.farm.test_judge import slow_boot
from tests.helpers.campaigns import SyntheticFarm, build_synthetic_farm, commit_at, revision_at

EXAMPLE = RepositorySettings("example", "/nowhere")
BRANCH = {101: [2], 102: [101], 103: [102]}


class Search:
    """A farm in which check-in 3 is a merge that made boots slower on one cluster."""

    def __init__(self, folder: Path, inside: Mapping[int, Sequence[int]], like: dict[int, int]) -> None:
        self.farm: SyntheticFarm = build_synthetic_farm(folder, {3: slow_boot})
        self.farm.like = like
        self.farm.see_check_ins(4)
        self.farm.bring(3, inside)
        for session in self.farm.ask("example-3", [2, 3], clusters=["birch"]):
            self.farm.measure(session)

    def ask(self) -> list[Session]:
        """Judge, and queue what that asks for."""
        self.farm.judge()
        return transact(
            self.farm.engine,
            lambda tx: culprits.ask_inside(
                tx, self.farm.settings, Owner("local", "local"), EXAMPLE, commit_at(1), self.farm.now
            ),
        )

    def finding(self) -> Finding:
        (finding,) = self.farm.findings()
        return finding

    def answer(self) -> dict[str, list[str]]:
        """State, and who is named."""
        told = self.finding().inside or {}
        return {told["state"]: [one["revision"] for one in told["commits"]]}


@pytest.mark.parametrize(
    ("like", "named"),
    [
        ({101: 2, 102: 3, 103: 3}, [102]),
        ({101: 3, 102: 3, 103: 3}, [101]),
        ({101: 2, 102: 2, 103: 3}, [103]),
    ],
)
def test_the_slow_commit_of_a_merged_branch_is_named(tmp_path: Path, like: dict[int, int], named: list[int]) -> None:
    search = Search(tmp_path, BRANCH, like)
    queued = search.ask()
    assert [(one.purpose, one.cluster, one.ordinal, one.blocks) for one in queued] == [
        ("culprit", "birch", 0, 1),
        ("culprit", "birch", 1, 2),
        ("culprit", "birch", 2, 2),
    ]
    assert [(build["commit"], list(build["roles"])) for build in queued[0].builds] == [
        *((commit_at(number), ["window"]) for number in (2, 101, 102, 103)),
        (commit_at(1), ["canary"]),
    ]
    assert {one["name"] for one in queued[0].scenarios or ()} == {"boot", "cow_start"}
    assert search.answer() == {"measuring": []}
    assert search.ask() == [], "it is asked once"

    for session in queued[:-1]:
        search.farm.measure(session)
    assert search.ask() == []
    assert search.answer() == {"measuring": []}, "no verdict before all blocks are in"
    search.farm.measure(queued[-1])
    assert search.ask() == []
    assert search.answer() == {"named": [revision_at(number) for number in named]}
    entry = (search.finding().inside or {})["commits"][0]["metrics"][0]
    assert (entry["direction"], entry["n"]) == ("slower", 5)
    assert entry["ratio"] == pytest.approx(1.36, rel=0.2)

    (told, *_) = answers.regressions(search.farm.findings(), queries.check_ins(search.farm.engine, EVERYTHING))
    assert told["first_bad"] == revision_at(3)
    assert told["candidates"] == [{"revision": revision_at(named[0]), "probability": 1.0}]
    (sentence,) = finding_sentences(search.farm.engine, search.farm.inventory)
    culprit = f"by {commit_at(named[0])[:7]} «Inside {named[0]}» inside it"
    assert sentence.startswith(f"check-in {commit_at(3)[:7]} «Change 3» made ")
    assert sentence.endswith(culprit)


def test_the_merge_itself_stands_where_no_commit_inside_shows_it(tmp_path: Path) -> None:
    search = Search(tmp_path, BRANCH, dict.fromkeys(BRANCH, 2))
    for session in search.ask():
        search.farm.measure(session)
    assert search.ask() == []
    assert search.answer() == {"whole": []}


def test_a_cancelled_search_tells_that_it_does_not_know(tmp_path: Path) -> None:
    search = Search(tmp_path, BRANCH, dict.fromkeys(BRANCH, 2))
    for session in search.ask():
        search.farm.end(session, "cancelled")
    assert search.ask() == []
    assert search.answer() == {"undecided": []}


def test_a_long_branch_is_searched_in_stretches(tmp_path: Path) -> None:
    branch = {101: [2], **{number: [number - 1] for number in range(102, 116)}}
    search = Search(tmp_path, branch, {number: 3 if number >= 108 else 2 for number in branch})
    asked = []
    while queued := search.ask():
        asked.append([build["commit"] for build in queued[0].builds if "window" in build["roles"]])
        for session in queued:
            search.farm.measure(session)
    assert asked == [
        [commit_at(number) for number in (2, 103, 106, 109, 112, 115)],
        [commit_at(number) for number in (106, 107, 108, 109)],
    ]
    assert search.answer() == {"named": [revision_at(108)]}


def test_what_the_branch_forked_from_is_what_its_first_commit_is_compared_with(tmp_path: Path) -> None:
    """The main line became slower after the fork: that is not the branch's doing."""
    branch = {101: [1], 102: [101]}
    search = Search(tmp_path, branch, {101: 1, 102: 3})
    for session in search.ask():
        assert [build["commit"] for build in session.builds] == [commit_at(number) for number in (1, 101, 102)]
        search.farm.measure(session)
    search.ask()
    assert search.answer() == {"named": [revision_at(102)]}


def test_a_commit_that_broke_what_the_merge_broke_is_named(tmp_path: Path) -> None:
    farm = build_synthetic_farm(tmp_path)
    farm.see_check_ins(4)
    farm.bring(3, BRANCH)
    for session in farm.ask("example-3", [2, 3], clusters=["birch"]):
        farm.measure(session, broken=[3])
    farm.judge()
    queued = transact(
        farm.engine,
        lambda tx: culprits.ask_inside(tx, farm.settings, Owner("local", "local"), EXAMPLE, commit_at(1), farm.now),
    )
    assert {one["name"] for one in queued[0].scenarios or ()} == {"boot"}
    for session in queued:
        farm.measure(session, broken=[102, 103])
    farm.judge()
    (finding,) = farm.findings()
    assert finding.direction == "broken"
    assert [one["revision"] for one in (finding.inside or {})["commits"]] == [revision_at(102)]


def test_a_check_in_that_is_no_merge_is_not_entered(tmp_path: Path) -> None:
    search = Search(tmp_path, {}, {})
    assert search.ask() == []
    assert search.finding().inside is None
    with reading(search.farm.engine) as transaction:
        assert transaction.query(Session).filter(Session.purpose == "culprit").count() == 0
