"""Guests of a cloud that is there already, through its APIs: nobody sees its hosts, and nothing on them is ours.

What is told comes from the cloud's word, from the clock of whoever asks, and from what an observer in the guests'
network hears of them. Everything that would take a look at a host is unsupported.
"""

import contextlib
import ipaddress
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, cast

from scenarios import contract
from scenarios.contract import (
    Beat,
    Disk,
    DiskShape,
    DiskTime,
    Failed,
    FetchReport,
    Hardware,
    MarkedVolume,
    MigrationPhase,
    MigrationReport,
    MigrationStyle,
    OperatorGuest,
    ScenarioError,
    ServedBase,
    Stages,
    System,
    Unsupported,
    Workload,
    WriteTimes,
)
from scenarios.crossing import FidelityFact, PlannedHost
from scenarios.recipe import GuestSettings
from workers.guest_image import build_guest_image
from workers.hosts.base import Cloud, ClusterHosts
from workers.hypervisors.domain import BOOT_ARGUMENTS, command_line
from workers.hypervisors.nova_server import Server
from workers.hypervisors.qemu_host import settings_of
from workers.hypervisors.watch import Watch
from workers.marks import guest_prefix
from workers.stacks.cloud_facts import facts_of
from workers.stacks.cloud_things import CloudClient, Things, clear

DISK_MIB = 64
UNSEEN = "the hosts of a cloud that is there already are not seen"
_ACTIVE_TIMEOUT_S = 180.0
_WARM_TIMEOUT_S = 300.0
_CALL_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 5.0
_CONSOLE_CHARACTERS = 200
_PLAIN_STYLE, _PLAIN_SHAPE, _SMALL = MigrationStyle(), DiskShape(), System()
_IDLE, _AS_RECIPE = Workload(), Hardware()


def _unseen(*_: object, **__: object) -> NoReturn:
    raise Unsupported(UNSEEN)


