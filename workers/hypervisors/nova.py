"""Guests through Nova's API: what scenarios ask of a host and a guest, where that host is a compute of Nova's.

Nova decides, libvirt is only looked at: what is told of a guest beside Nova's own words (its process, its consoles, its
migration's statistics) comes from where it runs, as for every other driver. A guest's disk is Nova's own.
"""

import contextlib
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

from scenarios import contract
from scenarios.contract import (
    Disk,
    DiskShape,
    Failed,
    FetchReport,
    MigrationReport,
    MigrationStyle,
    Stages,
    System,
    Unsupported,
    Workload,
)
from scenarios.recipe import GuestSettings
from workers import marks
from workers.agent import AgentLink
from workers.hypervisors import migration
from workers.hypervisors.calls import ask, find
from workers.hypervisors.domain import command_line
from workers.hypervisors.link import HostLink, Revision
from workers.hypervisors.nova_images import Content, Image, Images
from workers.hypervisors.nova_server import Server
from workers.hypervisors.qemu import QemuCluster
from workers.hypervisors.qemu_guest import QemuGuest
from workers.hypervisors.qemu_host import QemuHost
from workers.hypervisors.spent import SpentByMove
from workers.stacks.openstack_client import Client
from workers.stacks.openstack_network import NETWORK_ID
from workers.volumes import disks

_ACTIVE_TIMEOUT_S = 300.0
_DELETE_TIMEOUT_S = 120.0
_POLL_S = 0.25  # a look costs Nova's API some 50 ms of a processor
_CALL_TIMEOUT_S = 30.0
_PLAIN_STYLE, _PLAIN_SHAPE, _SMALL = MigrationStyle(), DiskShape(), System()


class Cloud:
    """A deployed OpenStack as its hosts' and guests' drivers use it."""

    def __init__(self, client: Client, images: Images) -> None:
        self.client = client
        self.images = images
        self._lock = threading.Lock()
        self._sizes: set[str] = set()

    def size(self, settings: GuestSettings) -> str:
        """The id of a flavor with these settings."""
        name = f"{settings.memory_mib}-{settings.vcpus}"
        with self._lock:
            if name not in self._sizes:
                flavor = {"id": name, "name": name, "ram": settings.memory_mib, "vcpus": settings.vcpus, "disk": 0}
                self.client.compute("POST", "/flavors", {"flavor": flavor})
                self._sizes.add(name)
        return name


class NovaDisk(disks.AgentDisk):
    """The disk that Nova makes with a server; when Nova deletes it with the server, `path` is what is kept of it."""

    def __init__(self, agent: AgentLink, images: Images, image: Image, path: Path) -> None:
        base = None if image.content == "blank" else disks.Base(image.copy, image.digest)
        super().__init__(agent, "shared" if base is None else "overlay", path, base)
        self.image = image
        self._images: Images | None = images

    def keep(self, nova_path: Path) -> None:
        """Where there is something to be proven of it."""
        if self.base is not None:
            asked = {"disk": str(nova_path), "kept": str(self.path)}
            self.agent.call("volumes.kept.keep", timeout_s=_CALL_TIMEOUT_S, **asked)

    def remove(self) -> None:
        super().remove()
        images, self._images = self._images, None
        if images is not None:
            images.give_back(self.image)


class NovaHost(QemuHost):
    """A compute of Nova's (scenarios.contract.Host)."""

    def __init__(self, cluster: QemuCluster, link: HostLink, revision: Revision, cloud: Cloud) -> None:
        super().__init__(cluster, link, revision)
        self.cloud = cloud

    def new_guest(
        self, settings: GuestSettings, nonce: str, disk: Disk | None, workload: Workload, reserved: bool, system: System
    ) -> "NovaGuest":
        if reserved:
            raise Unsupported("nova is not asked to set memory aside")
        if system != _SMALL:
            raise Unsupported(f"a {system.name} guest with firmware {system.firmware} is not among nova's images")
        if settings.cpu != self.revision.guest.cpu:
            raise Unsupported("the guests' processor is set in the configuration of nova's computes")
        return NovaGuest(self, settings, nonce, cast(NovaDisk | None, disk), workload)

    def make_disk(
        self, method: str, shape: DiskShape = _PLAIN_SHAPE, *, system: System | None = None
    ) -> tuple[Disk, float | None]:
        contents: dict[str, Content] = {"shared": "blank", "overlay": "base"}
        if method not in contents or shape != _PLAIN_SHAPE or system is not None:
            made = "overlays on its own copies of images, in the folder that its computes share"
            raise Unsupported(f"nova makes its guests' disks itself, all of them as {made}")
        return self.new_disk(contents[method]), None

    def new_disk(self, content: Content) -> NovaDisk:
        host, agent, images = self.link.host, self.link.agent, self.cloud.images
        folder = self.cluster.shared_dir(host)
        agent.call("basics.make_folder", timeout_s=_CALL_TIMEOUT_S, path=str(folder), uid=host.guest_uid)
        return NovaDisk(agent, images, images.take(content), folder / f"{self.cluster.next_name()}.qcow2")

    def written_bytes(self) -> int | None:
        """The folder of its disks is on no device of their own."""
        return None


