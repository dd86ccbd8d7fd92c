"""A stack recipe, `stack.toml`: what is deployed at a revision. Data, never code of ours.

The same form serves `stacks/*.toml` and the `stack.toml` at the root of a deployment repository.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

VMM = "qemu"  # the component that the session's guests run on, where a recipe has it
DAEMON = "libvirt"  # the component that manages them, likewise
VMM_PART = "keycodemapdb"  # what QEMU's source wants, and keeps in a repository of its own

_KINDS = ("pypi", "path", "debian", "git")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_DIGEST = " --hash=sha256:"  # between a pin and the digest of its wheel
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,60}=[0-9][A-Za-z0-9.+:~-]{0,80}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FACTORY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*")
_SECTION = re.compile(r"DEFAULT|[a-z][a-z0-9_]{0,60}")
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,60}")
_ARGUMENTS = re.compile(r"[A-Za-z0-9_.,=: -]{0,400}")
# What decides where a Swift server listens, as whom it runs, and what it is: the farm's, so that no two can clash
_SWIFT_KEYS = {
    "use", "bind_ip", "bind_port", "user", "workers", "swift_dir", "devices", "mount_check", "recon_cache_path",
    "cert_file", "key_file", "memcache_servers", "pipeline", "log_level", "log_facility", "log_address",
    "log_udp_host", "log_udp_port", "log_custom_handlers", "lock_path", "keep_idle", "here",
}  # fmt: skip
_SWIFT_FILTERS = {
    "authtoken", "cache", "catch_errors", "copy", "dlo", "gatekeeper", "healthcheck", "keystoneauth", "listing_formats",
    "memcache",
    "proxy-logging", "proxy-server", "s3api", "slo", "tempauth", "versioned_writes",
}  # fmt: skip
_RESERVED = {"libraries"}  # the folder beside the components' own that all libraries lie in
_MODULES = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")


# Deployer → the components it cannot do without
NEEDED: dict[str, tuple[str, ...]] = {
    "swift": ("swift",),
    "openstack": ("nova", "keystone", "placement", "glance", "swift"),
    "external": (),
}
# Component → the kinds of source that it has (docs/decisions/0017); those that are not named are Python's
_PYTHON_SOURCES = ("pypi", "git", "path")
_SOURCES: dict[str, tuple[str, ...]] = {
    VMM: ("debian", "git"),
    VMM_PART: ("git",),
    DAEMON: ("debian",),
    "swift": ("pypi", "git"),
}
# Deployer → what of its stack is not deployed, and what the farm puts in its place: pages say it beside the figures
STAND_INS = {
    "openstack": {
        "Neutron": "one network of the farm's own, whose ports are on the bridge that the hosts have already; security "
        "groups, DHCP, agents and quotas are answered as empty (workers/stacks/openstack_network.py)",
    },
}


def kinds_of_source(component: str) -> tuple[str, ...]:
    return _SOURCES.get(component, _PYTHON_SOURCES)


def _must(held: bool, message: str) -> None:
    if not held:
        raise ValueError(message)


def _check_settings(settings: dict[str, str | int | float | bool]) -> None:
    for key, value in settings.items():
        _must(bool(_SETTING.fullmatch(key)), f"setting {key!r} is not a setting's name")
        _must(str(value).isprintable(), f"setting {key!r} must be one line of printable text")
        if isinstance(value, int | float):
            _must(math.isfinite(value) and abs(value) < 2**63, f"setting {key!r} is out of range")


@dataclass(frozen=True)
class Source:
    """Where a component comes from: exactly one of `pypi`, `path`, `debian` and `git` with its `commit`."""

    pypi: str | None = None  # "swift==2.38.3"
    debian: str | None = None  # "qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3"
    path: str | None = None  # a folder of the deployment repository
    git: str | None = None  # anything git can fetch
    commit: str | None = None  # of `git`, whole
    patch: str | None = None  # SHA-256 of a patch that is not committed

    @property
    def kind(self) -> str:
        return next(name for name in _KINDS if getattr(self, name) is not None)

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        _must(len(given) == 1, "must have either 'pypi', 'path', 'debian' or 'git'")
        _must((self.git is None) == (self.commit is None), "'git' and 'commit' go together")
        if self.git is not None and self.commit is not None:
            _must(self.git.isprintable() and not self.git.startswith("-"), f"git = {self.git!r} is no address")
            _must(bool(_COMMIT.fullmatch(self.commit)), f"commit = {self.commit!r} must be a whole commit id")
        if self.patch is not None:
            _must(self.git is not None and bool(_SHA256.fullmatch(self.patch)), "patch must be a SHA-256, with 'git'")
        if self.pypi is not None:
            _must(bool(_PIN.fullmatch(self.pypi)), f"pypi = {self.pypi!r} must be a pin such as 'swift==2.38.3'")
        if self.debian is not None:
            _must(bool(_PACKAGE.fullmatch(self.debian)), f"debian = {self.debian!r} must be a pin 'package=version'")
        if self.path is not None:
            inside = not self.path.startswith("/") and ".." not in self.path.split("/") and self.path.isprintable()
            inside = inside and self.path != ""
            _must(inside, f"path = {self.path!r} must be a folder inside the repository")


@dataclass(frozen=True)
class Component:
    name: str
    source: Source

    def __post_init__(self) -> None:
        _must(
            bool(_NAME.fullmatch(self.name)),
            f"name = {self.name!r} must be lower-case letters, digits, '-' or '_'",
        )
        _must(self.name not in _RESERVED, f"the name {self.name!r} is taken already")
        kinds = kinds_of_source(self.name)
        _must(
            self.source.kind in kinds,
            f"component '{self.name}' must have {' or '.join(map(repr, kinds))}, not {self.source.kind!r}",
        )


@dataclass(frozen=True)
class Filter:
    """A piece of middleware that a path component brings, put into the proxy's pipeline after authentication."""

    name: str
    factory: str  # "module:function", as paste.deploy calls it
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _must(
            bool(_NAME.fullmatch(self.name)),
            f"name = {self.name!r} must be lower-case letters, digits, '-' or '_'",
        )
        _must(bool(_FACTORY.fullmatch(self.factory)), f"factory = {self.factory!r} must be 'module:function'")
        _check_settings(self.settings)


