"""What crosses between the farm and a worker: the plan goes out, samples and a manifest come back.

Everything is plain JSON; `strict.parse_json` reads it and refuses what does not fit. Times are ISO 8601 in UTC.
"""

import dataclasses
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scenarios.contract import Fault
from scenarios.probes import ProbeName

SCHEMA = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_SSH_URI = re.compile(
    r"ssh://(?P<user>[a-z_][a-z0-9_-]{0,31})@(?P<machine>[A-Za-z0-9][A-Za-z0-9.-]*)(:(?P<port>\d{1,5}))?"
)

Role = Literal["subject", "parent", "base", "canary", "window"]
OutcomeName = Literal["measured", "unsupported", "not applicable", "failed"]
Fidelity = Literal["hardware", "emulated", "simulated", "contract"]


@dataclass(frozen=True)
class PlannedHost:
    """`address` on the test network and the public `host_key` are those of a machine that is reached by ssh."""

    name: str
    uri: str
    zone: str
    address: str = ""
    host_key: str = ""


@dataclass(frozen=True)
class PlannedGuest:
    """An operator's own guest image: a file on the worker's machine, how it is booted, and where it answers."""

    image: str
    sha256: str
    format: Literal["raw", "qcow2"]
    firmware: Literal["seabios", "ovmf"]
    tcp_port: int
    memory_mib: int = 512

    def __post_init__(self) -> None:
        if not self.image.startswith("/") or not self.image.isprintable():
            raise ValueError("guest.image must be a file's whole path on the worker's machine")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("guest.sha256 must be the image's SHA-256 in hex")
        if not 1 <= self.tcp_port <= 65535:
            raise ValueError("guest.tcp_port must be 1 to 65535")


@dataclass(frozen=True)
class PlannedCloud:
    """An OpenStack that is there already: an entry of the worker's clouds.yaml, and what its guests are given.

    `observer` is the worker's own address in the network. Credentials are the worker's alone.
    """

    name: str
    network: str  # by its name: guests have a port in it each
    observer: str
    flavor: str = ""  # by its name; empty: one is made, which administrators alone may do

    def __post_init__(self) -> None:
        for key in ("name", "network"):
            text = getattr(self, key)
            if not text or not text.isprintable():
                raise ValueError(f"cloud.{key} must be a name, one line of printable text")
        try:
            ipaddress.IPv4Address(self.observer)
        except ValueError:
            raise ValueError(f"cloud.observer = {self.observer!r} must be an IPv4 address") from None


@dataclass(frozen=True)
class PlannedLent:
    """What machines that are reached by ssh lend, each of them; and the network that they, guests and worker are in.

    `bridge` is there by this name on every host, and on the worker's machine. `peers` is libvirt's URI of one host as
    another's libvirtd reaches it; `%s` stands for its name.
    """

    folder: str  # holds `work` (a disk of its own), `shared` (the same on all hosts) and `console`
    bridge: str
    network: str  # "10.20.0.0/24"; addresses of it are:
    observer: str
    storage: str
    first_guest: str
    last_guest: str
    peers: str
    memory_mib: int  # for guests
    disk_mib: int  # for what sessions make
    most_load: float  # of all others, as a share of the host's processors, above which there is no session

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(/[\w.-]+)+", self.folder, re.ASCII):
            raise ValueError("lent.folder must be a folder's whole path, of letters, digits, '.', '_' and '-'")
        if not _INTERFACE.fullmatch(self.bridge):
            raise ValueError(f"lent.bridge = {self.bridge!r} cannot be the name of a bridge")
        if self.peers.count("%s") != 1 or self.peers.count("%") != 1 or not self.peers.isprintable():
            raise ValueError("lent.peers must be a URI of libvirt with one %s for a host's name")
        if self.memory_mib < 1 or self.disk_mib < 1 or not 0 < self.most_load <= 1:
            raise ValueError("lent.memory_mib and lent.disk_mib must be at least 1, lent.most_load above 0, at most 1")
        try:
            network = ipaddress.IPv4Network(self.network)
        except ValueError as error:
            raise ValueError(f"lent.network: {error}") from None
        for key in ("observer", "storage", "first_guest", "last_guest"):
            if not is_address_of(network, getattr(self, key)):
                raise ValueError(f"lent.{key} = {getattr(self, key)!r} must be an IPv4 address of {network}")
        own = {self.observer, self.storage}
        if len(own) == 1 or not self.guest_addresses or own & set(self.guest_addresses):
            raise ValueError("lent: observer, storage and the guests from first to last must have different addresses")

    @property
    def guest_addresses(self) -> tuple[str, ...]:
        first, last = (int(ipaddress.IPv4Address(end)) for end in (self.first_guest, self.last_guest))
        return tuple(str(ipaddress.IPv4Address(number)) for number in range(first, last + 1))


