"""What a scenario may ask of a cluster, and what it has to bring back.

A scenario is a question with a version. It is handed a `Bench`, one deployed revision on the hosts of one
cluster, and a `Sheet` for its samples. Times are seconds of the observer's monotonic clock unless a name says
otherwise. Drivers in `workers/` implement the protocols; a scenario never knows which hypervisor it talks to.

Errors, and whose fault they are:

    ScenarioError
    ├── WorkNotProven   the work cannot be shown to have happened: the cell's samples are void
    ├── Unsupported     this cluster cannot do it, with the evidence: an answer, not a failure
    └── Failed          it went wrong; `fault` says whose: stack, hypervisor, donor or farm
        └── Refused     who manages the guests says that something else is in the way
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from scenarios.parameters import Parameter, Values

Direction = Literal["lower", "higher"]
MigrationPhase = Literal["transfer", "switch-over"]
Fault = Literal["stack", "hypervisor", "donor", "farm"]


class ScenarioError(Exception):
    """One line for people: what happened, with the evidence that was seen."""


class WorkNotProven(ScenarioError):
    """The proof that the work happened is missing or false."""


class Unsupported(ScenarioError):
    """The cluster says, or showed, that it cannot do this."""


class Failed(ScenarioError):
    """The work failed, and it is known whose fault that is."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault: Fault = fault


class Refused(Failed):
    """A no, because of what else goes on: where a scenario provokes that, the right answer."""


@dataclass(frozen=True)
class Metric:
    """What is measured. `delta` is δ, the smallest relative difference that matters (0.1 = 10 %)."""

    name: str
    unit: str
    direction: Direction
    delta: float
    title: str
    judged: bool = True  # False: shown, but too noisy or too derived to accuse anybody with
    no_limit: str = ""  # why nothing physical bounds it; nothing where farm.analysis.bounds has its limit


@dataclass(frozen=True)
class Beat:
    """One heartbeat of a guest as the observer received it; counters are the guest's own, since its boot."""

    at_s: float
    sequence: int
    nonce: str
    pages_ok: int
    pages_bad: int
    disk_ok: int
    disk_bad: int
    stall_us: int  # the longest gap of its 1 ms ticker lately; 0 while no memory is exercised
    rtc_s: int  # seconds that its machine's real-time clock, which no pause stops, has counted
    rtc_at_us: int  # when that last counted one, by the guest's own clock, which a pause may stop


@dataclass(frozen=True)
class WriteTimes:
    """What the guest says of its write test: median and 99th percentile of each pass over the same blocks, µs.

    `read_us`: the median of reading blocks behind them, which nobody wrote.
    """

    first_us: float
    first_p99_us: float
    second_us: float
    second_p99_us: float
    read_us: float
    began_s: float  # when the observer told it to begin
    ended_s: float  # when the observer heard that it had ended
    blocks: int  # written twice
    refusal: str  # with what words the disk refused a write and ended the test, or nothing


@dataclass(frozen=True)
class DiskTime:
    """A read and a write of a guest, as it timed them, and when the observer heard of them."""

    at_s: float
    read_us: float
    write_us: float


@dataclass(frozen=True)
class MigrationStyle:
    """How a guest is to be moved; by default as the hypervisor does it when nobody asks for more.

    `post_copy`: the guest moves after the first pass over its memory and fetches the rest from there.
    `connections`: parallel connections, 0 for the ordinary single one.
    """

    bandwidth_mib_s: int | None = None
    post_copy: bool = False
    connections: int = 0
    compression: Literal["none", "xbzrle", "zstd"] = "none"
    auto_converge: bool = False


@dataclass(frozen=True)
class MigrationReport:
    """One finished live migration. What the hypervisor does not tell is None."""

    started_s: float
    finished_s: float
    downtime_ms: float | None
    sent_mib: float | None  # of the guest's memory, as it went over the wire
    passes: int | None  # over the memory
    source_cpu_s: float | None  # of the sending VMM meanwhile, to its last 10 ms
    daemon_cpu_s: float | None  # of the daemons on both hosts meanwhile
    answered_s: float | None = None  # an API that was asked for the move answered that it would see to it


