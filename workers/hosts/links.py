"""Network namespaces that a process holds, and the wires between them (iproute2)."""

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from scenarios.contract import Failed

_COMMAND_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Interface:
    name: str
    addresses: tuple[str, ...]  # IPv4, with prefix length
    up: bool
    carrier: bool  # up, and so is the other end
    master: str | None
    capped: bool  # what it lets out is held up on purpose


def namespace_path(pid: int) -> str:
    return f"/proc/{pid}/ns/net"


def lay_bridge(pid: int, address: str) -> None:
    """See that the namespace of process `pid` has a bridge `br0` with this address ("10.77.0.1/24").

    Its hardware address is its own: else it takes that of one of its ports, which may be a guest's, and while
    the guest migrates two hosts have the same and do not reach each other.
    """
    bridge = interfaces(pid).get("br0")
    if bridge is not None and bridge.up and address in bridge.addresses:
        return
    make = [] if bridge is not None else [f"link add br0 address {_hardware_of(address)} type bridge"]
    _configure(pid, [*make, "link set lo up", f"address replace {address} dev br0", "link set br0 up"])


def lay_wire(switch_pid: int, port: str, node_pid: int, *, address: str | None = None, bridge: str = "br0") -> None:
    """See that a node's `eth0` is wired to the switch's bridge: as a port of the node's own bridge, or with
    an address of its own. What is left of a broken wire is removed.

    Whoever has an address has the same hardware address each time: its neighbours still know the last one's.
    """
    wire, end = interfaces(node_pid).get("eth0"), interfaces(switch_pid).get(port)
    # the kernel takes a dead switch's wires away some time after it died: until then they look whole from here
    connected = wire is not None and wire.carrier and not wire.capped and end is not None and end.carrier
    if connected and wire is not None and (address in wire.addresses if address else wire.master == "br0"):
        return
    if wire is not None:
        with contextlib.suppress(Failed):  # it may be taken away right now
            _configure(node_pid, ["link delete eth0"])
    remove = [f"link delete {port}"] if port in interfaces(switch_pid) else []
    peer = f"peer name eth0 {f'address {_hardware_of(address)} ' if address else ''}netns {node_pid}"
    make = [f"link add {port} type veth {peer}", f"link set {port} master {bridge} up"]
    _configure(switch_pid, [*remove, *make])
    use = [f"address add {address} dev eth0", "link set eth0 up"] if address else ["link set eth0 master br0 up"]
    _configure(node_pid, ["link set lo up", *use])


def take_wire(switch_pid: int, port: str) -> None:
    """Remove a wire at once, with both its ends; harmless when it is gone."""
    with contextlib.suppress(Failed):
        _configure(switch_pid, [f"link delete {port}"])


def interfaces(pid: int) -> dict[str, Interface]:
    """The interfaces of the network namespace that process `pid` is in."""
    entries = json.loads(_ip(pid, ["-json", "address", "show"]))
    return {
        entry["ifname"]: Interface(
            name=entry["ifname"],
            addresses=tuple(
                f"{address['local']}/{address['prefixlen']}"
                for address in entry.get("addr_info", [])
                if address["family"] == "inet"
            ),
            up="UP" in entry["flags"],
            carrier={"UP", "LOWER_UP"} <= set(entry["flags"]),
            master=entry.get("master"),
            capped=entry.get("qdisc") not in ("noqueue", "noop"),
        )
        for entry in entries
        if entry.get("ifname")
    }


def _hardware_of(address: str) -> str:
    return "02:00:" + ":".join(f"{int(number):02x}" for number in address.split("/")[0].split("."))


def _configure(pid: int, commands: Sequence[str]) -> None:
    """Run ip commands, in order, inside the network namespace of process `pid`."""
    _ip(pid, ["-batch", "-"], "\n".join(commands) + "\n")


def _ip(pid: int, arguments: Sequence[str], batch: str = "") -> str:
    command = ["nsenter", f"--net={namespace_path(pid)}", "ip", *arguments]
    try:
        done = subprocess.run(command, input=batch, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Failed("farm", f"ip {' '.join(arguments)}: no answer within {_COMMAND_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise Failed("farm", f"ip {' '.join(arguments)}: {' '.join((done.stderr or batch).split())}")
    return done.stdout
