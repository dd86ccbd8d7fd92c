"""A host's own link, what it carries and what harm is done to it on purpose: operations of its agent.

Each harm is a process that undoes it as soon as its standard input closes, or after a limit: when the session or the
agent is killed, the link comes back all the same. What even that leaves, whoever brings the cluster up mends.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed, WorkNotProven
from workers.operations import operation

_UNDO_TIMEOUT_S = 10.0
_PROGRAM = 'eval "$1" && echo done && { timeout "$3" cat >/dev/null; eval "$2"; }'
_RECEIVED, _SENT = 0, 8  # bytes, in a line of /proc/net/dev


@dataclass(frozen=True)
class _Harm:
    process: subprocess.Popen[bytes]
    bytes_before: int


_harms: dict[str, _Harm] = {}


@operation
def cut(interface: str, limit_s: float) -> None:
    """Take the interface down until `mend`."""
    _begin(interface, f"ip link set {interface} down", f"ip link set {interface} up", limit_s)


@operation
def cap(interface: str, mib_s: int, limit_s: float) -> None:
    """Let no more than this out of the interface until `mend`."""
    limit = f"rate {mib_s << 23}bit burst 256kb latency 50ms"
    _begin(interface, f"tc qdisc add dev {interface} root tbf {limit}", f"tc qdisc del dev {interface} root", limit_s)


@operation
def sent_bytes(interface: str) -> int:
    """What the interface has sent so far."""
    return _counters(interface)[1]


@operation
def mend(interface: str) -> int:
    """Undo what was done; returns how many bytes went over the interface meanwhile.

    Raises WorkNotProven where it came back by itself before.
    """
    harm = _harms.pop(interface)
    bytes_after = sum(_counters(interface))
    early = harm.process.poll() is not None
    try:
        harm.process.communicate(timeout=_UNDO_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Failed("farm", f"{interface} does not come back within {_UNDO_TIMEOUT_S:g} s") from None
    if harm.process.returncode:
        raise Failed("farm", f"{interface} does not come back: exit status {harm.process.returncode}")
    if early:
        raise WorkNotProven(f"{interface} came back by itself: its limit was over before it was mended")
    return bytes_after - harm.bytes_before


def _begin(interface: str, do: str, undo: str, limit_s: float) -> None:
    if interface in _harms:
        raise Failed("farm", f"{interface} is harmed already")
    process = subprocess.Popen(
        ["sh", "-c", _PROGRAM, "sh", do, undo, f"{limit_s:g}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"done\n":
        process.communicate(timeout=_UNDO_TIMEOUT_S)
        raise Failed("farm", f"'{do}' ended with {process.returncode}")
    _harms[interface] = _Harm(process, sum(_counters(interface)))


def _counters(interface: str) -> tuple[int, int]:
    """Bytes received and sent so far."""
    lines = (line.partition(":") for line in Path("/proc/net/dev").read_text().splitlines())
    counters = next(told.split() for name, _, told in lines if name.strip() == interface)
    return int(counters[_RECEIVED]), int(counters[_SENT])
