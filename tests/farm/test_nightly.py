"""What a farm asks by itself at night."""

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from farm import scheduler, sessions
from farm.inventory import load_inventory
from farm.nightly import LATEST_START, night_of
from farm.results.database import open_database, reading, transact
from farm.results.tables import Session
from farm.settings import (
    CHECKOUT,
    CampaignSettings,
    FarmFile,
    NightlySettings,
    RepositorySettings,
    Settings,
    load_settings,
)
from scenarios import sweeps
from scenarios.strict import BadData
from tests.helpers.repositories import Repository

AT_ONE = NightlySettings(at="01:00")
BEGINS = datetime.datetime(2026, 3, 4, 1, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("nightly", "now", "night"),
    [
        (AT_ONE, BEGINS, "2026-03-04"),
        (AT_ONE, BEGINS + LATEST_START - MINUTE, "2026-03-04"),
        (AT_ONE, BEGINS + LATEST_START, None),
        (AT_ONE, BEGINS - MINUTE, None),
        (NightlySettings(at="23:30"), datetime.datetime(2026, 3, 5, 0, 30, tzinfo=datetime.UTC), "2026-03-04"),
        (NightlySettings(), BEGINS, None),
    ],
)
def test_a_night_is_called_by_the_day_on_which_it_began(
    nightly: NightlySettings, now: datetime.datetime, night: str | None
) -> None:
    assert night_of(nightly, now) == night


class Farm:
    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "tiny")
        watched = RepositorySettings("tiny", str(folder / "tiny"))
        nightly = NightlySettings(at="01:00", sweeps=("upload-parallel", "migration-style"))
        self.settings = Settings(folder, None, FarmFile(repository=(watched,), nightly=nightly))
        self.inventory = load_inventory(CHECKOUT / "inventory")
        self.engine = open_database(self.settings.database_url)

    def watch(self, now: datetime.datetime) -> list[str]:
        return scheduler.watch(self.engine, self.settings, self.inventory, now)

    def nightly_sessions(self) -> list[Session]:
        with reading(self.engine) as transaction:
            query = select(Session).where(Session.purpose.in_(("a/a", "sweep"))).order_by(Session.campaign)
            return list(transaction.scalars(query))


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_each_night_asks_every_sweep_and_the_noise_once_on_every_cluster(farm: Farm) -> None:
    farm.repository.commit("one")
    farm.watch(BEGINS - MINUTE)
    assert farm.nightly_sessions() == []
    farm.watch(BEGINS)
    farm.repository.commit("two")
    farm.watch(BEGINS + MINUTE)
    asked = [(one.campaign, one.cluster) for one in farm.nightly_sessions() if one.ordinal == 0]
    assert sorted(asked) == sorted(
        (f"tiny-nightly-2026-03-04-{name}", cluster)
        for name in ("aa", "upload-parallel", "migration-style")
        for cluster in farm.inventory
    )


def test_what_a_night_did_not_get_to_is_given_up_when_the_next_begins(farm: Farm) -> None:
    farm.repository.commit("one")
    farm.watch(BEGINS)
    done = farm.nightly_sessions()[0].id

    def end_one(transaction: object) -> None:
        sessions.find(transaction, done).state = "done"  # type: ignore[arg-type]

    transact(farm.engine, end_one)
    farm.watch(BEGINS + datetime.timedelta(days=1))
    states = {(one.id == done, one.campaign[len("tiny-nightly-") :][:10], one.state) for one in farm.nightly_sessions()}
    assert states == {
        (True, "2026-03-04", "done"),
        (False, "2026-03-04", "cancelled"),
        (False, "2026-03-05", "queued"),
    }


def test_a_sweep_that_would_not_end_in_time_is_left_out_and_told(farm: Farm) -> None:
    farm.repository.commit("one")
    short = replace(farm.settings.farm, campaign=CampaignSettings(session_deadline_s=60))
    farm.settings = replace(farm.settings, farm=short)
    warnings = farm.watch(BEGINS)
    assert len(warnings) == 2
    assert "left out at night: sweep 'upload-parallel' takes about" in warnings[0]
    assert {one.purpose for one in farm.nightly_sessions()} == {"a/a"}


def test_every_sweep_of_this_house_fits_the_default_deadline() -> None:
    settings = Settings(CHECKOUT, None, FarmFile())
    for name in sweeps.names():
        sweep = sweeps.load(name)
        limit_s = sessions.deadline_s(settings, deployments=2 * sweep.blocks)
        assert sweep.expected_s(builds=2) <= limit_s, name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[nightly]\nat = '25:00'", "at = '25:00' must be a time in UTC such as '01:30'"),
        ("[nightly]\nsweeps = ['upload-paralel']", "there is no sweep 'upload-paralel'"),
    ],
)
def test_nights_that_cannot_be_are_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(text)
    with pytest.raises(BadData, match=told):
        load_settings(file, tmp_path)
