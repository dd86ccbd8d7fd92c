"""Small local clusters for tests, and things that strangers might run on them."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt

from scenarios.crossing import PlannedCluster, PlannedHost
from workers.hosts.base import ClusterHosts, Host

CHECKOUT = Path(__file__).resolve().parents[2]
FARM_HOME = Path(os.environ.get("FARM_HOME", CHECKOUT / "var"))


def planned_cluster(name: str, uri: str = "local:debian12", hosts: int = 2) -> PlannedCluster:
    return PlannedCluster(
        name=name,
        driver="qemu",
        hosts=tuple(PlannedHost(f"h{number}", uri, "here/room-1") for number in range(1, hosts + 1)),
        storage_disks=2,
        storage_disk_mib=512,
    )


@contextlib.contextmanager
def libvirt_of(host: Host) -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(host.uri)
    try:
        yield connection
    finally:
        connection.close()


def guests_of(cluster: ClusterHosts) -> list[str]:
    """The names of all guests on its hosts, whoever made them."""
    names = []
    for host in cluster.hosts:
        with libvirt_of(host) as connection:
            names += [domain.name() for domain in connection.listAllDomains()]
    return sorted(names)


def start_bare_guest(host: Host, name: str) -> None:
    """A guest that has nothing to boot from, and waits for that in its firmware."""
    xml = f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
        <os><type arch='x86_64' machine='q35'>hvm</type></os>
        <devices><emulator>{host.emulator}</emulator><memballoon model='none'/>
        <serial type='file'><source path='{host.console_dir}/{name}.console'/></serial></devices></domain>"""
    with libvirt_of(host) as connection:
        connection.createXML(xml, 0)


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
