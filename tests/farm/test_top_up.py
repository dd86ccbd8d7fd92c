"""Blocks that a campaign lost are asked for once more, whatever their values were; and not for ever."""

from pathlib import Path

from farm.campaigns import session_blocks, top_up
from farm.results.database import transact
from farm.results.tables import Session
from tests.helpers.campaigns import SyntheticFarm, build_synthetic_farm


def a_farm(folder: Path) -> SyntheticFarm:
    farm = build_synthetic_farm(folder)
    farm.see_check_ins(4)
    return farm


def topped_up(farm: SyntheticFarm, session: Session) -> tuple[int, int] | None:
    """Ordinal and blocks of the session that was asked for, if one was."""
    row = transact(farm.engine, lambda tx: top_up(tx, session.id))
    return None if row is None else (row.ordinal, row.blocks)


def test_a_whole_campaign_needs_nothing(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    for session in farm.ask("example-3", [2, 3], clusters=["acorn"]):
        farm.measure(session)
    assert topped_up(farm, session) is None


def test_lost_blocks_are_asked_for_when_no_session_is_to_come_and_only_once(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    first, second, third = farm.ask("example-3", [2, 3], clusters=["acorn"], blocks=(1, 2, 2))
    farm.measure(first, broken=[3], fault="hypervisor")
    farm.measure(second)
    assert topped_up(farm, second) is None
    farm.measure(third)
    assert topped_up(farm, third) == (3, 1)
    assert topped_up(farm, third) is None


def test_a_session_that_brought_nothing_is_made_up_for(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    first, second = farm.ask("example-3", [2, 3], clusters=["acorn"], blocks=(3, 2))
    farm.measure(first)
    farm.end(second, "failed")
    assert topped_up(farm, second) == (2, 2)


def test_what_never_worked_is_not_asked_for_again(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    for session in farm.ask("example-3", [2, 3], clusters=["acorn"]):
        farm.measure(session, broken=[3])
    assert topped_up(farm, session) is None


def test_long_blocks_are_sessions_of_their_own() -> None:
    assert session_blocks((1, 2, 2), 4) == (1, 2, 2)
    assert session_blocks((1, 2, 2), 15) == (1, 1, 1, 1, 1)
