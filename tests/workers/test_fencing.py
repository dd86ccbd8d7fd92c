"""A worker with an old lease does not touch a host that was promised to somebody else."""

import datetime
from pathlib import Path

import pytest

from scenarios.crossing import Lease
from workers.fencing import Fence, LeaseLost

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)
LATER = (NOW + datetime.timedelta(hours=1)).isoformat()


def lease(token: int, *resources: str, expires: str = LATER) -> Lease:
    return Lease("session:a", token, resources or ("host:acorn/h1",), expires)


def test_a_newer_token_ends_the_older_lease(tmp_path: Path) -> None:
    older, newer = lease(4), lease(5)
    fence = Fence(tmp_path)
    fence.enter(older, NOW)
    fence.check(older)
    Fence(tmp_path).enter(newer, NOW)  # another process
    with pytest.raises(LeaseLost, match="token 5 > 4"):
        fence.check(older)
    with pytest.raises(LeaseLost):
        fence.enter(older, NOW)
    fence.check(newer)


def test_tokens_of_other_resources_do_not_matter(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(lease(9, "host:acorn/h2"), NOW)
    fence.enter(lease(4, "host:acorn/h1"), NOW)
    fence.check(lease(4, "host:acorn/h1"))


def test_a_lease_that_has_ended_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeaseLost, match="ended at"):
        Fence(tmp_path).enter(lease(4, expires=NOW.isoformat()), NOW)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"host:acorn/h1": "x"}'])
def test_a_damaged_record_does_not_stop_the_cluster(tmp_path: Path, damage: str) -> None:
    (tmp_path / "fence.json").write_text(damage)
    fence = Fence(tmp_path)
    fence.enter(lease(4), NOW)
    with pytest.raises(LeaseLost):
        fence.enter(lease(3), NOW)
