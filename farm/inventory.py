"""The clusters that donors lend: `inventory/<cluster>.toml`, one file each, strictly read."""

import datetime
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenarios.crossing import (
    PlannedCloud,
    PlannedCluster,
    PlannedGuest,
    PlannedHost,
    PlannedLent,
    is_address_of,
    ssh_target,
)
from scenarios.strict import BadData, read_toml

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_LENT = (
    "what can be lent today: hosts of this machine (uri = 'local:debian12' or 'local:backports', driver 'qemu'), "
    "machines through ssh ('ssh://USER@MACHINE:PORT', driver 'kvm', or 'qemu' to emulate) "
    "or an OpenStack through its APIs ('nova' or 'nova:COMPUTE', driver 'openstack')"
)
# what workers have
_URIS = {"qemu": r"local:(debian12|backports)|ssh://.*", "kvm": r"ssh://.*", "openstack": r"nova(:[!-~]+)?"}
_HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]{40,}={0,2}")


@dataclass(frozen=True)
class Donor:
    """Who lends the cluster: the brand of its reports. `logo` is an SVG or PNG beside the inventory file."""

    name: str
    logo: str
    url: str
    statement: str
    contact: str
    example: bool = False  # made up: pages say so


@dataclass(frozen=True)
class InventoryHost:
    """`uri` says how the host is reached: `local:debian12` or `local:backports` is a host made on this machine.

    A machine of its own is `ssh://USER@MACHINE:PORT`; it has an `address` on the test network and a public `host_key`.
    Of a cloud that is there already it is `nova:<compute>`, or `nova` for wherever the cloud puts guests.
    """

    name: str
    uri: str
    zone: str
    address: str = ""
    host_key: str = ""


@dataclass(frozen=True)
class Storage:
    """Disks for the object store under test."""

    disks: int = 0
    disk_mib: int = 0


@dataclass(frozen=True)
class SigningKey:
    """Who may sign this cluster's bundles: a public key (ssh), or a file under FARM_HOME that holds one."""

    public: str = ""
    file: str = ""
    valid_from: datetime.datetime | None = None
    valid_until: datetime.datetime | None = None

    def __post_init__(self) -> None:
        if bool(self.public) == bool(self.file):
            raise ValueError("signing_key needs either 'public' or 'file'")


@dataclass(frozen=True)
class Cluster:
    """One donated cluster. `machine` names the physical machine where clusters share one: they then take turns.

    `fidelity = "hardware"` promises real machines: a session that finds a virtual one fails, by fault of the donor.
    `guest` is an image of the operator's own, for the scenario `operator_guest`. `cloud` is what driver `openstack`
    needs: the hosts are then places in a cloud that is there already, and nothing is deployed on them.
    """

    name: str
    description: str
    donor: Donor
    driver: Literal["qemu", "kvm", "openstack"]
    host: tuple[InventoryHost, ...]
    signing_key: tuple[SigningKey, ...]
    publish: bool
    storage: Storage = Storage()
    machine: str = ""
    fidelity: Literal["hardware"] | None = None
    guest: PlannedGuest | None = None
    cloud: PlannedCloud | None = None
    lent: PlannedLent | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name = {self.name!r} must be lower-case letters, digits and '-'")
        if not self.host:
            raise ValueError("needs at least one [[host]]")
        if len({host.name for host in self.host}) != len(self.host):
            raise ValueError("two hosts have the same name")
        if (self.driver == "openstack") != (self.cloud is not None):
            raise ValueError("driver 'openstack' needs a [cloud], and no other has one")
        if self.cloud is None and not self.storage.disks:
            raise ValueError("needs a [storage] with disks")
        for host in self.host:
            if not re.fullmatch(_URIS[self.driver], host.uri):
                raise ValueError(
                    f"host {host.name!r}: uri = {host.uri!r} is not one of driver {self.driver!r}; {_LENT}"
                )
        by_ssh = [host for host in self.host if host.uri.startswith("ssh:")]
        if bool(by_ssh) != (self.lent is not None) or by_ssh and len(by_ssh) < len(self.host):
            raise ValueError("hosts through ssh need a [lent] that says what they lend, and are not mixed with others")
        if self.lent is not None:
            _require_reachable(self.host, self.lent)

    @property
    def resources(self) -> tuple[str, ...]:
        """All that a whole-cluster session reserves, as one unit."""
        shared = (f"machine:{self.machine}",) if self.machine else ()
        hosts = tuple(f"host:{self.name}/{host.name}" for host in self.host)
        return (*shared, *hosts, f"storage:{self.name}")

    @property
    def planned(self) -> PlannedCluster:
        """The part of this file that a worker is told."""
        return PlannedCluster(
            name=self.name,
            driver=self.driver,
            hosts=tuple(PlannedHost(host.name, host.uri, host.zone, host.address, host.host_key) for host in self.host),
            storage_disks=self.storage.disks,
            storage_disk_mib=self.storage.disk_mib,
            fidelity=self.fidelity,
            guest=self.guest,
            cloud=self.cloud,
            lent=self.lent,
        )


def _require_reachable(hosts: tuple[InventoryHost, ...], lent: PlannedLent) -> None:
    """Raises ValueError for a host that ssh could not be told of, or that has no place of its own in the network."""
    taken = {lent.observer, lent.storage, *lent.guest_addresses}
    for host in hosts:
        if not _NAME.fullmatch(host.name):
            raise ValueError(f"host {host.name!r}: its name must be lower-case letters, digits and '-'")
        if ssh_target(host.uri) is None:  # which is not quoted: there may be a password in it
            raise ValueError(f"host {host.name!r}: uri must be ssh://USER@MACHINE or ssh://USER@MACHINE:PORT, no more")
        if not _HOST_KEY.fullmatch(host.host_key):
            raise ValueError(
                f"host {host.name!r}: host_key must be the machine's public key, kind and key alone: the first two "
                "words of its /etc/ssh/ssh_host_ed25519_key.pub"
            )
        if not is_address_of(ipaddress.IPv4Network(lent.network), host.address) or host.address in taken:
            raise ValueError(
                f"host {host.name!r}: address = {host.address!r} must be in lent.network = {lent.network}, "
                "and nobody else's"
            )
        taken.add(host.address)


def load_inventory(folder: Path, names: tuple[str, ...] = ()) -> dict[str, Cluster]:
    """All clusters of the folder, or the named ones, by name; raises strict.BadData naming file and key."""
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder of cluster files (settings: 'inventory')")
    clusters: dict[str, Cluster] = {}
    for path in sorted(folder.glob("*.toml")):
        cluster = read_toml(path, Cluster)
        if cluster.name != path.stem:
            raise BadData(f"{path}: name is '{cluster.name}', must be '{path.stem}' as the file is called")
        if not (folder / cluster.donor.logo).is_file():
            raise BadData(f"{path}: donor.logo '{cluster.donor.logo}' is not a file beside it")
        if cluster.guest is not None and not Path(cluster.guest.image).is_file():
            raise BadData(f"{path}: guest.image '{cluster.guest.image}' is not a file on this machine")
        clusters[cluster.name] = cluster
    for name in names:
        if name not in clusters:
            raise BadData(f"settings: clusters: '{name}' is not in {folder} (there: {', '.join(clusters) or 'none'})")
    return {name: cluster for name, cluster in clusters.items() if not names or name in names}
