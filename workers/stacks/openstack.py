"""Brings Keystone, Placement, Glance, Swift and Nova, a compute on each host, up at a revision; and takes them down.

The services run behind one set of walls on the storage's network, each nova-compute behind walls of its own in its
host's network. What they need of the farm (PostgreSQL, RabbitMQ) is unpacked beside the system and started here. In
Neutron's place stands `openstack_network`: one network, a bridge that is there already.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import libvirt

from scenarios.contract import Failed, Unsupported
from scenarios.crossing import digest_of
from workers import sandbox
from workers.agent import AgentLink
from workers.builds import Build
from workers.cache import Cache, digest_of_tree
from workers.hosts.base import ClusterHosts, Host, Nearby
from workers.marks import guest_prefix
from workers.stacks import openstack_conf as conf
from workers.stacks import openstack_state, swift
from workers.stacks.openstack_client import Client, Login
from workers.stacks.services import JOB, PYTHON, SUPERVISOR, Service, Services

STATE_TIMEOUT_S = 900.0  # once for each build; a quiet machine needs 15 s, one with a load of 15 ten times that
READY_TIMEOUT_S = 300.0
_POLL_S = 0.5
_STATE_MIB = 1024
_STATE_BYTES = 256 << 20
_MEMORY_MIB = 16384  # address space of one service: Erlang's reserves much and touches little
_PROCESSES = 1024

_HERE = Path(__file__).resolve().parent
_PROGRAMS = {
    **SUPERVISOR,
    **{f"/farm/{name}.py": _HERE / f"{name}.py" for name in ("openstack_run", "openstack_network", "openstack_state")},
}
_ERLANG = "/services/usr/lib/erlang"
_STATE_JOB = "/etc/farm/state.json"
_WSGI = {"keystone": "keystone.wsgi.api", "placement": "placement.wsgi.api", "glance": "glance.wsgi.api",
         "nova": "nova.wsgi.osapi_compute"}  # fmt: skip
_KNOWN = {
    **{name: Service(name, f"{name} API") for name in _WSGI},
    **{name: Service("nova", f"nova-{name}") for name in ("conductor", "scheduler", "compute")},
    **{name: Service(f"{name} (the farm's own)", name) for name in ("postgres", "epmd", "rabbitmq", "network")},
    "prepare": Service("", "databases"),  # what it says names the component
}


@dataclass(frozen=True)
class _Site:
    """What one deployment is made of and where; the same for all that is started for it."""

    build: Build
    cluster: ClusterHosts
    home: Path
    lease: str
    run_dir: Path

    @property
    def prefix(self) -> str:
        return guest_prefix(self.lease)

    @property
    def services(self) -> Path:
        return self.home / "cache" / "software" / "openstack" / "root" / "usr"


class Deployment:
    """An OpenStack that is up. Leaving the `with` undeploys it."""

    def __init__(self, control: conf.Control, observer: AgentLink) -> None:
        self.control = control
        self.client = Client(observer, _administrator(control), self._last_words)
        self.services: dict[str, Services] = {}  # "control" and each host's name
        self._store: swift.Deployment | None = None

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self.undeploy()

    @property
    def store(self) -> swift.Deployment:
        """The object store, which trusts the same identity service."""
        if self._store is None:
            raise Failed("farm", "the object store is not deployed yet")
        return self._store

    @store.setter
    def store(self, store: swift.Deployment) -> None:
        self._store = store

    def server_cpu_s(self) -> float:
        """CPU seconds of all its processes so far, guests not among them, read from outside."""
        return self.store.server_cpu_s() + sum(part.running().cpu_s() for part in self.services.values())

    def logs(self) -> dict[str, str]:
        """What each service said last, as text; also after `undeploy`."""
        stored = self._store.logs() if self._store is not None else {}
        return {f"swift-{name}": text for name, text in stored.items()} | {
            name if where == "control" else f"{name}-{where}": text
            for where, part in self.services.items()
            for name, text in part.logs().items()
        }

    def _last_words(self, log: str) -> str:
        """What a component's API, or the compute on a host, said of errors."""
        if log == "swift":
            return self.store.last_words()
        if log in _WSGI:
            return self.services["control"].last_words(log, errors=True)
        return self.services[log].last_words("compute", errors=True)

    def undeploy(self) -> None:
        """Kill everything and see that it is gone; harmless when done already. Raises Failed (farm).

        Guests are the hosts' and stay: whoever made them removes them, or the sweep does by their names.
        """
        with contextlib.ExitStack() as steps:
            for part in self.services.values():
                steps.callback(part.end)
            if self._store is not None:
                steps.callback(self._store.undeploy)


