"""What a session holds of one host, and what one revision asks of its guests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import libvirt

from scenarios.recipe import DiskSettings, GuestSettings
from workers import clocks
from workers.agent import AgentLink
from workers.hosts import base as hosts_base
from workers.hypervisors.events import FirstRuns
from workers.volumes import disks


@dataclass
class HostLink:
    """One host as this session holds it."""

    host: hosts_base.Host
    agent: AgentLink
    connection: libvirt.virConnect
    clock: clocks.Clock
    counter_khz: int | None  # how fast its processor counts, where that is known
    base: disks.Base
    first_runs: FirstRuns
    migration_uri: str  # as the other hosts' libvirtd reach the one of this connection

    def observed_s(self, at_s: float) -> float:
        """A time of the host's monotonic clock, on the observer's."""
        return at_s - self.clock.ahead_s

    @property
    def name(self) -> str:
        return self.host.name


@dataclass(frozen=True)
class Revision:
    """What a revision asks of its guests, and the hosts through the libvirtd that they run on."""

    guest: GuestSettings
    disk: DiskSettings
    links: Sequence[HostLink]
    emulator: Path | None = None  # which it deploys itself
