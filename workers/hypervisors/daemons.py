"""The libvirtds that a session deploys on its hosts, each for the guests of one deployment of one revision."""

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import libvirt

from scenarios.contract import Failed, ScenarioError
from scenarios.recipe import DAEMON
from workers import libvirts
from workers.hypervisors.calls import ask
from workers.hypervisors.events import FirstRuns
from workers.hypervisors.link import HostLink
from workers.libvirts import Libvirt

_CALL_TIMEOUT_S = 30.0
_READY_TIMEOUT_S = 60.0
_POLL_S = 0.05


@dataclass
class _Deployed:
    """One on every host."""

    name: str
    links: Sequence[HostLink]
    exits: contextlib.ExitStack


class Daemons:
    """Those that run now. One ends when none of its guests is left, so that kept guests can still be checked."""

    def __init__(self) -> None:
        self._deployed: list[_Deployed] = []

    def deploy(
        self, wanted: Libvirt, name: str, knowledge: str, programs: str, links: Sequence[HostLink]
    ) -> Sequence[HostLink]:
        """Start one on every host; returns what a session holds of the hosts, through these.

        Raises Failed: stack for one that does not answer, or is not the version that was deployed; Unsupported, before
        anything is started, for hosts that are not ours.
        """
        for link in links:
            link.host.uri_of(name)
        with contextlib.ExitStack() as exits:
            for link in links:
                exits.callback(_end, link, name)
                asked = {"name": name, "programs": programs, "knowledge": knowledge}
                link.agent.call("hypervisors.daemon.start", timeout_s=_CALL_TIMEOUT_S, **asked)
            with ThreadPoolExecutor(len(links)) as pool:
                own = list(pool.map(lambda link: _connected(link, name, wanted), links))
            for link in own:
                exits.callback(_disconnect, link)
            self._deployed.append(_Deployed(name, own, exits.pop_all()))
        return own

    def links(self) -> list[HostLink]:
        return [link for one in self._deployed for link in one.links]

    def retire(self, is_used: Callable[[Sequence[HostLink]], bool]) -> None:
        """End those that nobody uses."""
        for one in list(self._deployed):
            if not is_used(one.links):
                self._deployed.remove(one)
                one.exits.close()


def _connected(link: HostLink, name: str, wanted: Libvirt) -> HostLink:
    """The link through the daemon, when it answers and says that it is what it should be."""
    uri = link.host.uri_of(name)
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            connection = ask(
                f"connect to the deployed libvirtd on {link.name}", _CALL_TIMEOUT_S, lambda: libvirt.open(uri)
            )
            break
        except ScenarioError as error:
            words = link.agent.call("hypervisors.daemon.last_words", timeout_s=_CALL_TIMEOUT_S, name=name)
            if words.startswith("it ended") or time.monotonic() > deadline:
                raise Failed("stack", f"component {DAEMON}: {wanted.pin}: {error}: {words}"[:900]) from None
            time.sleep(_POLL_S)
    is_told = ask(f"version of libvirtd on {link.name}", _CALL_TIMEOUT_S, connection.getLibVersion)
    if is_told != wanted.version:
        connection.close()
        said = f"its libvirtd on {link.name} says that it is {libvirts.told(is_told)}"
        raise Failed("stack", f"component {DAEMON}: {wanted.pin}: {said}")
    runs = ask(f"listen to libvirt of {link.name}", _CALL_TIMEOUT_S, lambda: FirstRuns(connection))
    return replace(link, connection=connection, first_runs=runs, migration_uri=link.host.migration_uri_of(name))


def _disconnect(link: HostLink) -> None:
    with contextlib.suppress(ScenarioError):  # whoever is gone tells nothing any more
        ask(f"stop listening to libvirt of {link.name}", _CALL_TIMEOUT_S, link.first_runs.stop)
        ask(f"disconnect from libvirt of {link.name}", _CALL_TIMEOUT_S, link.connection.close)


def _end(link: HostLink, name: str) -> None:
    link.agent.call("hypervisors.daemon.end", timeout_s=_CALL_TIMEOUT_S, name=name)