class CloudCluster(Watch):
    """One session's hold on a cloud. A context manager that deletes all that it has made there when it is left."""

    links: tuple[()] = ()  # to hosts

    def __init__(self, cluster: ClusterHosts, cloud: Cloud, home: Path, session: str, folder: Path) -> None:
        """`folder` is the session's, on the worker's machine."""
        super().__init__(cluster, home, session)
        self.cloud = cloud
        self._folder = folder
        self._numbers = itertools.count(1)
        self._exits = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._ready: dict[GuestSettings, Images] = {}
        self._flavors: dict[tuple[int, int], str] = {}
        self._warm: set[tuple[str, GuestSettings]] = set()

    def __enter__(self) -> "CloudCluster":
        """Raises Failed: donor where the cloud does not let us in, or has no network of that name for us."""
        with contextlib.ExitStack() as exits:
            self.begin(exits)
            self.client = CloudClient(self.observer, self.cloud.login)
            self.things = Things(self.client, self.session)
            try:
                self.network, self._prefix = self._find_network()
                self.told = facts_of(self.client)
            except (Unsupported, Failed) as error:
                if isinstance(error, Failed) and error.fault != "hypervisor":
                    raise
                raise Failed("donor", f"cloud {self.cloud.planned.name}: {error}") from None
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._exits, contextlib.suppress(ScenarioError):  # the sweep that follows tells of what stays
            self.client.forget_token()
            clear(self.client, [self.session])

    def clock_jumps_s(self) -> dict[str, float]:
        """There is one clock, the observer's."""
        return {}

    def work_dir(self, host: object) -> Path:
        _unseen()

    def facts(self) -> dict[str, dict[str, Any]]:
        return {"the cloud": dict(self.told.all)}

    def declared(self, read: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        return dict(self.told.declared)

    def packages(self) -> dict[str, list[str]]:
        """There is no system but the small guest."""
        return {}

    def operator_image(self) -> None:
        """No guest boots from one."""

    def fidelity(self, read: Mapping[str, Mapping[str, Any]]) -> FidelityFact:
        return FidelityFact("emulated", [f"{UNSEEN}: nothing shows that they are real machines"])

    def hosts(self, recipe: GuestSettings) -> list["CloudHost"]:
        """The cloud's hosts as the inventory names them. Each has started a guest before, so it has the images."""
        hosts = [CloudHost(self, planned, recipe) for planned in self.cloud.hosts]
        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(CloudHost.warm_up, hosts))
        return hosts

    def images(self, settings: GuestSettings) -> "Images":
        with self._lock:
            if settings not in self._ready:
                folder = self._folder / f"images-{len(self._ready)}"
                self._ready[settings] = Images(self.things, self.client, self._home, folder, settings)
            return self._ready[settings]

    def flavor(self, settings: GuestSettings) -> str:
        """The id of the flavor that the inventory names, or of one that is made. Raises Unsupported."""
        shape, name = (settings.memory_mib, settings.vcpus), self.cloud.planned.flavor
        with self._lock:
            if shape not in self._flavors:
                self._flavors[shape] = self._named_flavor(name, *shape) if name else self.things.flavor(settings)
            return self._flavors[shape]

    def next_name(self) -> str:
        return f"{guest_prefix(self.session)}{next(self._numbers)}"

    def is_warm(self, host: str, recipe: GuestSettings) -> bool:
        return (host, recipe) in self._warm

    def has_warmed(self, host: str, recipe: GuestSettings) -> None:
        self._warm.add((host, recipe))

    def with_prefix(self, address: str) -> str:
        return f"{address}/{self._prefix}"

    def _named_flavor(self, name: str, memory_mib: int, vcpus: int) -> str:
        listed = self.client.compute("GET", "/flavors/detail").body["flavors"]
        found = next((flavor for flavor in listed if flavor["name"] == name), None)
        if found is None:
            raise Unsupported(f"the cloud has no flavor {name!r} for us")
        if (found["ram"], found["vcpus"]) != (memory_mib, vcpus):
            has = f"{found['ram']} MiB and {found['vcpus']} processors"
            raise Unsupported(f"flavor {name!r} has {has}, not {memory_mib} MiB and {vcpus}")
        return str(found["id"])

    def _find_network(self) -> tuple[str, int]:
        """The network's id, and how long its prefix is in which the observer is."""
        name, observer = self.cloud.planned.network, ipaddress.IPv4Address(self.cloud.planned.observer)
        networks = [one for one in self.client.network("GET", "/networks").body["networks"] if one["name"] == name]
        if len(networks) != 1:
            raise Failed("donor", f"cloud {self.cloud.planned.name} has {len(networks)} networks {name!r} for us")
        subnets = self.client.network("GET", "/subnets").body["subnets"]
        ranges = [ipaddress.ip_network(one["cidr"]) for one in subnets if one["network_id"] == networks[0]["id"]]
        ours = [one for one in ranges if observer in one]
        if not ours:
            told = ", ".join(map(str, ranges)) or "no subnet"
            raise Failed("farm", f"guests cannot reach the observer: {observer} is not in network {name!r} ({told})")
        return str(networks[0]["id"]), ours[0].prefixlen


class Images:
    """What guests boot from. A kernel is told who it is in a property of its image: hence one for each at a time."""

    def __init__(self, things: Things, client: CloudClient, home: Path, folder: Path, settings: GuestSettings) -> None:
        self._things, self._client, self._settings = things, client, settings
        image = build_guest_image(home, settings.extra_modules)
        self._kernel = things.image("kernel", "aki", image.kernel)
        self._ramdisk = things.image("ramdisk", "ari", image.initrd)
        folder.mkdir()
        self._disk = folder / "disk.qcow2"
        command = ["qemu-img", "create", "-q", "-f", "qcow2", str(self._disk), f"{DISK_MIB}M"]
        subprocess.run(command, check=True, capture_output=True, timeout=_CALL_TIMEOUT_S)
        self._lock = threading.Lock()
        self._free: list[str] = []
        self._made = itertools.count(1)

    def take(self, told: str) -> str:
        """The id of an image that nobody uses, for a kernel that is told this; give it back when its guest is gone."""
        with self._lock:
            number = self._free.pop() if self._free else None
        if number is None:
            boots = {"kernel_id": self._kernel, "ramdisk_id": self._ramdisk, "os_command_line": told}
            devices = {"hw_disk_bus": "virtio", "hw_vif_model": "virtio", "hw_machine_type": self._settings.machine}
            return self._things.image(f"disk-{next(self._made)}", "qcow2", self._disk, **boots, **devices)
        patch = [{"op": "replace", "path": "/os_command_line", "value": told}]
        self._client.image("PATCH", f"/images/{number}", patch)
        return number

    def give_back(self, number: str) -> None:
        with self._lock:
            self._free.append(number)


