"""Network namespaces that a process holds, and the wires between them (iproute2)."""

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


def namespace_path(pid: int) -> str:
    return f"/proc/{pid}/ns/net"


def interfaces(pid: int) -> dict[str, Interface]:
    """The interfaces of the network namespace that process `pid` is in."""
    entries = json.loads(_ip(pid, ["-json", "address", "show"]))
    return {
        entry["ifname"]: Interface(
            entry["ifname"],
            tuple(f"{a['local']}/{a['prefixlen']}" for a in entry.get("addr_info", []) if a["family"] == "inet"),
        )
        for entry in entries
        if entry.get("ifname")
    }


def configure(pid: int, commands: Sequence[str]) -> None:
    """Run ip commands, in order, inside the network namespace of process `pid`."""
    _ip(pid, ["-batch", "-"], "\n".join(commands) + "\n")


def bridge_commands(address: str) -> list[str]:
    """A bridge with this IPv4 address (and prefix).

    Its hardware address is its own: else it takes that of one of its ports, which may be a guest's, and while
    the guest migrates two hosts have the same and do not reach each other.
    """
    hardware = "02:00:" + ":".join(f"{int(number):02x}" for number in address.split("/")[0].split("."))
    return [
        "link set lo up",
        f"link add br0 address {hardware} type bridge",
        f"address add {address} dev br0",
        "link set br0 up",
    ]


def wire(switch_pid: int, port: str, node_pid: int, node_commands: Sequence[str]) -> None:
    """Lay a wire from the switch's bridge to `eth0` of a node, anew if half of an old one is left."""
    commands = [f"link add {port} type veth peer name eth0 netns {node_pid}", f"link set {port} master br0 up"]
    if port in interfaces(switch_pid):
        commands.insert(0, f"link delete {port}")
    configure(switch_pid, commands)
    configure(node_pid, node_commands)


def _ip(pid: int, arguments: Sequence[str], batch: str = "") -> str:
    command = ["nsenter", f"--net={namespace_path(pid)}", "ip", *arguments]
    try:
        done = subprocess.run(command, input=batch, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Failed("farm", f"ip {' '.join(arguments)}: no answer within {_COMMAND_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise Failed("farm", f"ip {' '.join(arguments)}: {' '.join((done.stderr or batch).split())}")
    return done.stdout