def is_address_of(network: ipaddress.IPv4Network, text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text) in network
    except ValueError:
        return False


@dataclass(frozen=True)
class SshTarget:
    """Where and as whom a host is logged in to."""

    user: str
    machine: str
    port: int


def ssh_target(uri: str) -> SshTarget | None:
    """What `ssh://user@machine:port` says; None for anything else. The port may be left out."""
    found = _SSH_URI.fullmatch(uri)
    if found is None or not 0 < int(found["port"] or 22) < 65536:
        return None
    return SshTarget(found["user"], found["machine"], int(found["port"] or 22))


@dataclass(frozen=True)
class PlannedCluster:
    """The part of an inventory file that a worker needs."""

    name: str
    driver: str
    hosts: tuple[PlannedHost, ...]
    storage_disks: int
    storage_disk_mib: int
    fidelity: Fidelity | None = None  # what the donor says that the hosts are
    guest: PlannedGuest | None = None
    lent: PlannedLent | None = None  # where the hosts are reached by ssh: their URIs are `ssh://user@machine:port`
    cloud: PlannedCloud | None = None  # where the hosts are a cloud's: their URIs are `nova` or `nova:<compute>`


@dataclass(frozen=True)
class Lease:
    """The promise this session runs under. A worker that sees a higher token for a host must stop."""

    holder: str
    token: int
    resources: tuple[str, ...]
    expires: str