class NovaGuest(QemuGuest):
    """A server of Nova's (scenarios.contract.Guest)."""

    def __init__(
        self, host: NovaHost, settings: GuestSettings, nonce: str, disk: NovaDisk | None, workload: Workload
    ) -> None:
        super().__init__(host, settings, nonce, disk, workload, False, _SMALL)
        self._host = host
        self._cloud = host.cloud
        self._client = host.cloud.client
        self._nova_disk = disk
        self._server: Server | None = None
        self._api_s: float | None = None
        self._size = ""

    def prepare(self) -> None:
        super().prepare()
        if self._nova_disk is None:
            self._nova_disk = self._host.new_disk("blank")
        told = command_line(
            nonce=self.nonce,
            address=self.address,
            observer=f"{self.cluster.cluster.observer.address}:{self.cluster.port}",
            workload=self._workload,
            has_disk=True,
            extra=self._revision.guest.kernel_arguments,
            counter_khz=self._link.counter_khz,
            ours=self._source.sent.our_arguments,
        )
        self._cloud.images.tell(self._nova_disk.image, self._settings, told)
        self._size = self._cloud.size(self._settings)

    def start(self, *, ledger: bool = False) -> float:
        address = self.address.split("/")[0]
        server = {
            "name": self.name,
            "imageRef": self._own_disk().image.id,
            "flavorRef": self._size,
            "networks": [{"uuid": NETWORK_ID, "fixed_ip": address}],
            "availability_zone": f"nova:{self._link.name}",
        }
        self._requested_s = self.cluster.now_s()
        number = self._client.compute("POST", "/servers", {"server": server}).body["server"]["id"]
        self._api_s = self.cluster.now_s()
        self.name = f"{marks.guest_prefix(self.cluster.session)}{number}"
        self._server = Server(self._client, number, self._failure)
        if ledger:
            self._watch()
        self._server.wait_until_active(f"start guest {self.name}", timeout_s=_ACTIVE_TIMEOUT_S)
        self._running_s = self.cluster.now_s()
        self._domain = find(self._link.connection, self.name, _CALL_TIMEOUT_S)
        if self._domain is None:
            raise self._failure(f"it says that guest {self.name} runs, but libvirt does not know it")
        return self._requested_s

    def stages(self) -> Stages:
        return replace(super().stages(), api_s=self._api_s)

    def migrate(
        self,
        target: "contract.Host",
        *,
        timeout_s: float,
        style: MigrationStyle = _PLAIN_STYLE,
        disk: Disk | None = None,
    ) -> MigrationReport:
        if style != _PLAIN_STYLE or disk is not None:
            raise Unsupported("how nova moves a server is set in its configuration, not asked for with each move")
        link, server = cast(QemuHost, target).link, self._server
        if server is None:
            raise Failed("farm", f"guest {self.name} was not started, or has ended")
        what = f"migrate guest {self.name} from {self._link.name} to {link.name}"
        with SpentByMove(self.name, self._link.agent, link.agent, timeout_s) as spent:
            started_s = self.cluster.now_s()
            server.ask_to_move(link.name)
            answered_s = self.cluster.now_s()
            server.wait_until_moved(what, link.name, timeout_s=timeout_s)
            finished_s = self.cluster.now_s()
        self._link = link
        self._domain = find(link.connection, self.name, _CALL_TIMEOUT_S)
        if self._domain is None or not self._is_alive_on(link):
            raise Failed("hypervisor", f"{what}: nova says it is done, but the guest is gone{self._tail()}")
        statistics = migration.statistics(what, self._domain)
        report = migration.report(started_s, finished_s, statistics, spent.source_cpu_s, spent.daemon_cpu_s)
        return replace(report, answered_s=answered_s)

    def cancel_migration(self) -> None:
        if self._server is not None:
            self._server.abort_move()

    def fetch(self) -> FetchReport:
        raise Unsupported("nova fetches what it boots a guest from itself, when it starts the guest")

    def make_cold(self) -> None:
        raise Unsupported("what nova boots a guest from is a copy that it makes for each")

    def stop(self) -> None:
        self._delete()
        super().stop()

    def remove(self) -> None:
        with contextlib.ExitStack() as steps:
            if self._disk is None and self._nova_disk is not None:
                steps.callback(self._nova_disk.remove)
            steps.callback(super().remove)
            steps.callback(self._delete)

    def _own_disk(self) -> NovaDisk:
        if self._nova_disk is None:
            raise Failed("farm", f"guest {self.name} is not prepared")
        return self._nova_disk

    def _delete(self) -> None:
        """Let Nova delete it; harmless when it is gone, or when Nova is, since libvirt is asked next."""
        if self._server is None:
            return
        self._own_disk().keep(self._folder() / "disk")
        path, self._server = f"/servers/{self._server.number}", None
        deadline = time.monotonic() + _DELETE_TIMEOUT_S
        with contextlib.suppress(Failed):
            self._client.compute("DELETE", path, may_miss=True)
            while self._client.compute("GET", path, may_miss=True).status != 404 and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def _destroy(self, link: HostLink) -> None:
        """Nova's guests stay defined when they have ended."""
        super()._destroy(link)
        domain = find(link.connection, self.name, _CALL_TIMEOUT_S)
        if domain is not None:
            ask(f"undefine guest {self.name} on {link.name}", _CALL_TIMEOUT_S, domain.undefine)

    def _failure(self, what: str) -> Failed:
        """That Nova failed, with what the compute says that has the guest."""
        return self._client.failure("compute", what + self._tail(), self._link.name)

    def console(self) -> str:
        path = str(self._console_path())
        if self._link.agent.call("basics.sha256_of_file", timeout_s=_CALL_TIMEOUT_S, path=path) is None:
            return ""
        return str(self._link.agent.call("basics.read_text", timeout_s=_CALL_TIMEOUT_S, path=path))

    def _console_path(self) -> Path:
        """In the server's folder, which goes when it is deleted."""
        return self._folder() / "console.log"

    def _folder(self) -> Path:
        number = self.name.removeprefix(marks.guest_prefix(self.cluster.session))
        return self._cloud.images.instances / number
