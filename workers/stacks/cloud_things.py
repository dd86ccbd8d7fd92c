"""What a session makes in a cloud that is not its own: every thing carries the session's mark, and goes by it.

A thing of ours has a name that begins like those of the session's guests, and says in its metadata, its description
or its properties which session it is of. Nothing that lacks one of the two is ever touched, whoever it belongs to.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from scenarios.contract import Failed, ScenarioError, Unsupported
from scenarios.recipe import GuestSettings
from workers.agent import AgentLink
from workers.marks import guest_prefix
from workers.stacks.openstack_client import Client, Login

SESSION = "farm_session"  # key of metadata and properties
CONTAINERS_MARK = "X-Container-Meta-Farm-Session"
_NEWEST = (2, 81)  # version of Nova's API: later ones are not needed
_GONE_TIMEOUT_S = 90.0
_POLL_S = 0.25


class CloudClient(Client):
    """A user of a cloud that is there: what fails is the cloud's, and what it refuses is its answer."""

    def __init__(self, observer: AgentLink, login: Login) -> None:
        super().__init__(observer, login)
        self._version: str | None = None

    def failure(self, kind: str, what: str, *logs: str) -> Failed:
        return Failed("hypervisor", f"the cloud's {kind} service: {what}")

    def refusal(self, kind: str, status: int, what: str) -> ScenarioError:
        return Unsupported(f"the cloud's {kind} service: {what}") if status in (403, 406) else self.failure(kind, what)

    def compute_version(self) -> str:
        """The newest that it has and that is needed."""
        if self._version is None:
            told = self.compute_versions()[1]
            offered = tuple(int(part) for part in told.split("."))
            self._version = "compute " + ".".join(str(part) for part in min(offered, _NEWEST))
        return self._version

    def compute_versions(self) -> tuple[str, str]:
        """The oldest and the newest of Nova's API."""
        version = self.document("compute", "/v2.1/").get("version", {})
        return str(version.get("min_version") or "2.1"), str(version.get("version") or "2.1")


@dataclass(frozen=True)
class _Kind:
    """One kind of thing: how those of a session are found, and how one is deleted."""

    service: str
    path: str
    key: str
    query: Callable[[str], dict[str, str]]
    session_of: Callable[[Mapping[str, Any]], object]
    listing: str = ""


# in the order in which they can be deleted
_KINDS = (
    _Kind(
        "compute", "/servers", "servers", lambda session: {"name": f"^{guest_prefix(session)}"},
        lambda server: server["metadata"].get(SESSION), "/detail",
    ),
    _Kind(
        "network", "/ports", "ports", lambda session: {"description": session},
        lambda port: port.get("description"),
    ),
    _Kind(
        "image", "/images", "images", lambda session: {SESSION: session, "limit": "1000"},
        lambda image: image.get(SESSION),
    ),
    _Kind(
        "compute", "/flavors", "flavors", lambda session: {},
        lambda flavor: flavor.get("description"), "/detail",
    ),
)  # fmt: skip


class Things:
    """What one session makes. May be used from several threads at once."""

    def __init__(self, client: CloudClient, session: str) -> None:
        self._client = client
        self._session = session
        self._prefix = guest_prefix(session)

    def image(self, name: str, kind: str, file: Path, **properties: str) -> str:
        """The id of a new image; `kind` is Glance's disk format."""
        container = kind if kind in ("aki", "ari") else "bare"
        told = {"name": self._prefix + name, "disk_format": kind, "container_format": container, SESSION: self._session}
        number = str(self._client.image("POST", "/images", told | properties).body["id"])
        self._client.image("PUT", f"/images/{number}/file", file=file)
        return number

    def flavor(self, settings: GuestSettings) -> str:
        """The id of a new flavor with the memory and the processors of these settings."""
        name = f"{self._prefix}{settings.memory_mib}-{settings.vcpus}"
        told = {"name": name, "ram": settings.memory_mib, "vcpus": settings.vcpus, "disk": 0}
        flavor = {**told, "description": self._session}
        return str(self._client.compute("POST", "/flavors", {"flavor": flavor}).body["flavor"]["id"])

    def port(self, name: str, network: str) -> tuple[str, str]:
        """The id of a new port in a network, and the IPv4 address that the cloud has given it."""
        told = {"name": name, "network_id": network, "description": self._session}
        owner = {"project_id": self._client.project(), "tenant_id": self._client.project()}
        port = self._client.network("POST", "/ports", {"port": told | owner}).body["port"]
        addresses = [str(one["ip_address"]) for one in port["fixed_ips"] if ":" not in one["ip_address"]]
        if not addresses:
            raise self._client.failure("network", f"port {name} has no IPv4 address")
        return str(port["id"]), addresses[0]

    def server(self, name: str, asked: Mapping[str, Any]) -> str:
        """The id of a new server; it is being made when this returns."""
        server = {"name": name, "metadata": {SESSION: self._session}, **asked}
        return str(self._client.compute("POST", "/servers", {"server": server}).body["server"]["id"])

    def delete_server(self, number: str) -> None:
        _delete(self._client, "compute", f"/servers/{number}")

    def delete_port(self, number: str) -> None:
        _delete(self._client, "network", f"/ports/{number}")


def clear(client: CloudClient, sessions: Sequence[str]) -> list[str]:
    """Delete all things of these sessions, and see that they are gone; returns what was there.

    Raises Failed (donor) for what stays.
    """
    found = []
    for kind in _KINDS:
        for session in sessions:
            for thing in _of_session(client, kind, session):
                found.append(f"{kind.key[:-1]} {thing['name']}")
                _delete(client, kind.service, f"{kind.path}/{thing['id']}")
    if client.has("object-store"):
        found += [gone for session in sessions for gone in _clear_containers(client, session)]
    return found


def _clear_containers(client: CloudClient, session: str) -> Iterator[str]:
    """With all that is in them."""
    listed = client.store("GET", f"?{urlencode({'format': 'json', 'prefix': guest_prefix(session)})}").body or []
    for name in [str(container["name"]) for container in listed]:
        path = f"/{quote(name)}"
        if client.store("HEAD", path).headers.get(CONTAINERS_MARK.lower()) != session:
            continue
        yield f"container {name}"
        while objects := client.store("GET", f"{path}?format=json").body or []:
            for one in objects:
                client.store("DELETE", f"{path}/{quote(str(one['name']))}", may_miss=True)
        client.store("DELETE", path, may_miss=True)


def _of_session(client: CloudClient, kind: _Kind, session: str) -> Iterator[Mapping[str, Any]]:
    asked = urlencode(kind.query(session), quote_via=quote)
    path = kind.path + kind.listing + (f"?{asked}" if asked else "")
    for thing in getattr(client, kind.service)("GET", path).body[kind.key]:
        if str(thing["name"]).startswith(guest_prefix(session)) and kind.session_of(thing) == session:
            yield thing


def _delete(client: CloudClient, service: str, path: str) -> None:
    ask = getattr(client, service)
    ask("DELETE", path, may_miss=True)
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while ask("GET", path, may_miss=True).status != 404:
        if time.monotonic() > deadline:
            raise Failed("donor", f"the cloud was asked to delete {path}, which is still there")
        time.sleep(_POLL_S)