@dataclass(frozen=True)
class Workload:
    """What a guest does besides answering: rewrite and check memory and disk; or the write test, when it is told.

    `disk_times`: read blocks from all over the disk, write some at its end, and time each.
    `write_test_offset`: bytes by which all of the test's blocks lie after their places.
    """

    memory_mib: int = 0
    pages_per_s: int = 0
    disk: bool = False
    disk_times: bool = False
    write_test_blocks: int = 0
    write_test_offset: int = 0


@dataclass(frozen=True)
class Hardware:
    """In what a guest's hardware is to differ from what the stack's recipe says; None is as the recipe says."""

    memory_mib: int | None = None
    vcpus: int | None = None
    cpu: Literal["maximum", "qemu64"] | None = None  # all that the hypervisor has, or the least of all
    machine: Literal["q35", "pc"] | None = None


@dataclass(frozen=True)
class System:
    """What a guest runs, and how it is booted: the small guest is all that most questions need.

    `firmware`: "none" gives the hypervisor the kernel directly; otherwise that firmware boots GRUB from the disk.
    """

    name: Literal["small", "debian", "operator"] = "small"
    firmware: Literal["none", "seabios", "ovmf"] = "none"


@dataclass(frozen=True)
class OperatorGuest:
    """What the cluster's inventory file says of the operator's own guest image."""

    firmware: Literal["seabios", "ovmf"]
    memory_mib: int
    tcp_port: int  # it answers when it takes a connection there


@dataclass(frozen=True)
class FetchReport:
    """An image that came to a host over the network, and lies on its disk."""

    took_s: float
    mib: float
    cpu_s: float  # of both its ends


@dataclass(frozen=True)
class Moment:
    """When something happened, as it is told; and surely neither before `earliest_s` nor after `latest_s`."""

    at_s: float
    earliest_s: float
    latest_s: float


@dataclass(frozen=True)
class Stages:
    """When a guest's boot reached each stage, as far as anybody could see it: None where nobody could."""

    requested_s: float
    process: Moment | None  # its VMM's process was made
    vcpu: Moment | None  # its first virtual CPU ran, says the VMM
    running_s: float  # the hypervisor answered that it runs
    kernel: Moment | None  # its kernel's clock began, by that clock
    init: Moment | None  # its first process spoke on the console, as the host saw it
    userspace: Moment | None  # its user space was ready, by the guest's clock
    answer_s: float
    api_s: float | None = None  # an API that was asked for the guest answered that it would see to it


@dataclass(frozen=True)
class DiskShape:
    """In what a disk is to differ from what its method makes; by default in nothing.

    `layers`, `cluster_size_kib` (0: as the stack's recipe says), `extended_l2` and `preallocation` are an overlay's:
    layers lie between it and the base, each with a cluster of its own. `inside`: the disk and its base lie on a file
    system of this kind, which is a file on the host's.
    """

    layers: int = 0
    cluster_size_kib: int = 0
    extended_l2: bool = False
    preallocation: str = "off"  # or metadata, falloc, full
    logical_sector: int = 512
    physical_sector: int = 512
    inside: str = "none"  # or ext4, xfs, btrfs


class Disk(Protocol):
    """A guest's disk that one method made."""

    def prove_sharing(self) -> str:
        """What shows that blocks are (or, for a copy, are not) shared with the base; raises WorkNotProven."""

    def prove_base_unchanged(self) -> str:
        """The base image's digest is what it was; raises WorkNotProven."""

    def prove_written(self, nonce: str, blocks: int, offset: int = 0) -> str:
        """The write test's blocks, read from outside, hold what the guest with this nonce wrote last."""

    def remove(self) -> None: ...


class MarkedVolume(Protocol):
    """A volume of a tenant who leaves: every sector of it carries the tenant's marker."""

    def wipe(self, method: str) -> tuple[float, float]:
        """Wipe it; returns the seconds until that is on stable storage, and CPU seconds. Raises Unsupported.

        The CPU time is of the tool that wipes, not of what the kernel does of it in its own threads.
        """

    def prove_unreadable(self) -> str:
        """Nothing of the tenant can be read from the volume, all of it asked of its disk; raises WorkNotProven."""

    def left_percent(self) -> float | None:
        """How much of it the device underneath still holds; None where that cannot be looked at."""

    def prove_next_tenant(self) -> str:
        """Give it back and make the next volume, which shows nothing of the tenant; raises WorkNotProven."""

    def remove(self) -> None:
        """What is left of it; harmless when nothing is."""


