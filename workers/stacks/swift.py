"""Brings OpenStack Swift up at a revision, behind walls, on the cluster's disks; and takes all of it down again.

One proxy, account, container and object server (each with the recipe's number of workers) and memcached. No daemon runs
beside them: it would measure itself. Updaters run when accounts and containers have to be told what they hold
(`settle`), to their end. Replicators, auditors, reapers and expirers are left out: every disk is always there, and no
deployment is old enough for them.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from scenarios.contract import Failed
from scenarios.recipe import SwiftSettings
from workers import sandbox
from workers.builds import Build
from workers.hosts.base import Storage
from workers.stacks import swift_conf
from workers.stacks.services import JOB, PYTHON, SUPERVISOR, Service, Services
from workers.stacks.suites import Surroundings
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

    def __init__(self, settings: SwiftSettings, place: swift_conf.Place, disks: int) -> None:
        self.address = place.address
        self.port = swift_conf.PROXY_PORT
        self.s3_port = swift_conf.S3_PORT if place.s3 else None
        self._place = place
        self.user = f"{swift_conf.ACCOUNT}:{swift_conf.USER}"
        self.password = place.password
        self.settings = settings
        self.replicas = settings.replicas
        self.disks = disks
        self._services = Services("swift", _KNOWN, ready_timeout_s=READY_TIMEOUT_S)

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self.undeploy()

    @property
    def mounts(self) -> Mapping[str, Path]:
        """Disk's name (`d1` …) → where the worker sees its file system."""
        return {Path(inside).name: path for inside, path in self._services.running().mounts.items()}

    def server_cpu_s(self) -> float:
        """CPU seconds of all its processes so far, read from outside."""
        return self._services.running().cpu_s()

    def object_ring(self) -> bytes:
        """The file that says which disks a name lands on, as it is. Raises Failed (stack)."""
        content = self._services.running().read(f"{swift_conf.SWIFT_DIR}/object.ring.gz", _RING_BYTES)
        if content is None:
            raise Failed("stack", "the store has no file of its object ring")
        return content

    def settle(self) -> None:
        """Have its updaters tell accounts and containers what they hold. Raises Failed (stack)."""
        for kind in _UPDATERS:
            self._services.run_once(f"{kind}-updater", timeout_s=UPDATER_TIMEOUT_S)

    @contextlib.contextmanager
    def for_tests(self) -> Iterator[Surroundings]:
        """By which Swift's own tests find it."""
        texts = {_TEST_CONF: swift_conf.test_configuration(self._place)}
        yield Surroundings(texts, {"SWIFT_TEST_CONFIG_FILE": _TEST_CONF})

    def logs(self) -> dict[str, str]:
        """What each server said last, as text; also after `undeploy`."""
        return self._services.logs()

    def last_words(self) -> str:
        """What its proxy said of errors."""
        return self._services.last_words("proxy", errors=True)

    def undeploy(self) -> None:
        """Kill everything and see that it is gone; harmless when done already. Raises Failed (farm)."""
        self._services.end()

    def start(self, walls: sandbox.Walls, *, lease: str, run_dir: Path) -> None:
        """Run it behind `walls` until it is ready. Raises Failed: stack when it does not get ready."""
        self._services.start(walls, lease=lease, run_dir=run_dir)


def deploy(
    build: Build,
    storage: Storage,
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
    settings = build.recipe.swift
    if settings.replicas > len(storage.disks):
        raise Failed(
            "stack", f"stack.toml: swift.replicas = {settings.replicas}, the cluster has {len(storage.disks)} disks"
        )
    place = swift_conf.Place(storage.address, secrets.token_hex(16), s3, identity)
    run_dir.mkdir(parents=True, mode=0o700)
    deployment = Deployment(settings, place, len(storage.disks))
    deployment.start(_walls(build, storage, place, software), lease=lease, run_dir=run_dir)
    return deployment


def _walls(build: Build, storage: Storage, place: swift_conf.Place, software: Path) -> sandbox.Walls:
    settings = build.recipe.swift
    components = {f"/code/{name}": folder for name, folder in build.code.items()}
    path = [*(inside for inside in components if inside != "/code/swift"), "/code/swift", "/code/libraries"]
    texts = swift_conf.configuration(settings, place) | {JOB: json.dumps(_job(settings, place, len(storage.disks)))}
    return sandbox.Walls(
        network_namespace=storage.network_namespace,
        folders={
            **components,
            **_PROGRAMS,
            "/code/libraries": build.environment,
            "/memcached": software / "memcached" / "root" / "usr",
        },
        texts=texts,
        disks={f"{swift_conf.DEVICES}/d{number}": image for number, image in enumerate(storage.disks, 1)},
        writable=(swift_conf.SWIFT_DIR, swift_conf.CACHE_DIR, "/run", "/var/lock", "/dev/shm"),
        environment={"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        processes=64 + (len(_SERVERS) + place.s3) * (settings.workers + 1) * _THREADS_PER_WORKER,
        memory_mib=_MEMORY_MIB,
    )


def _job(settings: SwiftSettings, place: swift_conf.Place, disks: int) -> dict[str, object]:
    rings = ["/farm/swift_rings.py", swift_conf.SWIFT_DIR, str(settings.part_power), str(settings.replicas), str(disks)]
    memcached = ["/memcached/bin/memcached", "-l", "127.0.0.1", "-p", str(swift_conf.MEMCACHED_PORT), "-m", "64"]
    services = {kind: [*_program(f"{kind}-server"), f"{swift_conf.SWIFT_DIR}/{kind}-server.conf"] for kind in _SERVERS}
    updaters = {
        f"{kind}-updater": [*_program(f"{kind}-updater"), f"{swift_conf.SWIFT_DIR}/{kind}-server.conf", "--once"]
        for kind in _UPDATERS
    }
    ready = {"proxy": [place.address, swift_conf.PROXY_PORT, "/healthcheck"]}
    if place.s3:
        services["s3"] = [*_program("proxy-server"), f"{swift_conf.SWIFT_DIR}/s3-server.conf"]
        ready["s3"] = [place.address, swift_conf.S3_PORT, "/healthcheck"]
    backends = {kind: ["127.0.0.1", port, "/healthcheck"] for kind, port in PORTS.items()}
    return {
        "prepare": [[PYTHON, "-W", "ignore", *rings]],
        "services": {"memcached": memcached, **services},
        "ready": {**backends, **ready},
        "once": updaters,
    }


def _program(name: str) -> list[str]:
    """Run by this interpreter: the programs' first lines name the one that unpacked them. What they log they say."""
    return [PYTHON, "-W", "ignore", f"/code/swift/bin/swift-{name}", "-v"]