class CloudDisk:
    """The disk that a server has anyway: how the cloud makes and keeps it, nobody sees."""

    def prove_sharing(self) -> str:
        _unseen()

    def prove_base_unchanged(self) -> str:
        _unseen()

    def prove_written(self, nonce: str, blocks: int, offset: int = 0) -> str:
        _unseen()

    def remove(self) -> None:
        """The cloud does, with its server."""


class CloudHost:
    """A place for guests in the cloud (scenarios.contract.Host): wherever it likes, or a compute of its own naming."""

    operator_guest: OperatorGuest | None = None
    room_mib: int | None = None

    def __init__(self, cluster: CloudCluster, planned: PlannedHost, recipe: GuestSettings) -> None:
        self.name = planned.name
        self.zone = planned.zone
        self.compute = planned.uri.partition(":")[2]  # empty: the cloud chooses
        self.cluster = cluster
        self._recipe = recipe
        self._refusal: ScenarioError | None = None

    def warm_up(self) -> None:
        """Start a guest, unless one has been before. What the cloud says against it is said to whoever wants one."""
        if self.cluster.is_warm(self.name, self._recipe):
            return
        try:
            with self.guest(nonce=f"warm{time.monotonic_ns()}") as guest:
                guest.start()
                guest.first_answer(timeout_s=_WARM_TIMEOUT_S)
        except ScenarioError as error:
            self._refusal = error
        else:
            self.cluster.has_warmed(self.name, self._recipe)

    @contextlib.contextmanager
    def guest(
        self,
        *,
        nonce: str,
        disk: Disk | None = None,
        workload: Workload = _IDLE,
        hardware: Hardware = _AS_RECIPE,
        reserved: bool = False,
        system: System = _SMALL,
    ) -> Iterator["contract.Guest"]:
        if self._refusal is not None:
            raise self._refusal
        if system != _SMALL:
            raise Unsupported(f"a {system.name} guest with firmware {system.firmware} is not among the cloud's images")
        settings = settings_of(self._recipe, hardware, workload)
        if reserved or settings.cpu != self._recipe.cpu:
            raise Unsupported("the memory and the processors of its guests are the cloud's affair")
        guest = CloudGuest(self, settings, nonce, workload)
        try:
            guest.prepare()
            yield guest
        finally:
            guest.remove()

    def make_disk(
        self, method: str, shape: DiskShape = _PLAIN_SHAPE, *, system: System | None = None
    ) -> tuple[Disk, float | None]:
        if method != "shared" or shape != _PLAIN_SHAPE or system is not None:
            raise Unsupported(f"the cloud makes its guests' disks itself, and {UNSEEN}")
        return CloudDisk(), None

    def written_bytes(self) -> int | None:
        return None

    def sent_bytes(self) -> int | None:
        return None

    def system_digest(self, system: System) -> str:
        _unseen()

    def daemon_cpu_s(self) -> float:
        _unseen()

    def serve_base(
        self, system: System | None = None, *, latency_ms: int = 0
    ) -> contextlib.AbstractContextManager[ServedBase]:
        _unseen()

    def served_read_s(self, served: ServedBase) -> float:
        _unseen()

    def make_streamed_disk(self, served: ServedBase, *, pulled: bool = True) -> tuple[Disk, float]:
        _unseen()

    def least_read_mib(self, system: System) -> float:
        _unseen()

    def link_cut(self, *, limit_s: float) -> contextlib.AbstractContextManager[None]:
        _unseen()

    def link_capped(self, mib_s: int, *, limit_s: float) -> contextlib.AbstractContextManager[None]:
        _unseen()

    def make_marked_volume(self, mib: int, *, tenant: str) -> MarkedVolume:
        _unseen()