class Guest(Protocol):
    """A virtual machine of ours. Leaving the `with` removes it from whichever host it is on."""

    name: str

    def fetch(self) -> FetchReport:
        """Bring a copy of its own of what it boots from to its host over the test network, before it starts."""

    def prove_fetched(self) -> str:
        """What it boots from is that copy, and has the original's digest; raises WorkNotProven."""

    def make_cold(self) -> None:
        """Drop what it boots from out of its host's page cache; raises WorkNotProven where a page stays."""

    def prove_cold(self) -> float:
        """MiB that its VMM has read from its host's disk; raises WorkNotProven for less than the cache has now."""

    def start(self, *, ledger: bool = False) -> float:
        """Ask the hypervisor to start it; returns the time of the request.

        `ledger`: watch its console for `stages`, which costs the host a look every few ms.
        """

    def first_answer(self, *, timeout_s: float) -> Beat:
        """Its first answer over the network; raises Failed when there is none in time."""

    def is_silent(self, port: int) -> bool:
        """Whether nothing takes a TCP connection at its address and this port."""

    def leased_s(self, *, timeout_s: float) -> float:
        """When it was given its address, which it has to ask for (DHCP); raises Failed when it does not in time."""

    def first_connection(self, port: int, *, timeout_s: float) -> float:
        """When it first took a TCP connection from the observer, for guests that send no heartbeats; raises Failed."""

    def stages(self) -> Stages:
        """The ledger of its boot, once it has answered; raises Failed before, and where none was kept."""

    def begin_writes(self) -> None:
        """Let its write test begin."""

    def write_times(self, *, timeout_s: float) -> WriteTimes:
        """What it reports when its write test has ended; raises Failed when it has not in time."""

    def disk_times(self, since_s: float, until_s: float) -> Sequence[DiskTime]:
        """What it timed between the two times."""

    def pull(self, *, timeout_s: float) -> tuple[float, float]:
        """Let the hypervisor bring everything its disk still has elsewhere to the disk, while the guest runs.

        Returns when that was asked for and when it was done. Raises Unsupported and Failed.
        """

    def disk_read_bytes(self) -> int:
        """What it has read from its disk so far, as the hypervisor tells."""

    def vmm_cpu_s(self) -> float:
        """CPU seconds of the guest's VMM process so far, on the host where it is now.

        Raises Unsupported where the host is not seen.
        """

    def beats(self, since_s: float, until_s: float) -> Sequence[Beat]:
        """Heartbeats the observer received between the two times."""

    def migrate(
        self,
        target: "Host",
        *,
        timeout_s: float,
        style: MigrationStyle = MigrationStyle(),
        disk: Disk | None = None,
    ) -> MigrationReport:
        """Move it, live. Raises Unsupported where the hypervisor cannot do it in this style, and Failed.

        `disk` was made on the target: what the guest's own disk holds is copied to it, and it is the guest's from
        then on. Without it the target has to reach the guest's disk.
        """

    def wait_for_migration(self, phase: MigrationPhase, *, timeout_s: float) -> None:
        """Until its migration, which another thread asked for, sends memory, or pauses it to switch over.

        Raises WorkNotProven when that is not seen.
        """

    def cancel_migration(self) -> None:
        """Abort its migration, which another thread asked for; harmless when that has just ended."""

    def found_on(self) -> Sequence[str]:
        """Names of all hosts of the bench on which its VMM process is alive now."""

    def known_on(self) -> Sequence[str]:
        """Names of all hosts of the bench whose hypervisor knows it now."""

    def console(self) -> str:
        """Everything it printed, on all hosts it ran on."""

    def stop(self) -> None:
        """End it and wait until its VMM is gone, so that its disk can be read."""


class ServedBase(Protocol):
    """An image, served to the cluster's hosts over the network by one of them, in its guests' user's name."""

    size_mib: int

    def served_mib(self) -> float:
        """What was read of it for others so far, as the serving host's kernel counts."""

    def server_cpu_s(self) -> float:
        """CPU seconds of its server so far."""


