"""Brings OpenStack Swift up at a revision, behind walls, on the cluster's disks; and takes all of it down again.

One proxy, account, container and object server (each with the recipe's number of workers) and memcached; the storage
servers once on every host that the recipe wants them on (`swift_nodes`). No daemon runs beside them: it would measure
itself. Updaters run when accounts and containers have to be told what they hold (`settle`), to their end. Replicators,
auditors, reapers and expirers are left out: every disk is always there, and no deployment is old enough for them.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scenarios.contract import Failed
from scenarios.recipe import SwiftSettings
from workers import sandbox
from workers.builds import Build
from workers.hosts.base import ClusterHosts
from workers.stacks import swift_conf, swift_nodes
from workers.stacks.services import JOB, PYTHON, SUPERVISOR, Service, Services
from workers.stacks.suites import Surroundings
from workers.stacks.swift_nodes import Node
from workers.stacks.swift_rings import PORTS

READY_TIMEOUT_S = 60.0
UPDATER_TIMEOUT_S = 60.0
_RING_BYTES = 8 << 20

_SERVERS = ("proxy", "account", "container", "object")
_UPDATERS = ("object", "container")  # objects tell their container, then containers their account
_HERE = Path(__file__).resolve().parent
_TEST_CONF = f"{swift_conf.SWIFT_DIR}/test.conf"
_PROGRAMS = {**SUPERVISOR, "/farm/swift_rings.py": _HERE / "swift_rings.py"}
_KNOWN = {
    **{kind: Service("swift", f"{kind} server") for kind in (*_SERVERS, "s3")},
    **{f"{kind}-updater": Service("swift", f"{kind} updater") for kind in _UPDATERS},
    "prepare": Service("swift", "rings"),
    "memcached": Service("memcached", "memcached"),
}
_MEMORY_MIB = 4096  # address space of one server, most of it never touched
# eventlet's pool of threads for disk access, and a little
_THREADS_PER_WORKER = 24


class Deployment:
    """A Swift that is up. Leaving the `with` undeploys it."""

    def __init__(self, settings: SwiftSettings, place: swift_conf.Place, nodes: Sequence[Node]) -> None:
        self.address = place.address
        self.port = swift_conf.PROXY_PORT
        self.s3_port = swift_conf.S3_PORT if place.s3 else None
        self._place = place
        self.user = f"{swift_conf.ACCOUNT}:{swift_conf.USER}"
        self.password = place.password
        self.settings = settings
        self.replicas = settings.replicas
        self.disks = sum(len(node.disks) for node in nodes)
        self._nodes = {node.name: Services(_title(node), _KNOWN, ready_timeout_s=READY_TIMEOUT_S) for node in nodes}
        self._storage = [self._nodes[node.name] for node in nodes if node.disks]
        self._places = contextlib.ExitStack()

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self.undeploy()

    @property
    def mounts(self) -> Mapping[str, Path]:
        """Disk's name (`d1` …, with its host's where there are several) → where the worker sees its file system."""
        return {Path(inside).name: path for node in self._storage for inside, path in node.running().mounts.items()}

    def server_cpu_s(self) -> float:
        """CPU seconds of all its processes so far, read from outside."""
        return sum(node.running().cpu_s() for node in self._nodes.values())

    def object_ring(self) -> bytes:
        """The file that says which disks a name lands on, as it is, everywhere. Raises Failed (stack)."""
        path = f"{swift_conf.SWIFT_DIR}/object.ring.gz"
        first, *others = [node.running().read(path, _RING_BYTES) for node in self._nodes.values()]
        if first is None:
            raise Failed("stack", "the store has no file of its object ring")
        if any(other != first for other in others):
            raise Failed("stack", "the store's object ring is not the same on all its hosts")
        return first

    def settle(self) -> None:
        """Have its updaters tell accounts and containers what they hold. Raises Failed (stack)."""
        for kind in _UPDATERS:
            for node in self._storage:
                node.run_once(f"{kind}-updater", timeout_s=UPDATER_TIMEOUT_S)

    @contextlib.contextmanager
    def for_tests(self) -> Iterator[Surroundings]:
        """By which Swift's own tests find it."""
        texts = {_TEST_CONF: swift_conf.test_configuration(self._place)}
        yield Surroundings(texts, {"SWIFT_TEST_CONFIG_FILE": _TEST_CONF})

    def logs(self) -> dict[str, str]:
        """What each server said last, as text; also after `undeploy`."""
        return {
            f"{name}-{server}" if name else server: text
            for name, node in self._nodes.items()
            for server, text in node.logs().items()
        }

    def last_words(self) -> str:
        """What its proxy said of errors."""
        return self._nodes[""].last_words("proxy", errors=True)

    def undeploy(self) -> None:
        """Kill everything and see that it is gone; harmless when done already. Raises Failed (farm)."""
        with contextlib.ExitStack() as steps:
            steps.callback(self._places.close)
            for node in self._nodes.values():
                steps.callback(node.end)

    def start(
        self, walls: Mapping[str, sandbox.Walls], places: contextlib.ExitStack, *, lease: str, run_dir: Path
    ) -> None:
        """Run each node behind its walls until all are ready. Raises Failed: stack when one does not get ready.

        `places` are the networks that nodes are in, which are let go of when it is undeployed.
        """
        self._places = places
        try:
            for name, node in self._nodes.items():
                folder = run_dir / name
                folder.mkdir(parents=True, mode=0o700)
                node.begin(walls[name], lease=lease, run_dir=folder)
            for node in self._nodes.values():
                node.wait_ready()
            self.object_ring()
        except BaseException:
            self.undeploy()
            raise