class CloudGuest:
    """A server in the cloud (scenarios.contract.Guest)."""

    def __init__(self, host: CloudHost, settings: GuestSettings, nonce: str, workload: Workload) -> None:
        self.cluster = host.cluster
        self.name = self.cluster.next_name()
        self.nonce = nonce
        self._host = host
        self._settings = settings
        self._workload = workload
        self._images: Images | None = None
        self._image: str | None = None
        self._port: str | None = None
        self._server: Server | None = None
        self._flavor = ""
        self._requested_s = self._api_s = self._running_s = 0.0
        self._answer: Beat | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        cluster = self.cluster
        cluster.observe("expect", nonce=self.nonce)
        self._flavor = cluster.flavor(self._settings)
        self._port, address = cluster.things.port(self.name, cluster.network)
        told = command_line(
            nonce=self.nonce,
            address=cluster.with_prefix(address),
            observer=f"{cluster.cluster.observer.address}:{cluster.port}",
            workload=self._workload,
            has_disk=True,
            extra=self._settings.kernel_arguments,
            ours=BOOT_ARGUMENTS,
        )
        self._images = cluster.images(self._settings)
        self._image = self._images.take(told)

    def start(self, *, ledger: bool = False) -> float:
        place = {"host": self._host.compute} if self._host.compute else {}
        asked = {"imageRef": self._image, "flavorRef": self._flavor, "networks": [{"port": self._port}], **place}
        self._requested_s = self.cluster.now_s()
        number = self.cluster.things.server(self.name, asked)
        self._api_s = self.cluster.now_s()
        self._server = Server(self.cluster.client, number, self._failure)
        self._server.wait_until_active(f"start guest {self.name}", timeout_s=_ACTIVE_TIMEOUT_S)
        self._running_s = self.cluster.now_s()
        return self._requested_s

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self.cluster.things.delete_server(server.number)

    def remove(self) -> None:
        """All that was made for it; what cannot be removed now is found by its mark when the session ends."""
        with contextlib.ExitStack() as steps:
            steps.callback(self.cluster.observe, "forget", nonce=self.nonce)
            if self._images is not None and self._image is not None:
                steps.callback(self._images.give_back, self._image)
            if self._port is not None:
                steps.callback(self.cluster.things.delete_port, self._port)
            steps.callback(self.stop)

    # -- what it does -------------------------------------------------------------------------------------------

    def first_answer(self, *, timeout_s: float) -> Beat:
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            limit_s = min(left_s, _LOOK_EVERY_S)
            heard = self.cluster.observe(
                "first", timeout_s=limit_s + _CALL_TIMEOUT_S, nonce=self.nonce, limit_s=limit_s
            )
            if heard is not None:
                self._answer = self._beat(heard)
                return self._answer
        raise self._failure(f"guest {self.name} did not answer within {timeout_s:g} s")

    def stages(self) -> Stages:
        if self._answer is None:
            raise Failed("farm", f"guest {self.name} was not started, or has not answered")
        return Stages(
            requested_s=self._requested_s,
            process=None,
            vcpu=None,
            running_s=self._running_s,
            kernel=None,
            init=None,
            userspace=None,
            answer_s=self._answer.at_s,
            api_s=self._api_s,
        )

    def beats(self, since_s: float, until_s: float) -> Sequence[Beat]:
        heard = self.cluster.observe("beats", nonce=self.nonce, since_s=since_s, until_s=until_s)
        return [self._beat(beat) for beat in heard]

    def disk_times(self, since_s: float, until_s: float) -> Sequence[DiskTime]:
        heard = self.cluster.observe("disk_times", nonce=self.nonce, since_s=since_s, until_s=until_s)
        return [DiskTime(*times) for times in heard]

    def migrate(
        self,
        target: "contract.Host",
        *,
        timeout_s: float,
        style: MigrationStyle = _PLAIN_STYLE,
        disk: Disk | None = None,
    ) -> MigrationReport:
        if style != _PLAIN_STYLE or disk is not None:
            raise Unsupported("how a cloud moves a server is set in its configuration, not asked for with each move")
        compute, server = cast(CloudHost, target).compute, self._running()
        if not compute:
            raise Unsupported(f"host {target.name!r} is wherever the cloud likes: no guest can be moved there")
        what = f"migrate guest {self.name} to {target.name}"
        started_s = self.cluster.now_s()
        server.ask_to_move(compute)
        answered_s = self.cluster.now_s()
        server.wait_until_moved(what, compute, timeout_s=timeout_s)
        finished_s = self.cluster.now_s()
        return MigrationReport(started_s, finished_s, None, None, None, None, None, answered_s)

    def found_on(self) -> Sequence[str]:
        """By the cloud's word, which names one place."""
        told = self._running().told()
        compute = told.get("OS-EXT-SRV-ATTR:host")
        named = [host.name for host in self.cluster.cloud.hosts if host.uri.partition(":")[2] == compute]
        return (named or [str(compute)]) if told["status"] == "ACTIVE" else []

    known_on = found_on

    def console(self) -> str:
        if self._server is None:
            return ""
        path = f"/servers/{self._server.number}/action"
        return str(self.cluster.client.compute("POST", path, {"os-getConsoleOutput": {}}).body.get("output", ""))

    def _running(self) -> Server:
        if self._server is None:
            raise Failed("farm", f"guest {self.name} was not started, or has ended")
        return self._server

    def _beat(self, heard: Sequence[float]) -> Beat:
        at_s, sequence, *counters = heard
        return Beat(at_s, int(sequence), self.nonce, *(int(counter) for counter in counters))

    def _failure(self, what: str) -> Failed:
        return self.cluster.client.failure("compute", what + self._tail())

    def _tail(self) -> str:
        """What its console tells, for people."""
        try:
            lines = [line.strip() for line in self.console().splitlines() if line.strip()]
        except ScenarioError as error:
            return f"; its console cannot be read: {error}"
        return f"; on its console: {' '.join(lines[-3:])[-_CONSOLE_CHARACTERS:] or 'nothing'}"

    # -- what takes a look at its host --------------------------------------------------------------------------

    def vmm_cpu_s(self) -> float:
        _unseen()

    def disk_read_bytes(self) -> int:
        _unseen()

    def fetch(self) -> FetchReport:
        _unseen()

    def prove_fetched(self) -> str:
        _unseen()

    def make_cold(self) -> None:
        _unseen()

    def prove_cold(self) -> float:
        _unseen()

    def pull(self, *, timeout_s: float) -> tuple[float, float]:
        _unseen()

    def wait_for_migration(self, phase: MigrationPhase, *, timeout_s: float) -> None:
        _unseen()

    def cancel_migration(self) -> None:
        raise Unsupported("the cloud is not asked to abort its migrations")

    def begin_writes(self) -> None:
        _unseen()

    def write_times(self, *, timeout_s: float) -> WriteTimes:
        _unseen()

    def is_silent(self, port: int) -> bool:
        raise Unsupported("guests of the operator's own are not asked for in a cloud")

    def leased_s(self, *, timeout_s: float) -> float:
        raise Unsupported("guests of the operator's own are not asked for in a cloud")

    def first_connection(self, port: int, *, timeout_s: float) -> float:
        raise Unsupported("guests of the operator's own are not asked for in a cloud")
