"""The physical limits of a session's hosts, probed one after the other before, between and after its blocks.

What cannot be probed has no limit, which is told in the log and fails nothing.
"""

import contextlib
import datetime
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scenarios.contract import Failed
from scenarios.crossing import Probe
from scenarios.probes import KINDS, OBSERVER, STORAGE, ProbeName
from workers.agent import AgentLink
from workers.hosts.base import Host, Storage

_DISK_S = 0.3  # each of writing, flushing and reading
_MEMORY_S = 0.1
_NETWORK_S, _ROUND_TRIPS, _MOST_NETWORK_S = 0.25, 30, 2.0  # a long link takes some round trips to get up to speed
_PING_S = 0.05
_LINKS_AT_ONCE = 8  # of hosts; where there are more they take turns
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

    `observer_address` is where uploads are made, on the test network. `work_dir` gives the session's folder on a host;
    `folder` is the one on the worker's machine.
    """

    def __init__(
        self,
        links: Sequence[Linked],
        observer: AgentLink,
        observer_address: str,
        storage: Storage,
        *,
        folder: Path,
        work_dir: Callable[[Host], Path],
        log: Callable[[str], None],
    ) -> None:
        self._links, self._observer, self._storage = links, observer, storage
        self._observer_end = _End(OBSERVER, observer, observer_address)
        self._store_end = _End(STORAGE, observer, storage.address, str(storage.network_namespace))
        self._turns = self._in_turn(random.Random(folder.name))
        self._folder, self._work_dir, self._log = folder, work_dir, log

    def probe(self, block: int) -> list[Probe]:
        """All limits once, none where no host is seen; `block` is the number of blocks that were measured before."""
        if not self._links:
            return []
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
        """Between hosts and from where uploads are made to each of them; and to the store and back."""
        hosts = next(self._turns)
        for source, target in [*hosts, (self._observer_end, self._store_end), (self._store_end, self._observer_end)]:
            with self._or_none(f"network from {source.name} to {target.name}"):
                yield from _link(source, target)

    def _in_turn(self, dice: random.Random) -> Iterator[list[tuple["_End", "_End"]]]:
        """All links of hosts, each time the next ones; in another order for each session."""
        ends = [_End(link.host.name, link.agent, link.host.address) for link in self._links]
        links = list(itertools.permutations(ends, 2)) + [(self._observer_end, end) for end in ends]
        endless = itertools.cycle(dice.sample(links, len(links)))
        while True:
            yield list(itertools.islice(endless, min(_LINKS_AT_ONCE, len(links))))

    @contextlib.contextmanager
    def _or_none(self, what: str) -> Iterator[None]:
        try:
            yield
        except Failed as error:
            self._log(f"no limit is known of the {what}: {error}")


_Found = tuple[ProbeName, str, str | None, float]


@dataclass(frozen=True)
class _End:
    """One end of a link: an agent, and where it is on the test network."""

    name: str
    agent: AgentLink
    address: str
    namespace: str | None = None  # of the network it is in, where that is not the agent's own


def _disk(agent: AgentLink, place: str, path: Path) -> Iterator[_Found]:
    found = agent.call("probes.disk", timeout_s=_TIMEOUT_S, path=str(path), limit_s=_DISK_S)
    yield from ((kind, place, None, found[kind]) for kind in KINDS if kind in found)


def _link(source: _End, target: _End) -> Iterator[_Found]:
    with _answering(target, "echo", limit_s=_TIMEOUT_S / 2) as (port, _):
        round_trip_us = _ask(source, target, "round_trip", port, limit_s=_PING_S)
    yield "round trip", source.name, target.name, round_trip_us
    network_s = min(max(_NETWORK_S, _ROUND_TRIPS * round_trip_us / 1e6), _MOST_NETWORK_S)
    with _answering(target, "receive", connections=_CONNECTIONS, limit_s=_TIMEOUT_S / 2) as (port, received):
        _ask(source, target, "send", port, connections=_CONNECTIONS, limit_s=network_s)
    yield "network", source.name, target.name, float(received.result())


def _ask(source: _End, target: _End, operation: str, port: int, **arguments: Any) -> Any:
    how = {"address": target.address, "port": port, "namespace": source.namespace, **arguments}
    return source.agent.call(f"probes.{operation}", timeout_s=_TIMEOUT_S, **how)


@contextlib.contextmanager
def _answering(target: _End, operation: str, **arguments: Any) -> Iterator[tuple[int, Future[Any]]]:
    """The port at which the target waits to do its part, and what comes of that."""
    port = target.agent.call("probes.listen", timeout_s=_TIMEOUT_S, address=target.address, namespace=target.namespace)
    with ThreadPoolExecutor(1) as pool:
        part = pool.submit(target.agent.call, f"probes.{operation}", timeout_s=_TIMEOUT_S, port=port, **arguments)
        yield port, part
        part.result()