class Host(Protocol):
    name: str
    zone: str  # where it stands, as a path: `us-east/room-2/rack-7`
    operator_guest: OperatorGuest | None
    room_mib: int | None  # memory for guests that have theirs set aside before they run; None where there is none

    def guest(
        self,
        *,
        nonce: str,
        disk: Disk | None = None,
        workload: Workload = Workload(),
        hardware: Hardware = Hardware(),
        system: System = System(),
        reserved: bool = False,
    ) -> AbstractContextManager[Guest]:
        """`reserved`: all of its memory is set aside before it runs, out of the host's room for that."""

    def system_digest(self, system: System) -> str:
        """SHA-256 of what guests with this system boot from, which is brought to the host if it is not there."""

    def daemon_cpu_s(self) -> float:
        """CPU seconds so far of the daemon that manages the host's guests: libvirtd.

        Raises Unsupported where the host is not seen.
        """

    def make_disk(
        self, method: str, shape: DiskShape = DiskShape(), *, system: System | None = None
    ) -> tuple[Disk, float | None]:
        """Make a disk from the base image with `method`, or from the disk of a `system` that firmware boots.

        Returns it and the seconds that took; None where it is made with its guest, when that is started.
        What lies under the disk (a file system to put it on, layers) is made before and not timed.
        Raises Unsupported where the host cannot do this method, or not in this shape.
        """

    def serve_base(self, system: System | None = None, *, latency_ms: int = 0) -> AbstractContextManager[ServedBase]:
        """Serve this host's base image, or the disk of a system, while within; each answer comes so much later."""

    def served_read_s(self, served: ServedBase) -> float:
        """Seconds from asking for a block of what another host serves until it was here: the quickest of some."""

    def make_streamed_disk(self, served: ServedBase, *, pulled: bool = True) -> tuple[Disk, float]:
        """A disk over what another host serves, to be `pulled` here or not; and the seconds that making it took."""

    def least_read_mib(self, system: System) -> float:
        """What every boot of a system reads at least: its kernel and initramfs."""

    def link_cut(self, *, limit_s: float) -> AbstractContextManager[None]:
        """Within it the host is off the test network; after `limit_s` it comes back, whatever becomes of us.

        Raises Unsupported where that cannot be done to this host. Leaving raises WorkNotProven unless it was off the
        network all the while.
        """

    def link_capped(self, mib_s: int, *, limit_s: float) -> AbstractContextManager[None]:
        """Within it the host sends no more than this over the test network; ends and raises as `link_cut`."""

    def make_marked_volume(self, mib: int, *, tenant: str) -> MarkedVolume: ...

    def written_bytes(self) -> int | None:
        """Bytes ever written to the device under its disks, by anybody; None where the host does not tell."""

    def sent_bytes(self) -> int | None:
        """Bytes ever sent over its link to the test network, by anybody; None where the host does not tell."""


UploadStyle = Literal["slo", "dlo", "s3"]
PlacedBy = Literal["hash", "ring"]
Harm = Literal["digest", "cut"]  # a segment sent under a wrong digest, or with the connection cut half way


@dataclass(frozen=True)
class UploadReport:
    """One object uploaded and readable. Times in s; `segment_s` is in the order of the object's bytes."""

    name: str
    total_s: float  # first byte sent → the store says it is there, with the right length and digest
    segment_s: tuple[float, ...]  # of each part, from its first byte to the store's answer
    manifest_s: float  # asking for the parts to become one object; near 0 for a single PUT
    readable_s: float  # from the answer to that until the object's first byte was read
    retries: int  # requests that were sent again
    server_cpu_s: float | None  # None where the servers are not seen
    client_cpu_s: float
    client_memory_mib: float  # of all its processes at their highest


@dataclass(frozen=True)
class Placement:
    """Where an object lies, found on the disks themselves."""

    pieces: Mapping[str, Sequence[str]]  # stored segment, or the object itself → the disks that hold it
    disk_bytes: Mapping[str, int]  # every disk of the store → bytes of these pieces on it


@dataclass(frozen=True)
class Usage:
    """What is stored in the account: as billed, as its listings add up, and added up without manifests."""

    billed_bytes: int
    listed_bytes: int
    filtered_bytes: int


