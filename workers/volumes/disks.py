"""Disks of one host, made and proven by its agent (scenarios.contract.Disk)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.contract import DiskShape, System, Unsupported
from workers.agent import AgentLink
from workers.hosts.base import Host
from workers.volumes import blank, copy, overlay, reflink, remote, shared, streamed

FORMATS: Mapping[str, str] = {
    "overlay": overlay.FORMAT,
    "reflink": reflink.FORMAT,
    "copy": copy.FORMAT,
    "blank": blank.FORMAT,
    "shared": shared.FORMAT,
    "streamed": streamed.FORMAT,
    "remote": remote.FORMAT,
}
SHARED_DISK_MIB = 64
_CREATE_TIMEOUT_S = 120
_PROOF_TIMEOUT_S = 120


@dataclass(frozen=True)
class Base:
    """The base image of a host, as `workers.volumes.base.make_base` reported it."""

    path: Path
    digest: str


@dataclass
class AgentDisk:
    """A disk of the host at the other end of `agent`. `base` is None for a disk that stands alone."""

    agent: AgentLink
    method: str
    path: Path
    base: Base | None
    shape: DiskShape = field(default_factory=DiskShape)
    format: str = field(init=False)

    def __post_init__(self) -> None:
        self.format = FORMATS[self.method]

    def prove_sharing(self) -> str:
        if self.base is None:
            return f"{self.method} disk: it has no base"
        asked: dict[str, object] = {"base": str(self.base.path), "path": str(self.path)}
        if self.method == "overlay":
            asked |= {"layers": self.shape.layers, "preallocation": self.shape.preallocation}
        return self._prove(f"volumes.{self.method}.prove_sharing", **asked)

    def prove_base_unchanged(self) -> str:
        if self.base is None:
            return f"{self.method} disk: it has no base"
        return self._prove("volumes.base.prove_unchanged", path=str(self.base.path), digest=self.base.digest)

    def prove_written(self, nonce: str, blocks: int, offset: int = 0) -> str:
        where = self.method if self.format == "qcow2" else "base"
        asked: dict[str, object] = {"nonce": nonce, "blocks": blocks, "offset": offset}
        return self._prove(f"volumes.{where}.prove_written", path=str(self.path), **asked)

    def remove(self) -> None:
        self.agent.call("volumes.base.remove", timeout_s=_PROOF_TIMEOUT_S, path=str(self.path))

    def _prove(self, operation: str, **arguments: object) -> str:
        return str(self.agent.call(operation, timeout_s=_PROOF_TIMEOUT_S, **arguments))


class BaseServer:
    """A base image that the host at the other end of `agent` serves from now on, until `end`.

    Each of its answers comes `latency_ms` later than it would.
    """

    def __init__(
        self,
        agent: AgentLink,
        base: Base,
        host: Host,
        *,
        folder: Path,
        system: System | None = None,
        latency_ms: int = 0,
    ) -> None:
        self.system = system
        self._agent = agent
        asked = {"path": str(base.path), "address": host.address, "uid": host.guest_uid}
        pid_file = str(folder / "nbd.pid")
        started = agent.call("volumes.nbd.serve", timeout_s=_CREATE_TIMEOUT_S, pid_file=pid_file, **asked)
        self.size_mib = int(started["bytes"]) >> 20
        self._pid = int(started["pid"])
        self.address, self.port = host.address, int(started["port"])
        self._relay: int | None = None
        if latency_ms:
            asked = {"address": self.address, "port": self.port, "delay_ms": latency_ms}
            self.port = self._relay = int(agent.call("volumes.delayed.start", timeout_s=_CREATE_TIMEOUT_S, **asked))

    @property
    def url(self) -> str:
        return f"nbd://{self.address}:{self.port}"

    def served_mib(self) -> float:
        served = self._agent.call("volumes.nbd.served_bytes", timeout_s=_PROOF_TIMEOUT_S, pid=self._pid)
        return float(served) / (1 << 20)

    def server_cpu_s(self) -> float:
        return float(self._agent.call("volumes.nbd.cpu_s", timeout_s=_PROOF_TIMEOUT_S, pid=self._pid))

    def end(self) -> None:
        if self._relay is not None:
            self._agent.call("volumes.delayed.end", timeout_s=_PROOF_TIMEOUT_S, port=self._relay)
        self._agent.call("volumes.nbd.end", timeout_s=_PROOF_TIMEOUT_S, pid=self._pid)


def make_disk(
    agent: AgentLink, method: str, path: Path, base: Base, *, uid: int, shape: DiskShape
) -> tuple[AgentDisk, float]:
    """Make a disk with `method` at `path` on the agent's host; returns it and the seconds measured there."""
    if method not in FORMATS:
        raise Unsupported(f"no method '{method}' to make a disk (there are {', '.join(FORMATS)})")
    if method != "overlay" and (shape.layers or shape.extended_l2 or shape.preallocation != "off"):
        raise Unsupported(f"method '{method}' has neither layers nor clusters")
    disk = AgentDisk(agent, method, path, None if method == "shared" else base, shape)
    arguments: dict[str, object] = {"target": str(path), "uid": uid}
    if disk.base is not None:
        arguments["base"] = str(base.path)
    if method == "overlay":
        arguments |= {"preallocation": shape.preallocation, "base_format": "raw", **_clusters(shape)}
        if shape.layers:
            arguments["base_format"] = overlay.FORMAT
            asked = {"base": str(base.path), "target": str(path), "count": shape.layers, **_clusters(shape)}
            arguments["base"] = agent.call("volumes.overlay.make_layers", timeout_s=_CREATE_TIMEOUT_S, **asked)
    if method == "shared":
        arguments["mib"] = SHARED_DISK_MIB
    seconds = agent.call(f"volumes.{method}.create", timeout_s=_CREATE_TIMEOUT_S, **arguments)
    return disk, float(seconds)


def make_streamed_disk(
    agent: AgentLink, path: Path, served: BaseServer, base: Base, *, uid: int, shape: DiskShape, pulled: bool
) -> tuple[AgentDisk, float]:
    """Make a disk over what a server has, on the agent's host, whose own `base` is the same."""
    asked = {"base": served.url, "target": str(path), "uid": uid, "cluster_size_kib": shape.cluster_size_kib}
    seconds = agent.call("volumes.streamed.create", timeout_s=_CREATE_TIMEOUT_S, **asked)
    return AgentDisk(agent, "streamed" if pulled else "remote", path, base, shape), float(seconds)


def make_file_system(agent: AgentLink, folder: Path, kind: str, *, uid: int, base_mib: int) -> Base:
    """See that a file system of this kind is at `folder`; returns the base image on it."""
    agent.call("volumes.nested.ensure", timeout_s=_CREATE_TIMEOUT_S, folder=str(folder), kind=kind, uid=uid)
    made = agent.call("volumes.base.make_base", timeout_s=_CREATE_TIMEOUT_S, folder=str(folder), mib=base_mib)
    return Base(Path(made["path"]), made["digest"])


def _clusters(shape: DiskShape) -> dict[str, object]:
    return {"cluster_size_kib": shape.cluster_size_kib, "extended_l2": shape.extended_l2}
