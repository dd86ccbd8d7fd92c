"""What Nova's guests boot from: images in Glance, and Nova's copies of them, made before a guest is asked for.

Each guest's disk is a copy-on-write overlay on Nova's copy of its image, in the folder that all computes share.
A guest's kernel is told who it is in a property of its image: hence as many images as guests that are started at once.
"""

import hashlib
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenarios.recipe import GuestSettings
from workers.guest_image import build_guest_image
from workers.hypervisors.qemu import QemuCluster
from workers.stacks.openstack_client import Client
from workers.volumes.base import BASE_MIB, make_base

DISK_MIB = 64
_COPY_TIMEOUT_S = 300.0
_CALL_TIMEOUT_S = 60.0
_POLL_S = 0.2

Content = Literal["blank", "base"]


@dataclass(frozen=True)
class Image:
    """An image that one guest at a time boots from; `copy` is Nova's, below the guest's disk."""

    id: str
    content: Content
    copy: Path
    digest: str


@dataclass(frozen=True)
class _File:
    path: Path
    kind: str  # Glance's disk format
    digest: str


class Images:
    """Those of one deployment. May be used from several threads at once."""

    def __init__(self, cluster: QemuCluster, client: Client, home: Path, folder: Path, guest: GuestSettings) -> None:
        """`folder` is a new one of the session."""
        self._cluster = cluster
        self._client = client
        self._folder = folder
        self.instances = cluster.shared_dir(cluster.links[0].host) / "instances"
        self._lock = threading.Lock()
        self._free: list[Image] = []
        self._made = 0
        self._files: dict[Content, _File] = {}
        folder.mkdir()
        self._aggregate = self._new_aggregate()
        image = build_guest_image(home, guest.extra_modules)
        self._kernel = self._upload("kernel", _file(image.kernel, "aki"))
        self._ramdisk = self._upload("ramdisk", _file(image.initrd, "ari"))

    def take(self, content: Content) -> Image:
        """An image that nobody uses; give it back when its guest is gone."""
        with self._lock:
            free = next((image for image in self._free if image.content == content), None)
            if free is not None:
                self._free.remove(free)
                return free
            self._made += 1
            file = self._file_of(content)
            boots = {"kernel_id": self._kernel, "ramdisk_id": self._ramdisk, "os_command_line": "quiet"}
            devices = {"hw_disk_bus": "virtio", "hw_vif_model": "virtio", "hw_video_model": "none"}
            number = self._upload(f"{content}-{self._made}", file, **boots, **devices, hw_machine_type="pc")
            return Image(number, content, self._copy_of(number), file.digest)

    def give_back(self, image: Image) -> None:
        with self._lock:
            self._free.append(image)

    def tell(self, image: Image, settings: GuestSettings, command_line: str) -> None:
        """Let the next guest that is started from it have this chipset and its kernel this command line."""
        told = {"os_command_line": command_line, "hw_machine_type": settings.machine}
        patch = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in told.items()]
        self._client.image("PATCH", f"/images/{image.id}", patch)

    def _file_of(self, content: Content) -> _File:
        if content not in self._files:
            self._files[content] = self._blank() if content == "blank" else self._base()
        return self._files[content]

    def _blank(self) -> _File:
        path = self._folder / "blank.qcow2"
        command = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{DISK_MIB}M"]
        subprocess.run(command, check=True, capture_output=True, timeout=_CALL_TIMEOUT_S)
        return _file(path, "qcow2")

    def _base(self) -> _File:
        made = make_base(str(self._folder), BASE_MIB)
        return _File(Path(made["path"]), "raw", made["digest"])

    def _upload(self, name: str, file: _File, **properties: str) -> str:
        """The id of a new image, which Nova has a copy of when this returns. Raises Failed (stack)."""
        # the same in all of the session's deployments, so that their copies do not pile up
        number = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._cluster.session}/{name}"))
        container = file.kind if file.kind in ("aki", "ari") else "bare"
        told = {"id": number, "name": name, "disk_format": file.kind, "container_format": container, **properties}
        self._client.image("POST", "/images", told)
        self._client.image("PUT", f"/images/{number}/file", file=file.path)
        self._have_copied(number, file.digest)
        return number

    def _new_aggregate(self) -> str:
        """Of a host, since Nova copies images beforehand to groups of hosts only; the folder is all hosts'."""
        made = self._client.compute("POST", "/os-aggregates", {"aggregate": {"name": "farm"}})
        number = str(made.body["aggregate"]["id"])
        order = {"add_host": {"host": self._cluster.links[0].name}}
        self._client.compute("POST", f"/os-aggregates/{number}/action", order)
        return number

    def _have_copied(self, number: str, digest: str) -> None:
        copy, link = self._copy_of(number), self._cluster.links[0]
        asked = {"path": str(copy)}
        found = link.agent.call("basics.sha256_of_file", timeout_s=_CALL_TIMEOUT_S, **asked)
        if found not in (None, digest):  # an earlier deployment has spoilt it
            link.agent.call("volumes.base.remove", timeout_s=_CALL_TIMEOUT_S, **asked)
        self._client.compute("POST", f"/os-aggregates/{self._aggregate}/images", {"cache": [{"id": number}]})
        deadline = time.monotonic() + _COPY_TIMEOUT_S
        while found != digest:
            if time.monotonic() > deadline:
                state = "has a copy of another content" if found else "has no copy"
                told = f"asked to fetch image {number}, it {state} after {_COPY_TIMEOUT_S:.0f} s"
                raise self._client.failure("compute", told, link.name)
            time.sleep(_POLL_S)
            found = link.agent.call("basics.sha256_of_file", timeout_s=_CALL_TIMEOUT_S, **asked)

    def _copy_of(self, number: str) -> Path:
        """Where Nova puts its copy."""
        return self.instances / "_base" / hashlib.sha1(number.encode(), usedforsecurity=False).hexdigest()


def _file(path: Path, kind: str) -> _File:
    return _File(path, kind, hashlib.sha256(path.read_bytes()).hexdigest())
