"""What a cluster of lent machines is asked before anything is made on it, and what it may be used for."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import libvirt

from scenarios.contract import Failed, ScenarioError
from scenarios.crossing import PlannedLent
from workers.agent import AgentLink
from workers.clocks import SURE_BOUNDS
from workers.hosts.ssh import SshHost
from workers.hypervisors.calls import ask

WATCH_S = 1.0
_LOOK_TIMEOUT_S = 60.0
_LIBVIRT_TIMEOUT_S = 40.0
_WORST_CLOCK_S = 0.1
_HOW_TO = "docs/how-to/lend-a-cluster.md"
_NOBODY = "check"  # lease of the agents of a look that no session asked for


@dataclass(frozen=True)
class Answer:
    """`remedy` is what to do where it is not `ok`."""

    question: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class HostAnswers:
    host: str
    answers: Sequence[Answer]

    @property
    def ok(self) -> bool:
        return all(answer.ok for answer in self.answers)


def check(hosts: Sequence[SshHost], ours: tuple[str, ...]) -> list[HostAnswers]:
    """Ask all hosts at once, each with deadlines; `ours` is how names of our own guests begin. Makes nothing."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        looked = list(pool.map(lambda host: _check_host(host, ours), hosts))
    shared = {name: look["places"]["shared"].get("same") for name, (_, look) in _seen(hosts, looked).items()}
    found = []
    for host, (answers, look) in zip(hosts, looked, strict=True):
        if look and look["places"]["shared"]["there"]:
            answers.append(_same(host, shared))
        found.append(HostAnswers(host.name, answers))
    return found


