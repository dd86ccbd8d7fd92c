"""What tempest, OpenStack's own suite, needs of a deployment: what it is told, and what it starts servers from.

Its servers boot from images with nothing in them, and are there when Nova says so: no test logs in to one.
"""

import configparser
import contextlib
import io
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from workers import guests
from workers.deadline import within
from workers.hosts.base import ClusterHosts, Host
from workers.marks import guest_prefix
from workers.stacks import openstack_conf as conf
from workers.stacks.openstack_client import Client
from workers.stacks.openstack_network import NETWORK_NAME
from workers.stacks.suites import Surroundings

_FOLDER, _FILE = "/etc/tempest", "tempest.conf"
_SERVER_TIMEOUT_S, _TEST_TIMEOUT_S = 120, 300
_LIBVIRT_TIMEOUT_S = 30.0
_IMAGE_BYTES = 1 << 20
_MEMORY_MIB = (64, 96)  # of the two flavors
# Firmware that finds nothing to boot does not hear that it is to shut down: it is not waited for
_PROPERTIES = {"hw_machine_type": "pc", "hw_disk_bus": "virtio", "hw_vif_model": "virtio", "hw_video_model": "none",
               "os_shutdown_timeout": "0"}  # fmt: skip


@dataclass(frozen=True)
class Things:
    """Ids of what servers are started from: tests that change it want two of each."""

    images: tuple[str, str]
    flavors: tuple[str, str]


@contextlib.contextmanager
def surroundings(
    control: conf.Control, client: Client, cluster: ClusterHosts, session: str, folder: Path
) -> Iterator[Surroundings]:
    """While tempest runs; guests that it leaves are removed then. `folder` is a new one of the session.

    Raises Failed (stack) where the deployment does not take an image or a flavor.
    """
    text = configuration(control, _things(client, folder), len(cluster.hosts))
    environment = {
        "TEMPEST_CONFIG_DIR": _FOLDER,
        "TEMPEST_CONFIG": _FILE,
        "OS_TEST_TIMEOUT": str(_TEST_TIMEOUT_S),
    }
    with _guests_removed(cluster, guest_prefix(session)):
        yield Surroundings({f"{_FOLDER}/{_FILE}": text}, environment)


def configuration(control: conf.Control, things: Things, hosts: int) -> str:
    """Of what the deployment has no part of, tempest is told so, and skips what would ask it."""
    sections: Mapping[str, Mapping[str, object]] = {
        "auth": {
            "admin_username": conf.USER,
            "admin_password": control.secrets.admin,
            "admin_project_name": conf.PROJECT,
            "admin_domain_name": "Default",
            "create_isolated_networks": False,
        },
        "identity": {"uri_v3": f"{control.url(conf.IDENTITY_PORT)}/v3", "region": conf.REGION},
        "compute": {
            "image_ref": things.images[0],
            "image_ref_alt": things.images[1],
            "flavor_ref": things.flavors[0],
            "flavor_ref_alt": things.flavors[1],
            "build_timeout": _SERVER_TIMEOUT_S,
            "fixed_network_name": NETWORK_NAME,
            "min_compute_nodes": hosts,
            "max_microversion": "latest",
        },
        "compute-feature-enabled": {
            "cold_migration": False,  # computes do not log in to each other
            "console_output": False,  # there is nothing in its servers that would write
            "block_migration_for_live_migration": False,
            "vnc_console": False,
        },
        "image-feature-enabled": {"import_image": False},
        "object-storage": {"operator_role": "member"},
        "oslo_concurrency": {"lock_path": "/tmp/locks"},
        # of Neutron, tests of Nova ask for the one network that there is; tests of Neutron itself are not to be named
        "service_available": {"cinder": False, "neutron": True, "horizon": False, "swift": True},
        "validation": {"run_validation": False},
    }
    parser, text = configparser.RawConfigParser(), io.StringIO()
    parser.read_dict(sections)
    parser.write(text)
    return text.getvalue()


def _things(client: Client, folder: Path) -> Things:
    folder.mkdir(parents=True)
    blank = folder / "blank.raw"
    blank.write_bytes(bytes(_IMAGE_BYTES))
    one, two = (_image(client, blank) for _ in range(2))
    small, large = (_flavor(client, memory_mib) for memory_mib in _MEMORY_MIB)
    return Things((one, two), (small, large))


def _image(client: Client, file: Path) -> str:
    told = {"name": f"tests-{uuid.uuid4()}", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    number = str(client.image("POST", "/images", {**told, **_PROPERTIES}).body["id"])
    client.image("PUT", f"/images/{number}/file", file=file)
    return number


def _flavor(client: Client, memory_mib: int) -> str:
    told = {"name": f"tests-{uuid.uuid4()}", "ram": memory_mib, "vcpus": 1, "disk": 1}
    return str(client.compute("POST", "/flavors", {"flavor": told}).body["flavor"]["id"])


@contextlib.contextmanager
def _guests_removed(cluster: ClusterHosts, prefix: str) -> Iterator[None]:
    """Remove guests of the session that are there afterwards and were not before, also where Nova does not."""
    before = {name for host in cluster.hosts for name in _asked(host, guests.names)}
    try:
        yield
    finally:
        for host in cluster.hosts:
            _asked(host, lambda uri: guests.remove(uri, lambda name: name.startswith(prefix) and name not in before))


def _asked(host: Host, question: Callable[[str], Collection[str]]) -> Collection[str]:
    return within(_LIBVIRT_TIMEOUT_S, f"libvirtd of host {host.name}", lambda: question(host.uri))
