"""Sessions on disjoint hosts of one cluster, at the same time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.crossing import Plan, PlannedScenario, to_data
from scenarios.registry import SCENARIOS
from tests.helpers.local_clusters import CHECKOUT, wait_for
from tests.workers.test_session import NAME, TIMEOUT_S, Worker, marked, read_bundle, read_facts, until_measuring
from workers.hosts.namespaces import LocalCluster

pytestmark = pytest.mark.machine

SMALL = PlannedScenario("chunked_upload", SCENARIOS["chunked_upload"].version, {"size_mib": 4, "segment_mib": 1})


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("disjoint"))
    yield made
    made.hosts("hosts down")


def on(worker: Worker, host: str, session: str, *, blocks: int = 1) -> Plan:
    plan = worker.plan(session=session, blocks=blocks)
    return replace(
        plan,
        lease=replace(plan.lease, resources=(f"host:{NAME}/{host}",)),
        scenarios=(*plan.scenarios, SMALL),
        deadline_s=2 * TIMEOUT_S,
    )


def start(worker: Worker, plan: Plan) -> subprocess.Popen[str]:
    file = worker.home / f"{plan.session}.json"
    file.write_text(json.dumps(to_data(plan)))
    command = [sys.executable, "-m", "workers", "session", str(file), "--home", str(worker.home)]
    return subprocess.Popen(
        [*command, "--out", str(bundle_of(worker, plan))],
        cwd=CHECKOUT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def bundle_of(worker: Worker, plan: Plan) -> Path:
    return worker.home / f"{plan.session}.tar.gz"


def test_they_measure_at_once_and_neither_sees_nor_sweeps_the_other(worker: Worker) -> None:
    killed, other, next_one = on(worker, "h1", "killed", blocks=9), on(worker, "h2", "other"), on(worker, "h1", "next")
    first, second = start(worker, killed), start(worker, other)
    until_measuring(first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    third = start(worker, next_one)  # its sweep clears the first one's host, and that alone
    for process, plan, host in ((second, other, "h2"), (third, next_one, "h1")):
        _, errors = process.communicate(timeout=2 * TIMEOUT_S)
        assert process.returncode == 0, errors
        manifest, samples, _ = read_bundle(bundle_of(worker, plan))
        assert {(o.scenario, o.outcome, o.reason) for o in manifest.outcomes} == {
            ("boot", "measured", None),
            ("chunked_upload", "measured", None),
        }
        assert {place for sample in samples for place in sample["hosts"].values()} <= {host, "store"}
        assert set(read_facts(bundle_of(worker, plan)).hosts) == {host}
        assert not marked(plan.session)
    assert wait_for(lambda: not marked(killed.session))


def test_their_addresses_and_stores_are_not_the_same(worker: Worker) -> None:
    place = LocalCluster(worker.home, worker.cluster)
    up = place.up()
    one, other = place.part(up, {"h1"}), place.part(up, {"h2"})
    assert [host.name for host in (*one.hosts, *other.hosts)] == ["h1", "h2"]
    taken = [*one.guest_addresses, *other.guest_addresses, one.storage.address, other.storage.address]
    assert sorted(taken) == sorted(up.guest_addresses)
    assert not set(one.storage.disks) & set(other.storage.disks)
    assert one.storage.network_namespace != other.storage.network_namespace
    assert place.part(up, {"h1", "h2"}) == up
