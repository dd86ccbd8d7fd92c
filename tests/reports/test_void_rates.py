"""Losses that spare a role, planted in campaigns, found by the whole analysis and told on the pages."""

from pathlib import Path

from reports import publish
from tests.helpers.campaigns import SyntheticFarm, build_synthetic_farm
from tests.reports.test_site import words_of


def measure_campaigns(home: Path, losing: list[int]) -> SyntheticFarm:
    """Eight campaigns of two sessions: in each first one, something of these check-ins is lost by the farm's fault."""
    farm = build_synthetic_farm(home)
    farm.see_check_ins(3)
    for number in range(8):
        first, second = farm.ask(f"example-{number}", [2, 3], clusters=["acorn"], blocks=(1, 1))
        farm.measure(first, broken=losing, fault="farm")
        farm.measure(second)
    farm.judge()
    return farm


def site_of(farm: SyntheticFarm) -> Path:
    return publish(farm.engine, farm.settings, farm.inventory, farm.now)


def test_a_role_that_loses_more_over_many_campaigns_is_told(tmp_path: Path) -> None:
    """One of two in each campaign shows nothing there; eight of sixteen against none of thirty-two do."""
    farm = measure_campaigns(tmp_path, [1])
    entries = [entry for finding in farm.findings() for entry in finding.metrics]
    assert [(entry["role"], entry["lost"], entry["n"]) for entry in entries] == [("canary", 8, 16)]
    assert {(finding.kind, finding.last_good) for finding in farm.findings()} == {("harness", None)}
    told = (
        "the farm's own losses on Acorn Hosting do not meet all check-ins alike: "
        "the role canary loses 8 of 16 deployments where the others lose 0 of 32"
    )
    site = site_of(farm)
    for page in ("index.html", "clusters/acorn.html"):
        assert told in words_of(site / page)


def test_losses_of_all_roles_alike_are_told_as_counts_alone(tmp_path: Path) -> None:
    farm = measure_campaigns(tmp_path, [1, 2, 3])
    assert farm.findings() == []
    assert "do not meet all check-ins alike" not in words_of(site_of(farm) / "clusters/acorn.html")
