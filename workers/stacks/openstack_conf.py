"""OpenStack's configuration files for one deployment: text in, text out.

The services know each other by address, port and password. What they keep is in PostgreSQL, which listens on a socket
behind the walls only; what they tell each other goes through RabbitMQ, which the computes reach over the test network.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scenarios.contract import Failed
from scenarios.recipe import OpenStackSettings
from workers.stacks.swift_conf import PROXY_PORT, Identity

IDENTITY_PORT, PLACEMENT_PORT, IMAGE_PORT, COMPUTE_PORT, NETWORK_PORT, MESSAGE_PORT = 5000, 8778, 9292, 8774, 9696, 5672
REGION, DOMAIN, PROJECT = "RegionOne", "default", "admin"
USER, SERVICE_USERS = "admin", ("nova", "placement", "glance", "neutron", "swift")
STATE, TEMPLATE = "/srv/state", "/srv/template"
COMPUTE_STATE = "/var/lib/nova"
DATABASE_SOCKETS = "/run"
DATABASES = ("keystone", "placement", "glance", "nova_api", "nova", "nova_cell0")

# Where a service listens, whom it trusts and where it writes are the farm's to set, not a recipe's
_OWN_SECTIONS = {
    "api_database", "database", "glance", "keystone_authtoken", "key_manager", "neutron", "nova_sys_admin",
    "oslo_concurrency", "placement", "privsep_osbrick", "service_user", "vif_plug_linux_bridge_privileged",
    "vif_plug_ovs_privileged", "wsgi",
}  # fmt: skip

Setting = str | int | float | bool
Sections = dict[str, dict[str, Setting]]


@dataclass(frozen=True)
class Secrets:
    """Passwords of one deployment's state: they are in its databases."""

    admin: str
    service: str
    messages: str


@dataclass(frozen=True)
class Control:
    """Where the services of a deployment listen, and what they know each other by."""

    address: str
    secrets: Secrets

    def url(self, port: int) -> str:
        return f"http://{self.address}:{port}"


@dataclass(frozen=True)
class Compute:
    """One host as its nova-compute is told of it."""

    name: str
    address: str
    peers: str  # libvirt's URI of the others
    instances: str  # folder that all computes share
    cpu: str  # of guests, as a recipe names it


def endpoints(control: Control) -> dict[str, tuple[str, str]]:
    """Service → (type, URL), as the catalogue has it; the identity service enters itself."""
    return {
        "placement": ("placement", control.url(PLACEMENT_PORT)),
        "glance": ("image", control.url(IMAGE_PORT)),
        "nova": ("compute", f"{control.url(COMPUTE_PORT)}/v2.1"),
        "neutron": ("network", control.url(NETWORK_PORT)),
        "swift": ("object-store", f"{control.url(PROXY_PORT)}/v1/AUTH_%(project_id)s"),
    }


def store_identity(control: Control) -> Identity:
    """As which user the object store asks whose a token is."""
    return Identity(f"{control.url(IDENTITY_PORT)}/v3", "swift", control.secrets.service, "service", DOMAIN)


def database(name: str) -> str:
    return f"postgresql+psycopg2://stack@/{name}?host={DATABASE_SOCKETS}"


def messages(control: Control) -> str:
    return f"rabbit://stack:{control.secrets.messages}@{control.address}:{MESSAGE_PORT}/"


def control_plane(settings: OpenStackSettings, control: Control, guest_prefix: str) -> dict[str, str]:
    """Path inside the walls → text. Raises Failed (stack) for settings that a recipe may not make."""
    log: dict[str, Setting] = {"use_stderr": True}
    keystone: Sections = {
        "DEFAULT": log,
        "database": _database("keystone"),
        "token": {"provider": "fernet"},
        "fernet_tokens": {"key_repository": f"{STATE}/fernet"},
        "fernet_receipts": {"key_repository": f"{STATE}/fernet"},
        "credential": {"key_repository": f"{STATE}/credential"},
        "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
        "identity": {"password_hash_rounds": 4},
    }
    placement: Sections = {
        "DEFAULT": log,
        "placement_database": _database("placement"),
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": _tokens(control, "placement"),
    }
    glance: Sections = {
        "DEFAULT": {**log, "enabled_backends": "files:file", "enabled_import_methods": "[]"},
        "database": _database("glance"),
        "glance_store": {"default_backend": "files"},
        "files": {"filesystem_store_datadir": f"{STATE}/images"},
        "os_glance_staging_store": {"filesystem_store_datadir": f"{STATE}/staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": f"{STATE}/tasks"},
        "paste_deploy": {"flavor": "keystone", "config_file": "/code/glance/etc/glance/glance-api-paste.ini"},
        "oslo_concurrency": {"lock_path": f"{STATE}/locks"},
        "keystone_authtoken": _tokens(control, "glance"),
    }
    nova = _nova(control, guest_prefix, f"{STATE}/nova") | {
        "api": {"auth_strategy": "keystone"},
        "api_database": _database("nova_api"),
        "database": _database("nova"),
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 1},
    }
    nova["DEFAULT"] |= {"host": "control", "my_ip": control.address}
    return {
        "/etc/keystone/keystone.conf": _text(keystone),
        "/etc/placement/placement.conf": _text(placement),
        "/etc/glance/glance-api.conf": _text(glance),
        "/etc/nova/nova.conf": _text(_with_settings(nova, settings)),
        "/etc/rabbitmq/rabbitmq.conf": _rabbitmq(control),
    }


