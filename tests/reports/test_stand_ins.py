"""What of a deployed stack is not the real thing stands on the pages of its sessions and check-ins."""

from sqlalchemy.orm import Session

from farm.results.database import transact
from farm.results.tables import Bundle
from tests.reports.conftest import SyntheticFarm, revision_at
from tests.reports.test_site import words_of

TOLD = "Not the real thing: in Neutron’s place stands one network of the farm's own"


def test_what_stands_in_for_neutron_is_said(farm: SyntheticFarm) -> None:
    farm.see_check_ins()
    with_nova, without = farm.measure("acorn", 0), farm.measure("birch", 0)

    def deploy_openstack(transaction: Session) -> None:
        bundle = transaction.query(Bundle).filter_by(session=with_nova).one()
        manifest = bundle.manifest or {}
        builds = [{**build, "settings": {"stack": {"deployer": "openstack"}}} for build in manifest["builds"]]
        bundle.manifest = {**manifest, "builds": builds}

    transact(farm.engine, deploy_openstack)
    site = farm.publish()
    assert TOLD in words_of(site / "sessions" / f"{with_nova}.html")
    assert TOLD not in words_of(site / "sessions" / f"{without}.html")
    measured = [page for page in (site / "revisions").glob("*.html") if TOLD in words_of(page)]
    assert any(revision_at(0)[:10] in page.name for page in measured)