@dataclass(frozen=True)
class SwiftSettings:
    """`proxy`, `account`, `container`, `object` are settings of those servers, as Swift's own manual names them."""

    replicas: int = 3
    hosts: int = 0  # of the cluster, that storage servers are on; 0: all of them are where the proxy is
    part_power: int = 8
    workers: int = 1
    proxy: dict[str, str | int | float | bool] = field(default_factory=dict)
    account: dict[str, str | int | float | bool] = field(default_factory=dict)
    container: dict[str, str | int | float | bool] = field(default_factory=dict)
    object: dict[str, str | int | float | bool] = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        _must(1 <= self.replicas <= 16, "replicas must be 1 to 16")
        _must(0 <= self.hosts <= 50, "hosts must be 0 to 50")
        _must(4 <= self.part_power <= 16, "part_power must be 4 to 16")
        _must(1 <= self.workers <= 16, "workers must be 1 to 16")
        named = {"proxy": self.proxy, "account": self.account, "container": self.container, "object": self.object}
        for where, settings in (*named.items(), *((f"filters: {one.name}", one.settings) for one in self.filters)):
            _check_settings(settings)
            for key in sorted(settings.keys() & _SWIFT_KEYS):
                raise ValueError(f"swift.{where}.{key} is the farm's to set")
        names = [one.name for one in self.filters]
        for name in names:
            free = name not in _SWIFT_FILTERS and names.count(name) == 1
            _must(free, f"swift.filters: the name {name!r} is taken already")