def require_quiet(hosts: Sequence[SshHost]) -> None:
    """Raises Failed (donor): busy, where others work on a host more than was stated, or have left no room for us."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        refusals = [told for found in pool.map(_refusals, hosts) for told in found]
    if refusals:
        raise Failed("donor", f"busy: {'; '.join(refusals)}")


def _refusals(host: SshHost) -> list[str]:
    with host.agent(_NOBODY) as agent:
        look = _look(host, agent)
    judged = [_load(look, host.lent), _room(look, host.lent)]
    return [f"host {host.name}: {answer.found}" for answer in judged if not answer.ok]


def _check_host(host: SshHost, ours: tuple[str, ...]) -> tuple[list[Answer], dict[str, Any]]:
    answers: list[Answer] = []
    look: dict[str, Any] = {}
    try:
        with host.agent(_NOBODY) as agent:
            look = _look(host, agent)
            bound_s = agent.clock_offset_s()[1]
    except ScenarioError as error:
        return [Answer("reachable", False, str(error), _login_remedy(str(error)))], {}
    answers.append(Answer("reachable", True, f"as {look['user']}"))
    told = f"known to {bound_s * 1e3:.2g} ms: times between it and others are told from {SURE_BOUNDS} times that on"
    answers.append(Answer("clock", bound_s < _WORST_CLOCK_S, told, "a nearer worker, or a quieter way to it"))
    answers += [_rights(look), _folders(look, host.lent), _network(look, host), _load(look, host.lent)]
    answers += [_room(look, host.lent), *_hypervisor(host, look, ours)]
    return answers, look


def _look(host: SshHost, agent: AgentLink) -> dict[str, Any]:
    asked = {"folder": host.lent.folder, "bridge": host.bridge, "emulator": host.emulator, "watch_s": WATCH_S}
    return dict(agent.call("hosts.lent.look", timeout_s=_LOOK_TIMEOUT_S, **asked))


def _login_remedy(told: str) -> str:
    remedies = {
        "Host key verification failed": "its key is not the inventory's: find out why before you change host_key",
        "Permission denied": "put the worker's public key into the account's authorized_keys",
        "timed out": "a firewall, or a machine that hangs",
        "Python 3.11": "a newer Debian, or a newer Python as /usr/bin/python3",
        "No such file": "it needs Python 3.11 or newer as /usr/bin/python3",
    }
    return next((remedy for words, remedy in remedies.items() if words in told), "start it, or mend its uri")


def _rights(look: Mapping[str, Any]) -> Answer:
    lacking = [name for name, place in look["places"].items() if place["there"] and not place["writable"]]
    lacking += [] if look["logs_writable"] else ["/var/log/libvirt/qemu"]
    told = f"{look['user']} may write where sessions do"
    if not lacking:
        return Answer("rights", True, told)
    return Answer("rights", False, f"{look['user']} may not write to {', '.join(lacking)}", f"make them its: {_HOW_TO}")


def _folders(look: Mapping[str, Any], lent: PlannedLent) -> Answer:
    missing = [f"{lent.folder}/{name}" for name, place in look["places"].items() if not place["there"]]
    if missing:
        return Answer("folders", False, f"there is no {', '.join(missing)}", f"make them: {_HOW_TO}")
    kinds = ", ".join(f"{name} on {look['places'][name]['kind']}" for name in ("work", "shared"))
    return Answer("folders", True, kinds)


def _network(look: Mapping[str, Any], host: SshHost) -> Answer:
    if not look["bridge"]:
        return Answer("network", False, f"there is no bridge {host.bridge}", "make it, or mend lent.bridge")
    if host.address not in look["addresses"]:
        told = f"{host.address} is none of its addresses ({', '.join(look['addresses'])})"
        return Answer("network", False, told, f"give it to {host.bridge}, or mend the host's address")
    return Answer("network", True, f"{host.address}, bridge {host.bridge}")


def _load(look: Mapping[str, Any], lent: PlannedLent) -> Answer:
    told = f"others take {look['busy']:.0%} of its processors, at most {lent.most_load:.0%} is stated"
    return Answer("load", look["busy"] <= lent.most_load, told, "try again when it is quieter, or raise lent.most_load")


def _room(look: Mapping[str, Any], lent: PlannedLent) -> Answer:
    work = look["places"]["work"]
    free_mib = work.get("free_mib", 0)
    ok = look["memory_mib"] >= lent.memory_mib and free_mib >= lent.disk_mib
    told = f"{look['memory_mib']} MiB of memory and {free_mib} MiB of disk are free"
    told += f", {lent.memory_mib} and {lent.disk_mib} are lent"
    return Answer("room", ok, told, "free some, or lend less")


def _hypervisor(host: SshHost, look: Mapping[str, Any], ours: tuple[str, ...]) -> list[Answer]:
    try:
        found = ask(f"libvirt of {host.name}", _LIBVIRT_TIMEOUT_S, lambda: _libvirt(host.uri))
    except ScenarioError as error:
        return [Answer("libvirt", False, str(error), f"the account must be in the group libvirt: {_HOW_TO}")]
    foreign = [name for name in sorted({*found.guests, *look["guests"]}) if not name.startswith(ours)]
    kvm = f"libvirt lists {'kvm' if found.lists_kvm else 'no kvm'}, driver {host.accelerator} is asked for"
    remedy = "load the module kvm_intel or kvm_amd, or say driver = 'qemu'"
    return [
        Answer("libvirt", True, found.versions),
        Answer("kvm", found.lists_kvm or host.accelerator != "kvm", kvm, remedy),
        Answer("emulator", look["emulator"], host.emulator, "install qemu-system-x86"),
        Answer("foreign guests", True, f"{', '.join(foreign) or 'none'}: they stay as they are"),
        Answer("pools", True, f"{', '.join(found.pools) or 'none'}: none is used"),
    ]


@dataclass(frozen=True)
class _Libvirt:
    versions: str
    lists_kvm: bool
    guests: Sequence[str]
    pools: Sequence[str]


def _libvirt(uri: str) -> _Libvirt:
    connection = libvirt.open(uri)
    try:
        numbers = connection.getLibVersion(), connection.getVersion()
        libvirt_version, qemu_version = (".".join(map(str, _parts(number))) for number in numbers)
        return _Libvirt(
            f"libvirt {libvirt_version}, QEMU {qemu_version}",
            "<domain type='kvm'" in connection.getCapabilities(),
            [domain.name() for domain in connection.listAllDomains()],
            _pools(connection),
        )
    finally:
        connection.close()


def _pools(connection: libvirt.virConnect) -> list[str]:
    try:
        return [pool.name() for pool in connection.listAllStoragePools()]
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:  # no driver of storage, so no pools
            return []
        raise


def _parts(number: int) -> tuple[int, int, int]:
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def _seen(
    hosts: Sequence[SshHost], looked: Sequence[tuple[list[Answer], dict[str, Any]]]
) -> dict[str, tuple[list[Answer], dict[str, Any]]]:
    return {host.name: one for host, one in zip(hosts, looked, strict=True) if one[1]}


def _same(host: SshHost, shared: Mapping[str, Any]) -> Answer:
    others = [name for name, same in shared.items() if same is not None and same != shared[host.name]]
    where = f"{host.lent.folder}/shared"
    if others:
        return Answer(
            "shared folder", False, f"{where} is another one on {', '.join(others)}", "mount the same on all hosts"
        )
    return Answer("shared folder", True, f"{where} is the same on all hosts that were seen")
