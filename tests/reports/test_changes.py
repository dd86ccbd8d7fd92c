"""A cluster's page tells what changed about its hosts, session by session."""

from sqlalchemy.orm import Session as Transaction

from farm.results.database import transact
from farm.results.tables import Bundle
from tests.reports.conftest import SyntheticFarm
from tests.reports.test_site import words_of


def test_a_cluster_tells_in_which_session_its_hosts_became_others(farm: SyntheticFarm) -> None:
    farm.see_check_ins()
    for ordinal in range(3):
        farm.measure("acorn", ordinal)

    def update_firmware(transaction: Transaction) -> None:
        for session, firmware in (("acorn0", "1.1"), ("acorn1", "1.2"), ("acorn2", "1.2")):
            bundle = transaction.query(Bundle).filter_by(session=session).one()
            assert bundle.facts is not None
            cost = {"trap cost": f"{len(session) * 10} ns", "load": session}
            hosts = {name: {**its, "firmware": firmware, **cost} for name, its in bundle.facts["hosts"].items()}
            bundle.facts = {**bundle.facts, "hosts": hosts}

    transact(farm.engine, update_firmware)
    told = words_of(farm.publish() / "clusters" / "acorn.html")
    changed = told.partition("What changed, session by session")[2].partition("Limits")[0]
    assert changed.split("UTC") == [
        " acorn1 2026-03-01 10:00 ",
        "h1: firmware was 1.1, is 1.2h2: firmware was 1.1, is 1.2 ",
    ]
