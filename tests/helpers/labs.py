"""A session on a real cluster, in which scenarios are asked one by one."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scenarios import parameters
from scenarios.contract import Guest, Scenario, ScenarioError
from scenarios.crossing import Outcome, PlannedCluster
from scenarios.recipe import DiskSettings, GuestSettings
from tests.helpers.local_clusters import FARM_HOME, libvirt_of
from workers.bench import SessionBench
from workers.hosts.base import ClusterHosts
from workers.hypervisors.qemu import QemuCluster
from workers.marks import SessionMark
from workers.places import place_of
from workers.sheet import Place, RoundSheet, Verification


@dataclass(frozen=True)
class Lab:
    """A session on a cluster."""

    session: str
    hosts: ClusterHosts
    qemu: QemuCluster

    def bench(self, guest: GuestSettings | None = None, disk: DiskSettings | None = None) -> SessionBench:
        hosts = self.qemu.hosts(guest or GuestSettings(), disk or DiskSettings())
        return SessionBench(hosts, None, self.qemu.now_s)

    def measure(self, scenario: Scenario, bench: SessionBench, **params: object) -> RoundSheet:
        sheet = RoundSheet(scenario, Place(self.session, 1, 1, 1, 0, "r"))
        with bench:
            try:
                scenario.measure(bench, sheet, parameters.read(scenario.parameters, params))
            except ScenarioError as error:
                sheet.fail(error, {})
            Verification([sheet]).wait()
        return sheet

    def guests_left(self) -> list[str]:
        return [name for link in self.qemu.links for name in link.agent.call("basics.guests", timeout_s=10)]


class InterferingBench(SessionBench):
    """A bench on which the guest is suspended behind the scenario's back where `when` says so."""

    def __init__(self, lab: Lab, *, when: Callable[[str], bool]) -> None:
        plain = lab.bench()
        super().__init__(plain.hosts, None, lab.qemu.now_s)
        self._lab = lab
        self._when = when
        self._guest: Guest | None = None
        self.suspended = False

    def keep(self, resource: AbstractContextManager[Guest]) -> Guest:
        self._guest = super().keep(resource)
        return self._guest

    def pause_s(self, seconds: float) -> None:
        found = list(self._guest.found_on()) if self._guest is not None else []
        if not self.suspended and len(found) == 1 and self._when(found[0]):
            self._suspend(found[0])
        super().pause_s(seconds)

    def _suspend(self, host_name: str) -> None:
        assert self._guest is not None
        host = next(host for host in self._lab.hosts.hosts if host.name == host_name)
        with libvirt_of(host) as connection:
            connection.lookupByName(self._guest.name).suspend()
        self.suspended = True


@contextmanager
def lab_on(planned: PlannedCluster, home: Path) -> Iterator[Lab]:
    """In the empty folder `home`."""
    (home / "cache").symlink_to(FARM_HOME / "cache")
    cluster = place_of(home, planned)
    session = uuid.uuid4().hex
    try:
        hosts = cluster.up()
        with SessionMark(cluster.folder, session), QemuCluster(hosts, home, session, planned.guest) as qemu:
            yield Lab(session, hosts, qemu)
    finally:
        cluster.down()


def values_of(sheet: RoundSheet) -> dict[str, float]:
    return {sample.metric: sample.value for sample in sheet.samples() if sample.valid}


def outcomes_of(sheet: RoundSheet) -> list[Outcome]:
    return sheet.outcomes()
