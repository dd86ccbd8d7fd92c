"""Pages say of a cloud that is there already that nobody here deployed it, and what of it is not seen."""

from dataclasses import replace

from farm.inventory import Storage
from scenarios.crossing import PlannedCloud
from tests.reports.conftest import SyntheticFarm, revision_at
from tests.reports.test_site import words_of

TOLD = "The farm did not deploy this stack"


def test_a_cloud_is_told_from_what_the_farm_deploys(farm: SyntheticFarm) -> None:
    acorn = farm.inventory["acorn"]
    places = tuple(replace(host, uri=f"nova:{host.name}") for host in acorn.host)
    cloud = PlannedCloud("theirs", "guests", "10.0.0.9")
    there = replace(acorn, driver="openstack", host=places, storage=Storage(), cloud=cloud)
    farm = replace(farm, inventory={**farm.inventory, "acorn": there})
    farm.see_check_ins()
    on_cloud, on_hosts = farm.measure("acorn", 0), farm.measure("birch", 0)
    site = farm.publish()
    assert TOLD in words_of(site / "sessions" / f"{on_cloud}.html")
    assert TOLD not in words_of(site / "sessions" / f"{on_hosts}.html")
    cluster = words_of(site / "clusters" / "acorn.html")
    assert TOLD in cluster
    assert "object store" not in cluster
    assert TOLD not in words_of(site / "clusters" / "birch.html")
    measured = [page for page in (site / "revisions").glob("*.html") if TOLD in words_of(page)]
    assert any(revision_at(0)[:10] in page.name for page in measured)