def deploy(
    build: Build, cluster: ClusterHosts, observer: AgentLink, *, lease: str, run_dir: Path, home: Path
) -> Deployment:
    """Bring `build` up on the cluster; when this returns, Nova says that it has a compute on every host.

    `lease` is the session's mark, `run_dir` a new folder of the session.
    Raises Failed: stack when the revision does not come up, farm when its surroundings cannot be made.
    """
    site = _Site(build, cluster, home, lease, run_dir)
    if not site.services.is_dir():
        raise Failed("farm", f"no PostgreSQL and RabbitMQ under {site.services}: run './setup.sh --openstack'")
    nearby_hosts = [(host, host.nearby) for host in cluster.hosts if host.nearby is not None]
    if len(nearby_hosts) < len(cluster.hosts):
        raise Unsupported("openstack is deployed on hosts that are made of the worker's machine, and on no others")
    run_dir.mkdir(parents=True, mode=0o700)
    state = _state(site)
    control = conf.Control(cluster.storage.address, conf.Secrets(**json.loads((state / "secrets.json").read_text())))
    deployment = Deployment(control, observer)
    with _undeployed_on_error(deployment):
        folder = _made(run_dir / "control")
        walls = _control_walls(site, control, folder, _control_job(site, control), state)
        deployment.services["control"] = _services()
        deployment.services["control"].begin(walls, lease=lease, run_dir=folder)
        for host, nearby in nearby_hosts:
            deployment.services[host.name] = _services()
            walls = _compute_walls(site, control, host, nearby)
            deployment.services[host.name].begin(walls, lease=lease, run_dir=_made(run_dir / host.name))
        # the store needs nobody to start: meanwhile the others do
        software, identity = home / "cache" / "software", conf.store_identity(control)
        deployment.store = swift.deploy(
            build, cluster, lease=lease, run_dir=run_dir / "store", software=software, identity=identity
        )
        for part in deployment.services.values():
            part.wait_ready()
        _wait_for_computes(deployment, {host.name for host in cluster.hosts})
    return deployment


@contextlib.contextmanager
def _undeployed_on_error(deployment: Deployment) -> Iterator[None]:
    try:
        yield
    except BaseException:
        deployment.undeploy()
        raise


def _administrator(control: conf.Control) -> Login:
    url = f"{control.url(conf.IDENTITY_PORT)}/v3"
    return Login(url, conf.USER, control.secrets.admin, conf.PROJECT, conf.REGION)


def _services() -> Services:
    return Services("openstack", _KNOWN, ready_timeout_s=READY_TIMEOUT_S)