class ObjectStore(Protocol):
    """The deployed object store. Uploads are incompressible bytes, the same for all that have the same size."""

    replicas: int  # on how many distinct disks the stack's settings put every stored object

    def server_cpu_s(self) -> float:
        """CPU seconds of all of its servers so far."""

    def upload_single(self, name: str, *, size_mib: int, style: UploadStyle = "slo") -> UploadReport:
        """One PUT, over S3 where the style is. Raises Unsupported for more than the store takes or has room for."""

    def upload_segments(
        self,
        name: str,
        *,
        size_mib: int,
        segment_mib: int,
        parallel: int,
        style: UploadStyle = "slo",
        placed_by: PlacedBy = "hash",
        harm: Mapping[int, Harm] = MappingProxyType({}),
    ) -> UploadReport:
        """Segments, several at once, then what makes them one object. Raises Unsupported as `upload_single`.

        Where a segment lies follows from the hash of its name; `ring` chooses names so that disks share the load.
        Segments that are to come to harm are sent so first, must be refused, and are then sent rightly.
        """

    def abandon_upload(self, name: str, *, size_mib: int, segment_mib: int) -> int:
        """Send segments that nothing makes one object; returns how many."""

    def read_back_digest(self, name: str) -> str:
        """SHA-256 of the object as a client reads it, over the network."""

    def payload_digest(self, size_mib: int) -> str: ...

    def check_range(self, name: str, offset: int, length: int) -> float:
        """Read a part; returns the seconds it took. Raises Failed (stack) unless it is what was sent."""

    def copy(self, name: str, target: str) -> float:
        """A copy within the store with all its bytes; returns the seconds it took."""

    def share(self, name: str, target: str) -> None:
        """A second object of the same segments."""

    def delete(self, name: str) -> float:
        """With its segments; returns the seconds until the store's answer. Raises Failed (stack) if any stays."""

    def usage(self) -> Usage:
        """After the store's own updaters have run, so that its account knows what its containers hold."""

    def orphans(self) -> Mapping[str, int]:
        """Stored segments that belong to no object: path → bytes."""

    def placement_of(self, name: str) -> Placement:
        """Raises Unsupported where disks are not seen, Failed (stack) for a file that does not hold what was sent."""

    def remove(self, name: str) -> None:
        """With its segments; harmless when it is gone."""


@dataclass(frozen=True)
class TestResult:
    """What came of one test of the stack's own suite; `told` is its last word where it did not pass."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    told: str


class Suite(Protocol):
    """The tests that the stack's recipe names, ready to be run against what is deployed."""

    def run(self, *, timeout_s: float) -> Sequence[TestResult]:
        """All of them, once. Raises Failed (stack) when the suite cannot begin or does not end."""


class Cell(Protocol):
    """The samples of one scenario with one set of parameters in one round; valid or void together."""

    def record(self, metric: str, value: float) -> None:
        """Keep one value; the metric must be one the scenario declares."""

    def prove(self, held: bool, reason: str) -> None:
        """Raise WorkNotProven(reason) unless `held`."""

    def verify_later(self, check: Callable[[], None], *, deployed: bool = True) -> None:
        """Run `check` when the round's measuring is over, so that checking disturbs no figure.

        Whatever ScenarioError it raises counts as if raised in the cell. With `deployed=False` it does not need
        the revision any more, and may go on while that is taken down and the next one is deployed.
        """

    def evidence(self, text: str) -> None:
        """One line for the session's log that shows why the samples may be believed."""


class Sheet(Protocol):
    """Where a scenario writes. An error inside a cell ends that cell only."""

    def cell(self, *, hosts: Mapping[str, str], **params: str) -> AbstractContextManager[Cell]: ...


class Bench(Protocol):
    """One deployed revision on a cluster, ready to be measured."""

    hosts: Sequence[Host]
    store: ObjectStore | None
    suite: Suite | None

    def nonce(self) -> str:
        """A fresh word of letters and digits that nobody can know beforehand."""

    def now_s(self) -> float: ...

    def pause_s(self, seconds: float) -> None: ...

    def keep(self, resource: AbstractContextManager[Guest]) -> Guest:
        """Enter the guest now and leave it when what `verify_later` was given is done: before another scenario."""


class Scenario(Protocol):
    """A module-level object in each scenario file, named SCENARIO.

    `measure` is given a value for each of its parameters; what differs from the defaults stands in every sample.
    """

    name: str
    version: int
    metrics: tuple[Metric, ...]
    parameters: tuple[Parameter, ...]

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None: ...
