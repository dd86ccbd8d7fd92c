"""Where the servers of one Swift are: all in one place, or storage servers on several hosts of the cluster.

On a host they have a network namespace of the session's own, wired to that host's bridge: what they are sent comes over
the host's own link, as its guests' traffic does, and they see nothing else of the host. It hangs on a process that ends
with the worker.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from workers.deadline import within
from workers.hosts import links
from workers.hosts.base import ClusterHosts, Host
from workers.processes import LEASE_VARIABLE

STORAGE_SERVERS = ("account", "container", "object")
_LOOPBACK = "127.0.0.1"
_PORT = "store"  # on the host's bridge
_START_TIMEOUT_S = 20.0
_HOLD = ["unshare", "--net", "sh", "-c", "echo up; exec cat >/dev/null"]


@dataclass(frozen=True)
class Node:
    """Servers behind one set of walls. `name` is a host's, and empty where the proxy is."""

    name: str
    network_namespace: Path
    servers: tuple[str, ...]
    storage_address: str
    disks: Mapping[str, Path]  # as the ring names them → image
    zones: Mapping[str, int]  # of the disks


@contextlib.contextmanager
def placed(cluster: ClusterHosts, hosts: int, *, lease: str) -> Iterator[list[Node]]:
    """The nodes for storage servers on so many hosts; with 0 all of them are where the proxy is.

    Raises Failed: stack for more hosts or disks than there are, farm where a host has no place for them.
    """
    storage, images = cluster.storage, list(enumerate(cluster.storage.disks, 1))
    if not hosts:
        disks = {f"d{number}": image for number, image in images}
        zones = {f"d{number}": number for number, _ in images}
        yield [Node("", storage.network_namespace, ("proxy", *STORAGE_SERVERS), _LOOPBACK, disks, zones)]
        return
    there = {"hosts": min(len(cluster.hosts), len(cluster.store_addresses)), "disks": len(images)}
    for what, count in there.items():
        if hosts > count:
            raise Failed("stack", f"stack.toml: swift.hosts = {hosts}, the cluster has {count} {what} for it")
    with contextlib.ExitStack() as held:
        nodes = [Node("", storage.network_namespace, ("proxy",), storage.address, {}, {})]
        for index, (host, address) in enumerate(zip(cluster.hosts[:hosts], cluster.store_addresses, strict=False)):
            own = {f"{host.name}-d{number}": image for number, image in images if (number - 1) % hosts == index}
            prefix = cluster.network.rpartition("/")[2]
            namespace = held.enter_context(_namespace_at(host, f"{address}/{prefix}", lease))
            zones = dict.fromkeys(own, index + 1)
            nodes.append(Node(host.name, namespace, STORAGE_SERVERS, address, own, zones))
        yield nodes


def ring_devices(nodes: Sequence[Node]) -> list[str]:
    """As the program that builds the rings is told of them."""
    return [f"{disk},{node.zones[disk]},{node.storage_address}" for node in nodes for disk in node.disks]


@contextlib.contextmanager
def _namespace_at(host: Host, address: str, lease: str) -> Iterator[Path]:
    if host.nearby is None:
        raise Failed("farm", f"host {host.name} is a machine of its own: storage servers cannot be placed on it yet")
    mark = {"PATH": os.defpath, LEASE_VARIABLE: lease}
    holder = subprocess.Popen(_HOLD, env=mark, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        if within(_START_TIMEOUT_S, f"a network for storage on {host.name}", holder.stdout.readline) != b"up\n":
            raise Failed("farm", f"host {host.name}: no network namespace for storage servers")
        links.lay_wire(host.nearby.pid, _PORT, holder.pid, address=address)
        yield Path(links.namespace_path(holder.pid))
    finally:
        links.take_wire(host.nearby.pid, _PORT)  # the kernel would do so too, some time after the namespace's end
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