def _title(node: Node) -> str:
    return f"swift on {node.name}" if node.name else "swift"


def deploy(
    build: Build,
    cluster: ClusterHosts,
    *,
    lease: str,
    run_dir: Path,
    software: Path,
    s3: bool = False,
    identity: swift_conf.Identity | None = None,
) -> Deployment:
    """Bring `build` up on empty disks; ready for clients when this returns.

    `lease` is the session's mark, `run_dir` a new folder of the session, `software` the folder of unpacked packages;
    with `s3` it speaks that too; with `identity` it knows who that service knows.
    Raises Failed: stack when the revision does not come up, farm when its surroundings cannot be made.
    """
    settings, disks = build.recipe.swift, len(cluster.storage.disks)
    if settings.replicas > disks:
        raise Failed("stack", f"stack.toml: swift.replicas = {settings.replicas}, the cluster has {disks} disks")
    place = swift_conf.Place(cluster.storage.address, secrets.token_hex(16), s3, identity=identity)
    with contextlib.ExitStack() as held:
        nodes = held.enter_context(swift_nodes.placed(cluster, settings.hosts, lease=lease))
        devices = swift_nodes.ring_devices(nodes)
        walls = {node.name: _walls(build, node, place, devices, software) for node in nodes}
        deployment = Deployment(settings, place, nodes)
        deployment.start(walls, held.pop_all(), lease=lease, run_dir=run_dir)
    return deployment


def _walls(build: Build, node: Node, place: swift_conf.Place, devices: Sequence[str], software: Path) -> sandbox.Walls:
    settings = build.recipe.swift
    place = replace(place, storage_address=node.storage_address)
    components = {f"/code/{name}": folder for name, folder in build.code.items()}
    path = [*(inside for inside in components if inside != "/code/swift"), "/code/swift", "/code/libraries"]
    texts = swift_conf.configuration(settings, place) | {JOB: json.dumps(_job(settings, place, node, devices))}
    return sandbox.Walls(
        network_namespace=node.network_namespace,
        folders={
            **components,
            **_PROGRAMS,
            "/code/libraries": build.environment,
            "/memcached": software / "memcached" / "root" / "usr",
        },
        texts=texts,
        disks={f"{swift_conf.DEVICES}/{name}": image for name, image in node.disks.items()},
        writable=(swift_conf.SWIFT_DIR, swift_conf.CACHE_DIR, "/run", "/var/lock", "/dev/shm"),
        environment={"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        processes=64 + (len(node.servers) + place.s3) * (settings.workers + 1) * _THREADS_PER_WORKER,
        memory_mib=_MEMORY_MIB,
    )


def _job(settings: SwiftSettings, place: swift_conf.Place, node: Node, devices: Sequence[str]) -> dict[str, object]:
    rings = ["/farm/swift_rings.py", swift_conf.SWIFT_DIR, str(settings.part_power), str(settings.replicas), *devices]
    kinds = node.servers
    services = {kind: [*_program(f"{kind}-server"), f"{swift_conf.SWIFT_DIR}/{kind}-server.conf"] for kind in kinds}
    ready = {kind: [node.storage_address, port, "/healthcheck"] for kind, port in PORTS.items() if kind in kinds}
    if "proxy" in kinds:
        memcached = ["/memcached/bin/memcached", "-l", "127.0.0.1", "-p", str(swift_conf.MEMCACHED_PORT), "-m", "64"]
        services = {"memcached": memcached, **services}
        ready["proxy"] = [place.address, swift_conf.PROXY_PORT, "/healthcheck"]
        if place.s3:
            services["s3"] = [*_program("proxy-server"), f"{swift_conf.SWIFT_DIR}/s3-server.conf"]
            ready["s3"] = [place.address, swift_conf.S3_PORT, "/healthcheck"]
    updaters = {
        f"{kind}-updater": [*_program(f"{kind}-updater"), f"{swift_conf.SWIFT_DIR}/{kind}-server.conf", "--once"]
        for kind in _UPDATERS
    }
    return {"prepare": [[PYTHON, "-W", "ignore", *rings]], "services": services, "ready": ready, "once": updaters}


def _program(name: str) -> list[str]:
    """Run by this interpreter: the programs' first lines name the one that unpacked them. What they log they say."""
    return [PYTHON, "-W", "ignore", f"/code/swift/bin/swift-{name}", "-v"]
