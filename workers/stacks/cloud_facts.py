"""What a cloud tells of itself: all that there is of a revision of something that nobody here has deployed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scenarios.contract import ScenarioError, Unsupported
from workers.stacks.cloud_things import CloudClient

NOT_TOLD = "not told"


@dataclass(frozen=True)
class Told:
    """`declared` are the facts that open an epoch of the cloud's series when they change; they are among `all`."""

    all: dict[str, str]
    declared: dict[str, str]


def facts_of(client: CloudClient) -> Told:
    """Raises ScenarioError where the cloud does not let us in; what it does not tell this user is told as that."""
    oldest, newest = client.compute_versions()
    declared = {
        "compute API": f"{oldest} to {newest}",
        "image API": _newest(client.document("image", "/versions").get("versions", [])),
        "network API": _newest(client.document("network", "/").get("versions", [])),
        "hypervisors": _or_not_told(client, _hypervisors),
    }
    services = {"services": _or_not_told(client, _services)}
    return Told(declared | services, declared)


def _newest(versions: Any) -> str:
    """Of what a service lists as its versions."""
    current = [str(one.get("id")) for one in versions if one.get("status") == "CURRENT"]
    return ", ".join(current) or NOT_TOLD


def _or_not_told(client: CloudClient, tell: Any) -> str:
    try:
        return ", ".join(sorted(set(tell(client)))) or NOT_TOLD
    except Unsupported as reason:
        return f"{NOT_TOLD}: {reason}"
    except ScenarioError as error:
        return f"{NOT_TOLD}: {error}"


def _hypervisors(client: CloudClient) -> Iterator[str]:
    for one in client.compute("GET", "/os-hypervisors/detail").body["hypervisors"]:
        yield f"{one['hypervisor_type']} {one['hypervisor_version']}"


def _services(client: CloudClient) -> Iterator[str]:
    for one in client.compute("GET", "/os-services").body["services"]:
        yield f"{one['binary']} on {one['host']}: {one['state']}, {one['status']}"
