"""What changed about a cluster since the session before is told; what always changes is not."""

import pytest

from reports.changes import VOLATILE, HostFacts, changes

H1 = {"kernel": "6.1.0-1", "load": "0.1 0.2 0.3", "swap": "0 MiB"}


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"h1": H1}, {"h1": H1}, []),
        ({"h1": H1}, {"h1": {**H1, "load": "9 9 9"}}, []),
        ({"h1": H1}, {"h1": {**H1, "kernel": "6.1.0-2"}}, ["h1: kernel was 6.1.0-1, is 6.1.0-2"]),
        ({"h1": H1}, {"h1": {**H1, "governor": "performance"}}, ["h1: governor was not read, is performance"]),
        ({"h1": H1}, {"h1": H1, "h2": H1}, ["h2: was not in the session before"]),
        ({"h1": H1, "h2": H1}, {"h1": H1}, ["h2: was in the session before, and is not in this one"]),
    ],
)
def test_each_difference_is_one_line(before: HostFacts, after: HostFacts, lines: list[str]) -> None:
    assert changes(before, after) == lines


def test_what_opens_an_epoch_is_never_left_out() -> None:
    from workers.facts import DECLARED

    assert VOLATILE.isdisjoint(DECLARED)
