"""The sweep: nothing of an ended session stays on a cluster, and nothing of anybody else is touched.

Swept are the session's own mark and the marks of sessions that have ended (nobody holds their lock), on the
hosts of the lease. Guests are asked for from libvirt and then looked for as processes, so that a libvirtd that
does not answer keeps nothing alive. Its hang is told, as a fault of the donor.
"""

import contextlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import libvirt

from scenarios.contract import Failed, ScenarioError
from workers import guests, leftovers
from workers.deadline import within
from workers.hosts.base import Cloud, ClusterHosts, Host
from workers.marks import guest_prefix, known_sessions, live_sessions, take_lock
from workers.stacks.cloud_things import CloudClient, clear

_LIBVIRT_TIMEOUT_S = 10.0
_CLEAR_TIMEOUT_S = 60.0
_GUEST_LOGS = "/var/log/libvirt/qemu"  # libvirt writes one log a guest
_DAEMONS = "/run/libvirt"  # a libvirtd that a session deploys has a folder there
_WORDS = 300
_NO_SESSION = "sweep"  # lease of the agents of a sweep that no session asked for


@dataclass(frozen=True)
class Swept:
    """What a sweep found and cleared; `failures` is what it could not, and whose fault that is."""

    sessions: tuple[str, ...] = ()  # ended ones that were swept
    guests: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    things: tuple[str, ...] = ()  # in a cloud
    failures: tuple[Failed, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether there was nothing to clear and nothing went wrong."""
        return not (
            self.guests or self.processes or self.mounts or self.loops or self.folders or self.things or self.failures
        )


def sweep(cluster: ClusterHosts, *, own: str | None = None, hosts: Collection[str] | None = None) -> Swept:
    """Clear the marks of ended sessions, and of `own`, from the hosts of the lease (default: all).

    An ended session is known until a sweep of all hosts has found nothing in its way. What `own` keeps: its
    folder on the worker's machine, and its agents, which end with their links; its folders on hosts are removed
    and have to be made anew.
    """
    leased = [host for host in cluster.hosts if hosts is None or host.name in hosts]
    with contextlib.ExitStack() as locks:
        ended = [
            session
            for session in known_sessions(cluster.folder)
            if session != own and _take(locks, cluster.folder / "sessions" / session) is not None
        ]
        with ThreadPoolExecutor(max(1, len(leased))) as pool:
            parts = list(pool.map(lambda host: _sweep_host(host, ended, own), leased))
        if cluster.cloud is not None:
            parts.append(_sweep_cloud(cluster, cluster.cloud, [*ended, *([own] if own else [])]))
        # a mark is forgotten when nothing can carry it any more, not before
        everywhere = len(leased) == len(cluster.hosts) and not any(part.failures for part in parts)
        parts.append(_sweep_here(cluster, ended, own, forget=everywhere))
    return _joined(ended, parts)


def _take(locks: contextlib.ExitStack, folder: Path) -> IO[bytes] | None:
    """The lock is held while its session is swept, so that the session cannot begin anew meanwhile."""
    lock = take_lock(folder)
    return locks.enter_context(lock) if lock is not None else None


def _sweep_host(host: Host, ended: Sequence[str], own: str | None) -> Swept:
    sessions = [*ended, *([own] if own else [])]
    if not sessions:
        return Swept()
    found: tuple[str, ...] = ()
    failures: list[Failed] = []
    prefixes = tuple(guest_prefix(session) for session in sessions)
    try:
        found = within(
            _LIBVIRT_TIMEOUT_S,
            f"libvirtd of host {host.name}",
            lambda: guests.remove(host.uri, lambda name: name.startswith(prefixes)),
        )
    except Failed as failure:
        failures.append(failure)
    except libvirt.libvirtError as error:
        failures.append(Failed("donor", f"libvirtd of host {host.name}: {' '.join(str(error).split())[-_WORDS:]}"))
    try:
        with host.agent(own or _NO_SESSION) as agent:
            cleared = agent.call(
                "leftovers.clear",
                timeout_s=_CLEAR_TIMEOUT_S,
                ended=list(ended),
                own=own,
                folders=[str(place / "sessions" / s) for place in (host.work_dir, host.shared_dir) for s in sessions],
                keep_folders=[],
                named_after_guests=[str(host.console_dir), _GUEST_LOGS, _DAEMONS],
            )
            if host.nearby is not None:  # its disk is a file of the machine that it is made of
                agent.call("leftovers.give_back", timeout_s=_CLEAR_TIMEOUT_S, folder=str(host.work_dir))
    except Failed as failure:
        return Swept(guests=found, failures=(*failures, failure))
    return _summary(host.name, cleared, found, failures)


def _sweep_cloud(cluster: ClusterHosts, cloud: Cloud, sessions: Sequence[str]) -> Swept:
    if not sessions:
        return Swept()
    with cluster.observer.agent(_NO_SESSION) as agent:
        try:
            found = clear(CloudClient(agent, cloud.login), sessions)
        except ScenarioError as error:
            return Swept(failures=(Failed("donor", f"cloud {cloud.planned.name}: {error}"),))
    return Swept(things=tuple(f"cloud {cloud.planned.name}: {thing}" for thing in found))


def _sweep_here(cluster: ClusterHosts, ended: Sequence[str], own: str | None, *, forget: bool) -> Swept:
    """The worker's own machine: processes of sessions, what they hold of the storage, and their folders."""
    if not ended and not own:
        return Swept()
    ended_folders = [str(cluster.folder / "sessions" / session) for session in ended]
    own_folders = [str(cluster.folder / "sessions" / own)] if own else []
    cleared = leftovers.clear(
        ended=list(ended),
        own=own,
        folders=ended_folders if forget else [],
        keep_folders=own_folders if forget else ended_folders + own_folders,
        named_after_guests=[],
    )
    if not set(live_sessions(cluster.folder)) - {own, *ended}:
        for disk in cluster.storage.disks:
            cleared["loops"] += leftovers.detach_below(disk)
    return _summary("the worker", cleared, (), [])


def _summary(where: str, cleared: dict[str, Any], found: tuple[str, ...], failures: Sequence[Failed]) -> Swept:
    stuck = [Failed("donor", f"{where}: {item}") for item in cleared["stuck"]]
    told = {
        kind: tuple(f"{where}: {item}" for item in cleared[kind])
        for kind in ("processes", "mounts", "loops", "folders")
    }
    return Swept(guests=tuple(f"{where}: {guest}" for guest in found), failures=(*failures, *stuck), **told)


def _joined(ended: Sequence[str], parts: Sequence[Swept]) -> Swept:
    return Swept(
        sessions=tuple(ended),
        guests=tuple(item for part in parts for item in part.guests),
        processes=tuple(item for part in parts for item in part.processes),
        mounts=tuple(item for part in parts for item in part.mounts),
        loops=tuple(item for part in parts for item in part.loops),
        folders=tuple(item for part in parts for item in part.folders),
        things=tuple(item for part in parts for item in part.things),
        failures=tuple(item for part in parts for item in part.failures),
    )