def _wait_for_computes(deployment: Deployment, hosts: set[str]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (up := deployment.client.computes_up()) != hosts:
        for part in deployment.services.values():
            part.require_all()
        if time.monotonic() > deadline:
            missing = sorted(hosts - up)
            words = " | ".join(deployment.services[name].last_words("compute", errors=True) for name in missing)
            told = f"nova has no compute on {', '.join(missing)} after {READY_TIMEOUT_S:.0f} s: {words}"
            raise Failed("stack", f"component 'nova' (at: deployment): {told}")
        time.sleep(_POLL_S)


# -- state --------------------------------------------------------------------------------------------------------


def _state(site: _Site) -> Path:
    """The folder with the databases and keys of a deployment of this build that has never run, and its passwords.

    Made with the revision's own code behind walls, once for all revisions that make the same; what it is made of is
    never looked into out here.
    """
    parts = {
        "code": what_makes_state(site.build),
        "job": _state_job(conf.Control(site.cluster.storage.address, conf.Secrets("", "", ""))),
        "program": (_HERE / "openstack_state.py").read_text(),
        "services": (site.services.parents[1] / "packages.txt").read_text(),
    }
    return Cache(site.home / "cache" / "states").entry(
        "openstack", digest_of(parts), lambda folder: _make_state(site, folder)
    )


def what_makes_state(build: Build) -> dict[str, object]:
    """What databases depend on: of Nova, whose check-ins are many, its schemas and the program that makes them.

    What is compiled of it says where and when that was done, and differs for each build.
    """
    whole = {name: _sources(folder) for name, folder in build.code.items() if name != "nova"}
    nova = [_sources(build.code["nova"] / "nova" / part) for part in ("db", "cmd")]
    libraries = [line for line in build.resolved.lock.splitlines() if not line.startswith("nova==")]
    return {**whole, "nova": nova, "libraries": libraries}


def _sources(folder: Path) -> str:
    return digest_of_tree(folder, without="__pycache__")[0]


def _make_state(site: _Site, folder: Path) -> None:
    words = conf.Secrets(*(secrets.token_hex(16) for _ in range(3)))
    control = conf.Control(site.cluster.storage.address, words)
    prepare = [PYTHON, "-W", "ignore", "/farm/openstack_state.py", "make", _STATE_JOB]
    run_dir = _made(site.run_dir / "state")
    making = Services("openstack", _KNOWN, ready_timeout_s=STATE_TIMEOUT_S)
    try:
        walls = _control_walls(site, control, run_dir, {"prepare": [prepare], "services": {}, "ready": {}})
        making.start(walls, lease=site.lease, run_dir=run_dir)
        content = making.running().read(f"{conf.STATE}/state.tar", _STATE_BYTES)
    finally:
        making.end()
    if content is None:
        raise Failed("stack", "openstack's databases cannot be read when they are made")
    (folder / "state.tar").write_bytes(content)
    (folder / "secrets.json").write_text(json.dumps(asdict(words)))


# -- walls --------------------------------------------------------------------------------------------------------


def _control_walls(
    site: _Site,
    control: conf.Control,
    run_dir: Path,
    job: Mapping[str, object],
    state: Path | None = None,
) -> sandbox.Walls:
    """Around the services; their state lies on a file system of its own, which is as large as it may get."""
    image = run_dir / "state.img"
    with image.open("wb") as file:
        file.truncate(_STATE_MIB << 20)
    texts = conf.control_plane(site.build.recipe.openstack, control, site.prefix)
    texts |= {JOB: json.dumps(job), _STATE_JOB: json.dumps(_state_job(control))}
    return sandbox.Walls(
        network_namespace=site.cluster.storage.network_namespace,
        folders=_folders(site) | ({conf.TEMPLATE: state} if state is not None else {}),
        texts=texts,
        disks={conf.STATE: image},
        writable=("/run", "/var/lock", "/dev/shm"),
        # an image is put down there on its way to Glance: folders in memory are smaller
        environment=_environment(site.build) | {"TMPDIR": conf.STATE},
        processes=_PROCESSES,
        memory_mib=_MEMORY_MIB,
    )


def _compute_walls(site: _Site, control: conf.Control, host: Host, nearby: Nearby) -> sandbox.Walls:
    """Around a nova-compute: its host's network, the socket of its host's libvirtd, the folder all computes share.

    It is the user that guests' VMMs are, since libvirt leaves owners as they are.
    """
    folder = Path("sessions", site.lease, "instances")
    outside = nearby.shared_dir / folder
    outside.mkdir(parents=True, exist_ok=True)
    os.chown(outside, host.guest_uid, host.guest_uid)
    inside = str(host.shared_dir / folder)
    told = conf.Compute(host.name, host.address, nearby.peers, inside, site.build.recipe.guest.cpu)
    needed = [conf.MESSAGE_PORT, conf.IDENTITY_PORT, conf.PLACEMENT_PORT]
    command = [PYTHON, "-W", "ignore", "/code/nova/bin/nova-compute", "--config-file", "/etc/nova/nova.conf"]
    job = {
        "prepare": [],
        "services": {"compute": _run([f"{control.address}:{port}" for port in needed], *command)},
        "ready": {},
    }
    texts = conf.compute(site.build.recipe.openstack, control, told, site.prefix)
    return sandbox.Walls(
        network_namespace=nearby.network_namespace,
        folders=_folders(site) | _libvirt_binding() | {"/run/libvirt": nearby.libvirt_dir},
        texts=texts | {JOB: json.dumps(job)},
        disks={},
        writable=("/run", "/var/lock", "/dev/shm", conf.COMPUTE_STATE),
        # the program `file`, which a library asks about Python, has no descriptions of files in here
        environment=_environment(site.build) | {"MAGIC": "/dev/null"},
        processes=_PROCESSES,
        memory_mib=_MEMORY_MIB,
        shared={inside: outside},
        uid=host.guest_uid,
        groups=(nearby.libvirt_gid,),
    )


def _folders(site: _Site) -> dict[str, Path]:
    code = {f"/code/{name}": folder for name, folder in site.build.code.items()}
    pipeline = site.build.code["nova"] / "etc" / "nova" / "api-paste.ini"
    rest = {"/code/libraries": site.build.environment, "/services/usr": site.services}
    return {**code, **_PROGRAMS, **rest, "/etc/nova/api-paste.ini": pipeline}


def _libvirt_binding() -> dict[str, Path]:
    """Ours, made for this machine's libvirt: the index has none that could be unpacked."""
    folder = Path(libvirt.__file__).parent
    return {f"/code/libvirt/{file.name}": file for file in folder.glob("libvirt*") if file.is_file()}


def _environment(build: Build) -> dict[str, str]:
    path = [*(f"/code/{name}" for name in build.code), "/code/libraries", "/code/libvirt"]
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _state_job(control: conf.Control) -> dict[str, object]:
    return {
        "state": conf.STATE,
        "template": f"{conf.TEMPLATE}/state.tar",
        "sockets": conf.DATABASE_SOCKETS,
        "databases": conf.DATABASES,
        "cell0": conf.database("nova_cell0"),
        "admin": control.secrets.admin,
        "service": control.secrets.service,
        "users": conf.SERVICE_USERS,
        "identity": f"{control.url(conf.IDENTITY_PORT)}/v3",
        "region": conf.REGION,
        "endpoints": conf.endpoints(control),
    }


# -- services -----------------------------------------------------------------------------------------------------


def _control_job(site: _Site, control: conf.Control) -> dict[str, object]:
    address = control.address
    database = f"{conf.DATABASE_SOCKETS}/.s.PGSQL.5432"
    identity, placement, messages = (
        f"{address}:{port}" for port in (conf.IDENTITY_PORT, conf.PLACEMENT_PORT, conf.MESSAGE_PORT)
    )
    ports = {
        "keystone": conf.IDENTITY_PORT,
        "placement": conf.PLACEMENT_PORT,
        "glance": conf.IMAGE_PORT,
        "nova": conf.COMPUTE_PORT,
    }
    nova = [PYTHON, "-W", "ignore"]
    config = ["--config-file", "/etc/nova/nova.conf"]
    network = [
        "/farm/openstack_network.py",
        address,
        str(conf.NETWORK_PORT),
        site.cluster.hosts[0].bridge,
        site.cluster.network,
        site.cluster.guest_addresses[0],
        site.cluster.guest_addresses[-1],
    ]
    erts = next(site.services.glob("lib/erlang/erts-*")).name
    return {
        "prepare": [
            [PYTHON, "/farm/openstack_state.py", "unpack", _STATE_JOB],
        ],
        "services": {
            "postgres": openstack_state.database_server(conf.STATE, conf.DATABASE_SOCKETS),
            "epmd": [f"{_ERLANG}/{erts}/bin/epmd", "-address", "127.0.0.1"],
            "rabbitmq": _run(["127.0.0.1:4369"], *_rabbitmq(site)),
            "network": [PYTHON, *network],
            **{name: _run([database], "wsgi", module, address, str(ports[name])) for name, module in _WSGI.items()},
            "conductor": _run([database, messages], *nova, "/code/nova/bin/nova-conductor", *config),
            "scheduler": _run(
                [database, messages, identity, placement], *nova, "/code/nova/bin/nova-scheduler", *config
            ),
        },
        "ready": {
            "keystone": [address, ports["keystone"], "/v3"],
            "placement": [address, ports["placement"], "/"],
            "glance": [address, ports["glance"], "/versions"],
            "nova": [address, ports["nova"], "/"],
        },
    }


def _rabbitmq(site: _Site) -> list[str]:
    """What its own start script comes to, without the parts that care for system services."""
    home = "/services/usr/lib/rabbitmq/lib/" + next(site.services.glob("lib/rabbitmq/lib/rabbitmq_server-*")).name
    code = next(site.services.glob("lib/rabbitmq/lib/rabbitmq_server-*/plugins/rabbit-*")).name
    settings = {
        "HOME": "/run",
        "ERL_LIBS": f"{home}/plugins",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_HOME": home,
        "RABBITMQ_NODENAME": "stack@localhost",
        "RABBITMQ_MNESIA_BASE": f"{conf.STATE}/rabbitmq",
        "RABBITMQ_LOG_BASE": f"{conf.STATE}/rabbitmq",
        "RABBITMQ_CONFIG_FILE": "/etc/rabbitmq/rabbitmq.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": "/run/enabled_plugins",
        "RABBITMQ_PID_FILE": "/run/rabbitmq.pid",
    }
    start = ["-pa", f"{home}/plugins/{code}/ebin", "-noinput", "-s", "rabbit", "boot", "-boot", "start_sasl"]
    quiet = [
        "+W",
        "w",
        "+S",
        "1:1",
        "+sbwt",
        "none",
        "-syslog",
        "logger",
        "[]",
        "-syslog",
        "syslog_error_logger",
        "false",
    ]
    network = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
    environment = [f"{name}={value}" for name, value in settings.items()]
    return ["/usr/bin/env", *environment, f"{_ERLANG}/bin/erl", *start, *quiet, *network]


def _run(needed: Sequence[str], *command: str) -> list[str]:
    return [PYTHON, "-W", "ignore", "/farm/openstack_run.py", ",".join(needed), *command]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
