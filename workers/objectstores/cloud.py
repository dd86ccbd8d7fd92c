"""The object store of a cloud that is there already: uploads and read-back, but nobody sees its servers and disks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from scenarios.contract import Failed, Placement, Unsupported, Usage
from workers.agent import AgentLink
from workers.marks import guest_prefix
from workers.objectstores.payload import Payload
from workers.objectstores.swift import CALL_TIMEOUT_S, Spent, SwiftStore
from workers.objectstores.wire import Endpoint
from workers.stacks.cloud_things import CONTAINERS_MARK, CloudClient

_UNSEEN = "the disks and servers of a cloud's object store are not seen"


class CloudStore(SwiftStore):
    """scenarios.contract.ObjectStore with the token that Nova is asked with, in containers of the session."""

    replicas = 0  # nobody knows

    def __init__(self, client: CloudClient, observer: AgentLink, payload: Payload, session: str) -> None:
        url = urlsplit(client.endpoint("object-store"))
        is_tls = url.scheme == "https"
        at = Endpoint(
            url.hostname or "",
            url.port or (443 if is_tls else 80),
            url.path,
            client.token(),
            container=f"{guest_prefix(session)}objects",
            tls=is_tls,
            ca_file=client.login.ca_file,
        )
        self.open(at, observer, payload, {CONTAINERS_MARK: session})

    def placement_of(self, name: str) -> Placement:
        raise Unsupported(_UNSEEN)

    def server_cpu_s(self) -> float:
        raise Unsupported(_UNSEEN)

    @contextmanager
    def _server_cpu(self) -> Iterator[Spent]:
        yield Spent()

    def _spread(self, paths: list[str], lengths: list[int]) -> list[str]:
        raise Unsupported(_UNSEEN)

    def _require_room(self, size: int) -> None:
        """The store says so itself when it has none."""

    def _free_bytes(self) -> dict[str, int]:
        """Of no disk is known how full it is."""
        return {}

    def _observed(self, operation: str, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any) -> Any:
        try:
            return super()._observed(operation, timeout_s, **arguments)
        except Failed as error:
            if error.fault != "stack":
                raise
            raise Failed("hypervisor", f"the cloud's object store: {error}") from None

    def delete(self, name: str) -> float:
        return float(self._observed("files.delete", stored=self._stored(name)))

    def usage(self) -> Usage:
        raise Unsupported("what is stored in the account is not this session's alone")
