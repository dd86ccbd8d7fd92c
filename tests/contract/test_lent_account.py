"""A session as an account that is not root, on machines prepared as docs/how-to/lend-a-cluster.md says; and its budgets."""

from collections.abc import Iterator

import pytest

from scenarios import boot, boot_many, cow_start, live_migration, wipe
from scenarios.contract import Scenario
from tests.helpers.labs import Lab, outcomes_of
from tests.helpers.ssh_hosts import ssh_lab

pytestmark = pytest.mark.machine

PLACES = ("/srv/work", "/srv/shared", "/srv/console")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with ssh_lab(tmp_path_factory.mktemp("home"), user="farm") as lab:
        assert {link.agent.run(["id", "-un"], timeout_s=20) for link in lab.qemu.links} == {"farm\n"}
        yield lab


@pytest.mark.parametrize("scenario", [boot.SCENARIO, cow_start.SCENARIO, live_migration.SCENARIO], ids=lambda s: s.name)
def test_who_is_not_root_can_measure(lab: Lab, scenario: Scenario) -> None:
    outcomes = outcomes_of(lab.measure(scenario, lab.bench()))
    assert {(o.outcome, o.reason) for o in outcomes} == {("measured", None)}
    assert lab.guests_left() == []
    for link in lab.qemu.links:
        left = link.agent.run(["find", *PLACES, "-name", f"*{lab.session[:12]}-*"], timeout_s=20)
        assert left == ""


@pytest.mark.parametrize(
    ("scenario", "params", "told"),
    [
        (
            boot_many.SCENARIO,
            {"guests": 9},
            "no 128 MiB of memory for a guest on h1: 1024 MiB are lent for guests, 1024",
        ),
        (wipe.SCENARIO, {"volume_mib": 4096}, "no 4096 MiB of disk on h1: 2048 MiB are lent"),
    ],
    ids=["memory", "disk"],
)
def test_more_than_is_lent_is_nobodys_fault_and_is_not_made(
    lab: Lab, scenario: Scenario, params: dict[str, object], told: str
) -> None:
    outcomes = outcomes_of(lab.measure(scenario, lab.bench(), **params))
    assert {(o.outcome, o.fault) for o in outcomes} == {("unsupported", None)}
    assert all(told in (o.reason or "") for o in outcomes), outcomes
    assert lab.guests_left() == []
    host = lab.hosts.hosts[0]
    asked = {"folders": [str(lab.qemu.work_dir(host))]}
    assert lab.qemu.links[0].agent.call("hosts.lent.held_mib", timeout_s=20, **asked) < 256