def compute(settings: OpenStackSettings, control: Control, host: Compute, guest_prefix: str) -> dict[str, str]:
    """As `control_plane`, for one host."""
    nova = _nova(control, guest_prefix, COMPUTE_STATE)
    nova["DEFAULT"] |= {
        "host": host.name,
        "my_ip": host.address,
        "instances_path": host.instances,
        "compute_driver": "libvirt.LibvirtDriver",
        "force_raw_images": False,
    }
    nova["libvirt"] = {
        "virt_type": "qemu",
        "connection_uri": "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
        "cpu_mode": "maximum" if host.cpu == "maximum" else "none",
        "live_migration_uri": host.peers,
        "live_migration_permit_auto_converge": True,
        "num_pcie_ports": 4,
    }
    nova["workarounds"] = {"disable_deep_image_inspection": True, "skip_cpu_compare_on_dest": True}
    helper = "/code/libraries/bin/privsep-helper --config-file /etc/nova/nova.conf"
    for section in ("nova_sys_admin", "privsep_osbrick", "vif_plug_linux_bridge_privileged", "vif_plug_ovs_privileged"):
        # it has no more rights than the service itself: the farm's walls give none
        nova[section] = {"helper_command": f"/usr/bin/python3 {helper}", "capabilities": ""}
    return {"/etc/nova/nova.conf": _text(_with_settings(nova, settings))}


def _nova(control: Control, guest_prefix: str, state: str) -> Sections:
    return {
        "DEFAULT": {
            "use_stderr": True,
            "state_path": state,
            "transport_url": messages(control),
            "rootwrap_config": "/code/nova/etc/nova/rootwrap.conf",
            "graceful_shutdown_timeout": 1,
            "instance_name_template": f"{guest_prefix}%(uuid)s",
            "vif_plugging_timeout": 0,
            "vif_plugging_is_fatal": False,
        },
        "glance": {"endpoint_override": control.url(IMAGE_PORT)},
        "key_manager": {"fixed_key": "0" * 64},  # volumes are not encrypted: there are none
        "keystone_authtoken": _tokens(control, "nova"),
        "neutron": _login(control, "neutron"),
        "oslo_concurrency": {"lock_path": f"{state}/locks"},
        "placement": _login(control, "placement"),
        "service_user": {"send_service_user_token": True, **_login(control, "nova")},
        "vnc": {"enabled": False},
    }


def _database(name: str) -> dict[str, Setting]:
    return {"connection": database(name), "retry_interval": 1, "max_retries": 60}


def _login(control: Control, user: str) -> dict[str, Setting]:
    return {
        "auth_type": "password",
        "auth_url": f"{control.url(IDENTITY_PORT)}/v3",
        "username": user,
        "password": control.secrets.service,
        "project_name": "service",
        "user_domain_id": DOMAIN,
        "project_domain_id": DOMAIN,
        "region_name": REGION,
    }


def _tokens(control: Control, user: str) -> dict[str, Setting]:
    return {"www_authenticate_uri": f"{control.url(IDENTITY_PORT)}/v3", **_login(control, user)}


def _rabbitmq(control: Control) -> str:
    settings = {
        "listeners.tcp.1": f"{control.address}:{MESSAGE_PORT}",
        "default_user": "stack",
        "default_pass": control.secrets.messages,
        "loopback_users": "none",
        "vm_memory_high_watermark.absolute": "512MB",
        "log.console": "true",
        "log.console.level": "warning",
        "log.file": "false",
    }
    return "".join(f"{key} = {value}\n" for key, value in settings.items())


def _with_settings(nova: Sections, settings: OpenStackSettings) -> Sections:
    for section, own in settings.nova.items():
        taken = sorted(own.keys() & nova.get(section, {}).keys())
        if section in _OWN_SECTIONS or taken:
            where = f"{section}.{taken[0]}" if taken else section
            raise Failed("stack", f"stack.toml: openstack.nova.{where} is the farm's to set")
    return {name: nova.get(name, {}) | settings.nova.get(name, {}) for name in {**nova, **settings.nova}}


def _text(sections: Mapping[str, Mapping[str, Setting]]) -> str:
    lines = []
    for name, settings in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {value}".rstrip() for key, value in settings.items()]
    return "\n".join(lines) + "\n"