@dataclass(frozen=True)
class OpenStackSettings:
    """`nova` holds settings of its services, as Nova's own manual names them: section, then option."""

    nova: dict[str, dict[str, str | int | float | bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section, settings in self.nova.items():
            _must(bool(_SECTION.fullmatch(section)), f"nova.{section!r} is not a section's name")
            _check_settings(settings)


@dataclass(frozen=True)
class GuestSettings:
    """The guests' virtual hardware and initramfs."""

    memory_mib: int = 128
    vcpus: int = 1
    machine: Literal["q35", "pc"] = "q35"
    cpu: Literal["maximum", "qemu64"] = "maximum"
    kernel_arguments: str = ""
    extra_modules: tuple[str, ...] = ()  # folders of the kernel's modules packed into the initramfs

    def __post_init__(self) -> None:
        _must(96 <= self.memory_mib <= 2048, "memory_mib must be 96 to 2048")
        _must(1 <= self.vcpus <= 8, "vcpus must be 1 to 8")
        _must(
            bool(_ARGUMENTS.fullmatch(self.kernel_arguments)),
            "kernel_arguments has characters that are not allowed",
        )
        _must(
            "farm." not in self.kernel_arguments,
            "kernel_arguments must not set the farm's own 'farm.*' arguments",
        )
        for folder in self.extra_modules:
            _must(
                bool(_MODULES.fullmatch(folder)),
                f"extra_modules: {folder!r} is not a folder such as 'drivers/net'",
            )


@dataclass(frozen=True)
class DiskSettings:
    """The guests' disks."""

    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe"] = "none"
    io: Literal["threads", "native", "io_uring"] = "threads"
    cluster_size_kib: Literal[4, 16, 64, 128, 256, 512, 1024, 2048] = 64


@dataclass(frozen=True)
class TestsSettings:
    """The stack's own suite, for scenario stack_tests: pytest over `paths`.

    They are inside a component that comes from git, or, where none is named, inside the packages of `requirements`.
    """

    paths: tuple[str, ...]  # files, folders, or single tests as pytest names them
    requirements: tuple[
        str, ...
    ]  # pins of what the suite needs beside the stack's own libraries, with digests or without
    component: str | None = None
    asks: dict[str, str] = field(default_factory=dict)  # beginning of tests' names → the component that these ask

    def __post_init__(self) -> None:
        for path in self.paths:
            inside = path.isprintable() and not path.startswith(("/", "-")) and ".." not in path.split("/")
            _must(inside and path != "", f"paths: {path!r} must be a path inside the component")
        for pin in self.requirements:
            plain, between, digest = pin.partition(_DIGEST)
            held = bool(_PIN.fullmatch(plain)) and bool(_SHA256.fullmatch(digest)) == bool(between)
            _must(
                held, f"requirements: {pin!r} must be a pin such as 'pytest==8.4.2', or one with '{_DIGEST.strip()}…'"
            )
        pinned = {_DIGEST in pin for pin in self.requirements}
        _must(len(pinned) < 2, "requirements: all of them have a digest, or none")
        _must(bool(self.paths), "paths must name at least one file or folder")

    @property
    def pins(self) -> list[str]:
        return [pin.partition(_DIGEST)[0] for pin in self.requirements]

    @property
    def digests(self) -> dict[str, str]:
        """Package → digest of the only wheel that will do; empty where versions are all that is pinned."""
        parts = [pin.partition(_DIGEST) for pin in self.requirements]
        return {plain.partition("==")[0]: digest for plain, _, digest in parts if digest}

    def asked_by(self, test: str) -> str | None:
        """The component that a test of this name asks, as far as the recipe says so."""
        found = [beginning for beginning in self.asks if f"{test}.".startswith(f"{beginning}.")]
        return self.asks[max(found, key=len)] if found else self.component


@dataclass(frozen=True)
class StackHead:
    name: str
    deployer: Literal["swift", "openstack", "external"]

    def __post_init__(self) -> None:
        _must(
            bool(_NAME.fullmatch(self.name)),
            f"name = {self.name!r} must be lower-case letters, digits, '-' or '_'",
        )


@dataclass(frozen=True)
class Recipe:
    """A whole `stack.toml`. `lock` names a file beside it with one `package==version` a line."""

    stack: StackHead
    component: tuple[Component, ...] = ()
    lock: str | None = None
    swift: SwiftSettings = SwiftSettings()
    openstack: OpenStackSettings = OpenStackSettings()
    guest: GuestSettings = GuestSettings()
    disk: DiskSettings = DiskSettings()
    tests: TestsSettings | None = None

    def __post_init__(self) -> None:
        names = [component.name for component in self.component]
        _must(len(set(names)) == len(names), "two components have the same name")
        for name in NEEDED[self.stack.deployer]:
            _must(name in names, f"needs a component named '{name}'")
        _must(
            self.stack.deployer != "external" or not (names or self.lock),
            "an external stack is there already: it has neither components nor a lock",
        )
        _must(
            self.stack.deployer != "openstack" or self.disk == DiskSettings(),
            "disk: guests' disks are Nova's: set 'openstack.nova.libvirt'",
        )
        if self.tests is not None:
            for name in filter(None, (self.tests.component, *self.tests.asks.values())):
                _must(name in names, f"tests: there is no component {name!r}")
        if self.lock is not None:
            _must(
                "/" not in self.lock and self.lock.isprintable() and self.lock not in ("", ".", ".."),
                "lock must be a file beside stack.toml",
            )
