"""Which commit inside a merge did it: a walk over the merge's commits, told what each measured pair shows.

The check-ins of a repository are its first-parent history, and so are the commits of the branch that a merge brought:
each is compared with its own first parent. A long branch is looked at in stretches first, and only a stretch that
shows the change is looked at more closely; a merge inside is entered in its turn.

    main    ── P ─────────── M      M is slower than P: of the branch, c1 against B, c2 against c1 …
                ╲           ╱
                 B ── c1 ── c2

Where the branch took in the main line, the merge that did so brings what the main line did: the next commits are
compared with it, and it is never named. Nor is a commit without parents.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

SPREAD = 5  # commits of one stretch that are measured at once
MOST_AT_ONCE = 7  # commits, with those they are compared with; the canary comes on top

Shown = Literal["shows it", "does not", "undecided", "pending"]
Pair = tuple[str, str]  # a commit, and the ancestor that it is compared with


@dataclass(frozen=True)
class Found:
    """What is known so far: `named` show the change by themselves, each of `together` only as a stretch."""

    named: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()
    unasked: tuple[tuple[Pair, ...], ...] = ()  # pairs that are still to be measured, stretch by stretch
    pending: bool = False
    undecided: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.named or self.together or self.unasked or self.pending or self.undecided)

    @property
    def next(self) -> tuple[Pair, ...]:
        """What one campaign should measure now: whole stretches, as many as there is room for; at least one."""
        chosen: list[Pair] = []
        for pairs in () if self.pending else self.unasked:
            if chosen and len({commit for pair in (*chosen, *pairs) for commit in pair}) > MOST_AT_ONCE:
                break
            chosen += pairs
        return tuple(chosen)


@dataclass(frozen=True)
class _Walk:
    """`inside` are the commits that the merge brought, with all their parents."""

    inside: Mapping[str, Sequence[str]]
    shown: Mapping[Pair, Shown]
    looked_at: set[str] = field(default_factory=set)  # what several merges brought is looked at once

    def enter(self, parents: Sequence[str]) -> Found:
        """A merge with these parents."""
        return _all([self.stretch(base, commits) for base, commits in self._branches(parents)])

    def _branches(self, parents: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """The first-parent histories that a merge brought, oldest commit first, each with what it is compared with."""
        there = self._ancestors(parents[:1])
        for tip in parents[1:]:
            branch: list[str] = []
            commit = tip
            while commit in self.inside and commit not in there and commit not in self.looked_at:
                self.looked_at.add(commit)
                if not self._is_a_base(commit):
                    branch.append(commit)
                elif branch:
                    yield commit, branch[::-1]
                    branch = []
                commit = next(iter(self.inside[commit]), "")
            if branch:
                yield commit, branch[::-1]

    def _is_a_base(self, commit: str) -> bool:
        """Whether others are compared with it, and it with nothing."""
        parents = self.inside[commit]
        return not parents or any(parent not in self.inside for parent in parents[1:])

    def _ancestors(self, commits: Sequence[str]) -> set[str]:
        """All commits inside that these contain."""
        found: set[str] = set()
        waiting = list(commits)
        while waiting:
            commit = waiting.pop()
            if commit in self.inside and commit not in found:
                found.add(commit)
                waiting += self.inside[commit]
        return found

    def stretch(self, base: str, commits: Sequence[str]) -> Found:
        """Consecutive commits after `base`."""
        chosen = _spread(commits)
        pairs = list(zip(chosen, [base, *chosen[:-1]], strict=True))
        if missing := tuple(pair for pair in pairs if pair not in self.shown):
            return Found(unasked=(missing,))  # two merges may share a part of their stretches
        return _all([self._look(pair, commits) for pair in pairs])

    def _look(self, pair: Pair, commits: Sequence[str]) -> Found:
        shown = self.shown[pair]
        if shown != "shows it":
            return Found(pending=shown == "pending", undecided=shown == "undecided")
        commit, base = pair
        first = commits.index(base) + 1 if base in commits else 0
        between = commits[first : commits.index(commit) + 1]
        if len(between) > 1:
            closer = self.stretch(base, between)
            return Found(together=(tuple(between),)) if closer.nothing else closer
        closer = self.enter(self.inside[commit])
        return Found(named=(commit,)) if closer.nothing else closer


def search(parents: Sequence[str], inside: Mapping[str, Sequence[str]], shown: Mapping[Pair, Shown]) -> Found:
    """How far the search inside a merge with these parents is. A pair that is not in `shown` was never measured."""
    return _Walk(inside, shown).enter(parents)


def _spread(commits: Sequence[str]) -> list[str]:
    """At most SPREAD of them, evenly spread, the last one among them."""
    count = min(SPREAD, len(commits))
    return [commits[(i + 1) * len(commits) // count - 1] for i in range(count)]


def _all(found: Sequence[Found]) -> Found:
    return reduce(_both, found, Found())


def _both(one: Found, other: Found) -> Found:
    return Found(
        one.named + other.named,
        one.together + other.together,
        one.unasked + other.unasked,
        one.pending or other.pending,
        one.undecided or other.undecided,
    )
