"""The physical limits of a session's hosts, probed one after the other before, between and after its blocks.

What cannot be probed has no limit, which is told in the log and fails nothing.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from scenarios.contract import Failed
from scenarios.crossing import Probe
from scenarios.probes import OBSERVER, STORAGE, ProbeName
from workers.agent import AgentLink
from workers.hosts.base import Host, Storage

_DISK_S = 0.3  # each of writing, flushing and reading
_MEMORY_S = 0.1
_NETWORK_S = 0.4
_CONNECTIONS = 8
_TIMEOUT_S = 30.0
_PROBE_FILE = "limit.probe"


class Linked(Protocol):
    """A host, and the agent that a session has on it."""

    @property
    def host(self) -> Host: ...
    @property
    def agent(self) -> AgentLink: ...


class Limits:
    """`probe` after probe of the hosts behind `links`, the store and the links between them.

    `work_dir` gives the session's folder on a host; `folder` is the one on the worker's machine.
    """

    def __init__(
        self,
        links: Sequence[Linked],
        observer: AgentLink,
        storage: Storage,
        *,
        folder: Path,
        work_dir: Callable[[Host], Path],
        log: Callable[[str], None],
    ) -> None:
        self._links, self._observer, self._storage = links, observer, storage
        self._folder, self._work_dir, self._log = folder, work_dir, log

    def probe(self, block: int) -> list[Probe]:
        """All limits once; `block` is the number of blocks that were measured before."""
        found = [one for part in (self._hosts, self._store, self._network) for one in part()]
        now = datetime.datetime.now(datetime.UTC).isoformat()
        return [Probe(kind, at, to, value, block, now) for kind, at, to, value in found]

    def _hosts(self) -> Iterator["_Found"]:
        for link in self._links:
            name, path = link.host.name, self._work_dir(link.host) / _PROBE_FILE
            with self._or_none(f"disk of {name}"):
                yield from _disk(link.agent, name, path)
            with self._or_none(f"memory of {name}"):
                value = link.agent.call("probes.memory_copy", timeout_s=_TIMEOUT_S, limit_s=_MEMORY_S)
                yield "memory copy", name, None, value

    def _store(self) -> Iterator["_Found"]:
        """The store's disks are image files here; they share the disk that the session's folder is on."""
        with self._or_none("disks of the store"):
            if {disk.stat().st_dev for disk in self._storage.disks} != {self._folder.stat().st_dev}:
                raise Failed("farm", f"they lie on another disk than {self._folder}")
            yield from _disk(self._observer, STORAGE, self._folder / _PROBE_FILE)

    def _network(self) -> Iterator["_Found"]:
        """From each host to the next, all around, and from where uploads are made to the store."""
        for source, target in zip(self._links, [*self._links[1:], *self._links[:1]], strict=True):
            if source is not target:
                names = source.host.name, target.host.name
                with self._or_none(f"network from {names[0]} to {names[1]}"):
                    yield "network", *names, _transfer(source.agent, target.agent, target.host.address)
        with self._or_none("network to the store"):
            namespace = str(self._storage.network_namespace)
            value = _transfer(self._observer, self._observer, self._storage.address, namespace)
            yield "network", OBSERVER, STORAGE, value

    @contextlib.contextmanager
    def _or_none(self, what: str) -> Iterator[None]:
        try:
            yield
        except Failed as error:
            self._log(f"no limit is known of the {what}: {error}")


_Found = tuple[ProbeName, str, str | None, float]


def _disk(agent: AgentLink, place: str, path: Path) -> Iterator[_Found]:
    found = agent.call("probes.disk", timeout_s=_TIMEOUT_S, path=str(path), limit_s=_DISK_S)
    kinds: tuple[ProbeName, ...] = ("disk write", "flush", "disk read")
    yield from ((kind, place, None, found[kind]) for kind in kinds)


def _transfer(source: AgentLink, target: AgentLink, address: str, namespace: str | None = None) -> float:
    """MiB/s from one agent to the other."""
    port = target.call("probes.listen", timeout_s=_TIMEOUT_S, address=address, namespace=namespace)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(
            target.call,
            "probes.receive",
            timeout_s=_TIMEOUT_S,
            port=port,
            connections=_CONNECTIONS,
            limit_s=_TIMEOUT_S / 2,
        )
        try:
            source.call(
                "probes.send",
                timeout_s=_TIMEOUT_S,
                address=address,
                port=port,
                connections=_CONNECTIONS,
                limit_s=_NETWORK_S,
            )
        finally:
            value = float(received.result())
    return value
