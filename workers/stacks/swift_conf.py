"""Swift's configuration files for one deployment, from the recipe's settings: text in, text out."""

from collections.abc import Mapping
from dataclasses import dataclass

from scenarios.recipe import SwiftSettings
from workers.stacks.swift_rings import PORTS

SWIFT_DIR, DEVICES, CACHE_DIR = "/etc/swift", "/srv/node", "/var/cache/swift"
PROXY_PORT, S3_PORT, MEMCACHED_PORT = 8080, 8081, 11211
ACCOUNT, USER = "farm", "uploader"
# Part of every object's place on the disks; constant, so that a name's place depends on the name alone
HASH_PREFIX, HASH_SUFFIX = "farm", "farm"

_PIPELINE_BEFORE = (
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "proxy-logging",
    "cache",
    "listing_formats",
)
_PIPELINE_AFTER = ("copy", "slo", "dlo", "proxy-logging", "proxy-server")
Setting = str | int | float | bool
# an updater is run once, when it is asked: on a busy machine it must not give up what it then leaves for a minute
_PATIENT: Mapping[str, Setting] = {"conn_timeout": 10, "node_timeout": 30}


@dataclass(frozen=True)
class Identity:
    """The service that says whose a token is, and as whom it is asked."""

    url: str
    user: str
    password: str
    project: str
    domain: str


@dataclass(frozen=True)
class Place:
    """Where a deployment listens, and the password of its only user; or who knows its users.

    S3 is spoken by a proxy of its own, where asked for: what everybody else measures is the same with and without.
    """

    address: str
    password: str
    s3: bool = False
    storage_address: str = "127.0.0.1"  # of the account, container and object servers
    identity: Identity | None = None


def configuration(settings: SwiftSettings, place: Place) -> dict[str, str]:
    """Path inside the walls → text."""
    servers: dict[str, Mapping[str, Setting]] = {
        "account": settings.account,
        "container": settings.container,
        "object": settings.object,
    }
    texts = {
        f"{SWIFT_DIR}/{kind}-server.conf": _storage_server(kind, settings, place, own) for kind, own in servers.items()
    }
    texts[f"{SWIFT_DIR}/proxy-server.conf"] = _proxy_server(settings, place)
    if place.s3:
        texts[f"{SWIFT_DIR}/s3-server.conf"] = _proxy_server(settings, place, s3=True)
    texts[f"{SWIFT_DIR}/swift.conf"] = _sections(
        {
            "swift-hash": {"swift_hash_path_prefix": HASH_PREFIX, "swift_hash_path_suffix": HASH_SUFFIX},
            "storage-policy:0": {"name": "default", "default": True},
        }
    )
    return texts


def test_configuration(place: Place) -> str:
    """For Swift's own functional tests: where to, and as whom. Tests that need more users say so and are skipped."""
    return _sections(
        {
            "func_test": {
                "auth_uri": f"http://{place.address}:{PROXY_PORT}/auth/v1.0",
                "auth_version": 1,
                "account": ACCOUNT,
                "username": USER,
                "password": place.password,
                "collate": "C",
            }
        }
    )


def _storage_server(kind: str, settings: SwiftSettings, place: Place, own: Mapping[str, Setting]) -> str:
    return _sections(
        {
            "DEFAULT": {
                **_common(settings),
                "bind_ip": place.storage_address,
                "bind_port": PORTS[kind],
                "devices": DEVICES,
                "mount_check": True,
                "recon_cache_path": CACHE_DIR,
            },
            "pipeline:main": {"pipeline": f"healthcheck {kind}-server"},
            "filter:healthcheck": {"use": "egg:swift#healthcheck"},
            f"app:{kind}-server": {"use": f"egg:swift#{kind}", **own},
            f"{kind}-updater": _PATIENT,
        }
    )


def _proxy_server(settings: SwiftSettings, place: Place, *, s3: bool = False) -> str:
    filters = {item.name: item for item in settings.filters}
    login = ("authtoken", "keystoneauth") if place.identity else ("s3api", "tempauth") if s3 else ("tempauth",)
    port = S3_PORT if s3 else PROXY_PORT
    sections: dict[str, Mapping[str, Setting]] = {
        "DEFAULT": {**_common(settings), "bind_ip": place.address, "bind_port": port},
        "pipeline:main": {"pipeline": " ".join((*_PIPELINE_BEFORE, *login, *filters, *_PIPELINE_AFTER))},
        "app:proxy-server": {"use": "egg:swift#proxy", "account_autocreate": True, **settings.proxy},
        **_login_filters(place),
        "filter:cache": {"use": "egg:swift#memcache", "memcache_servers": f"127.0.0.1:{MEMCACHED_PORT}"},
        "filter:proxy-logging": {"use": "egg:swift#proxy_logging"},
    }
    for name in ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "copy", "slo", "dlo"):
        sections[f"filter:{name}"] = {"use": f"egg:swift#{name}"}
    if s3:
        # parts may be smaller than S3's own 5 MiB, and go at once: no expirer runs here that would come round
        sections["filter:s3api"] = {"use": "egg:swift#s3api", "min_segment_size": 1}
        sections["filter:slo"] = {"use": "egg:swift#slo", "allow_async_delete": False}
    for name, item in filters.items():
        sections[f"filter:{name}"] = {"paste.filter_factory": item.factory, **item.settings}
    return _sections(sections)


def _login_filters(place: Place) -> dict[str, Mapping[str, Setting]]:
    if place.identity is None:
        user = {f"user_{ACCOUNT}_{USER}": f"{place.password} .admin"}
        return {"filter:tempauth": {"use": "egg:swift#tempauth", **user, "storage_url_scheme": "http"}}
    who = place.identity
    return {
        "filter:authtoken": {
            "paste.filter_factory": "keystonemiddleware.auth_token:filter_factory",
            "www_authenticate_uri": who.url,
            "auth_type": "password",
            "auth_url": who.url,
            "username": who.user,
            "password": who.password,
            "project_name": who.project,
            "user_domain_id": who.domain,
            "project_domain_id": who.domain,
            "delay_auth_decision": True,
            "cache": "swift.cache",
        },
        "filter:keystoneauth": {"use": "egg:swift#keystoneauth", "operator_roles": "admin, member"},
    }


def _common(settings: SwiftSettings) -> dict[str, Setting]:
    return {"workers": settings.workers, "user": "stack", "swift_dir": SWIFT_DIR, "log_level": "WARNING"}


def _sections(sections: Mapping[str, Mapping[str, Setting]]) -> str:
    lines = []
    for name, settings in sections.items():
        lines.append(f"[{name}]")
        lines += [
            f"{key} = {str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
        ]
    return "\n".join(lines) + "\n"