@dataclass(frozen=True)
class ResolvedBuild:
    """What a revision became on a platform: its lock, the digest of its code, and what was built from source.

    `made`: component → SHA-256 of the file that it was built into. Workers of earlier releases told no platform.
    """

    revision: str
    lock: str
    code: str
    settings: dict[str, Any]
    platform: str = ""
    made: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same on two clusters: they ran the same bits."""
        return digest_of({"platform": self.platform, "lock": self.lock, "code": self.code})


@dataclass(frozen=True)
class PlannedBuild:
    """A revision to deploy: what identifies it, what it is here for, and where it comes from.

    `recipe` is the stack's, where the repository is a component's own and has no stack.toml; with it comes `lock`,
    the text of the file that it names. `resolved` is what the same became on platforms where it was built before.
    """

    revision: str
    label: str
    roles: tuple[Role, ...]
    repository: str
    commit: str
    recipe: dict[str, Any] | None = None
    lock: str | None = None
    resolved: tuple[ResolvedBuild, ...] = ()


@dataclass(frozen=True)
class PlannedScenario:
    name: str
    version: int
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """One session, whole. `rounds` are repetitions within one deployment, `blocks` are fresh deployments."""

    schema: int
    harness: str
    session: str
    attempt: int
    cluster: PlannedCluster
    lease: Lease
    builds: tuple[PlannedBuild, ...]
    scenarios: tuple[PlannedScenario, ...]
    blocks: int
    rounds: int
    seed: int
    deadline_s: int

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.rounds < 1 or self.deadline_s < 1:
            raise ValueError("blocks, rounds and deadline_s must be at least 1")
        if not self.builds or not self.scenarios or len(self.cluster.hosts) < 1:
            raise ValueError("needs at least one build, one scenario and one host")


@dataclass(frozen=True)
class Sample:
    """One measured value; `valid` is False without proof of the work, and `void_reason` says why.

    `block`, `round` and `order` (the revision's place in its block) count from 0.
    """

    session: str
    block: int
    round: int
    attempt: int
    order: int
    revision: str
    scenario: str
    version: int
    metric: str
    unit: str
    value: float
    params: dict[str, str]
    hosts: dict[str, str]
    warm_up: bool
    valid: bool
    void_reason: str | None
    time: str


@dataclass(frozen=True)
class Probe:
    """One physical limit as it was found: a line of `limits.jsonl` in the bundle, in the unit of its kind.

    `at` is a host or one of the places of `scenarios.probes`, and `to` the other end of a link. `block` is the
    number of blocks that were measured before it.
    """

    kind: ProbeName
    at: str
    to: str | None
    value: float
    block: int
    time: str


@dataclass(frozen=True)
class Outcome:
    """What came of one cell of a scenario: one set of parameters, one revision, one round."""

    revision: str
    scenario: str
    version: int
    params: dict[str, str]
    block: int
    round: int
    outcome: OutcomeName
    fault: Fault | None
    reason: str | None
    evidence: list[str]


@dataclass(frozen=True)
class Manifest:
    """The bundle's table of contents; the signature covers this file, this file covers all others."""

    schema: int
    session: str
    attempt: int
    plan: str
    harness: str
    cluster: str
    started: str
    finished: str
    fidelity: Fidelity
    builds: tuple[ResolvedBuild, ...]
    outcomes: tuple[Outcome, ...]
    files: dict[str, str]  # path inside the bundle → SHA-256


@dataclass(frozen=True)
class FidelityFact:
    """What the bench is, concluded from what was seen."""

    concluded: Fidelity
    evidence: list[str]


@dataclass(frozen=True)
class OperatorImage:
    """The operator's guest image as its guests booted it: the file, and the disk that was unpacked from it."""

    file_sha256: str
    disk_sha256: str


@dataclass(frozen=True)
class Facts:
    """What was found about the cluster during the session: `facts.json` of the bundle.

    `declared` are the facts that open an epoch (CPU, microcode, kernel, QEMU, libvirt, firmware, swap);
    `clock_bounds_s` is, per host, how far its clock may be from the observer's; `guest_images` is,
    per revision, the SHA-256 of its guest's kernel and initramfs; `packages` are those that other guests'
    systems were built from; `operator_image` is there if a guest booted from it.
    """

    declared: dict[str, str]
    hosts: dict[str, dict[str, Any]]
    clock_bounds_s: dict[str, float]
    guest_images: dict[str, str]
    fidelity: FidelityFact
    load: dict[str, Any]
    sizes_mib: dict[str, float] = field(default_factory=dict)  # of what all sessions use: the "base image"
    clock_jumps_s: dict[str, list[float]] = field(default_factory=dict)  # by host, where its clock jumped
    store_disks: int = 0  # of the cluster's object store
    packages: dict[str, list[str]] = field(default_factory=dict)  # by digest of a guest's system: 'name version' …
    operator_image: OperatorImage | None = None


@dataclass(frozen=True)
class Progress:
    """One line of live progress, on a worker's standard output behind PROGRESS_MARK."""

    done: int
    total: int
    what: str


PROGRESS_MARK = "FARM-PROGRESS "


def to_data(record: Any) -> Any:
    """A dataclass as plain data."""
    return dataclasses.asdict(record)


def canonical_json(data: Any) -> str:
    """The one text that digests are taken of: sorted keys, no blanks, UTF-8 as it is."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(data: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of plain data or of a dataclass."""
    plain = to_data(data) if dataclasses.is_dataclass(data) else data
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def revision_of(commits: Mapping[str, str]) -> str:
    """A revision's identity: component → commit (or patch digest), as one SHA-256."""
    return digest_of(dict(commits))


def harness_digest(checkout: Path) -> str:
    """SHA-256 over every file of `scenarios/` and `workers/`: the code that decides what a figure means."""
    digest = hashlib.sha256()
    for folder in ("scenarios", "workers"):
        for path in sorted((checkout / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(checkout)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
