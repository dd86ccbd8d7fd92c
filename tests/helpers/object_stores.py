"""A small cluster with storage for tests, and Swift deployed on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scenarios import chunked_upload, parameters
from scenarios.contract import Scenario
from scenarios.crossing import PlannedCluster, PlannedHost
from tests.helpers.check_ins import FARM_HOME, DeploymentRepository, example_lock
from workers.agent import AgentLink
from workers.builds import Build, Workshop, resolve
from workers.hosts.base import ClusterHosts
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.objectstores.swift import SwiftStore
from workers.sheet import Place, RoundSheet, Verification
from workers.stacks.swift import Deployment, deploy

SOFTWARE = FARM_HOME / "cache" / "software"


@dataclass(frozen=True)
class Bed:
    """A cluster with four disks, with a session's mark and its agent at the observer."""

    cluster: ClusterHosts
    mark: SessionMark
    observer: AgentLink
    payload: Payload

    def deploy(self, build: Build, *, s3: bool = False) -> Deployment:
        number = len(list(self.mark.folder.glob("deployment-*")))
        run_dir = self.mark.folder / f"deployment-{number}"
        return deploy(build, self.cluster, lease=self.mark.session, run_dir=run_dir, software=SOFTWARE, s3=s3)


def planned_storage_cluster(name: str, disk_mib: int, hosts: int = 1) -> PlannedCluster:
    planned = tuple(PlannedHost(f"h{number}", "local:debian12", "here/room-1") for number in range(1, hosts + 1))
    return PlannedCluster(name, "qemu", planned, storage_disks=4, storage_disk_mib=disk_mib)


@contextmanager
def storage_bed(home: Path, name: str, payload_mib: int, disk_mib: int = 512, hosts: int = 1) -> Iterator[Bed]:
    local = LocalCluster(home, planned_storage_cluster(name, disk_mib, hosts))
    try:
        cluster = local.up()
        mark = SessionMark(cluster.folder, f"{name}-session")
        with mark, cluster.observer.agent(mark.session) as observer:
            yield Bed(cluster, mark, observer, Payload(mark.folder / "payload", payload_mib))
    finally:
        local.down()


def build_of(repository: DeploymentRepository, stack: str, **more: str) -> Build:
    """A check-in with this stack.toml, the example's lock and more files, built."""
    return resolve(
        repository.check_in({"stack.toml": stack, "lock.txt": example_lock(), **more}),
        Workshop(FARM_HOME, "test", repository.path.parent / "session"),
    )


class OneStore:
    """As much of a bench as the scenario needs."""

    hosts = ()

    def __init__(self, store: SwiftStore) -> None:
        self.store = store
        self._nonces = iter(range(100))

    def nonce(self) -> str:
        return f"n{next(self._nonces)}"

    def now_s(self) -> float:
        return time.monotonic()

    def pause_s(self, seconds: float) -> None:
        time.sleep(seconds)


def measured(store: SwiftStore, scenario: Scenario = chunked_upload.SCENARIO, **params: object) -> RoundSheet:
    """One round of the scenario, small and verified."""
    sheet = RoundSheet(scenario, Place("s", 1, 0, 0, 0, "r" * 64))
    asked = parameters.read(scenario.parameters, {"size_mib": 16, "segment_mib": 4, "parallel": 3} | params)
    scenario.measure(OneStore(store), sheet, asked)  # type: ignore[arg-type]
    Verification([sheet]).wait()
    return sheet
