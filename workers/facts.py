"""What a host is: read by its agent at the start of a session, so that every figure has its circumstances."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scenarios.contract import Failed
from scenarios.crossing import Fidelity, FidelityFact
from workers.operations import operation
from workers.traps import timer_cost_ns, trap_cost_ns

_VERSION_TIMEOUT_S = 20
_THERMAL = Path("/sys/class/thermal")
# words in a machine's DMI product that say it is made by a hypervisor
# (names of clouds are no such word: they also lend machines without a hypervisor)
_VIRTUAL_PRODUCTS = ("kvm", "qemu", "virtual", "vmware", "xen", "hvm domu", "bochs", "bhyve", "openstack nova")
_DEAREST_BARE_TRAP_NS = 250  # processors answer cpuid by themselves within this; no hypervisor does

# A change of one of these opens a new epoch of every series of the cluster
DECLARED = ("cpu", "microcode", "kernel", "firmware", "qemu", "libvirt", "swap")


@operation
def read(emulator: str) -> dict[str, Any]:
    """The facts of this host; what cannot be read is the text 'unknown'. Memory in MiB."""
    cpu = first_processor(Path("/proc/cpuinfo").read_text())
    trap_ns = trap_cost_ns()
    return {
        "cpu": cpu.get("model name", "unknown"),
        "microcode": cpu.get("microcode", "unknown"),
        "cores": str(os.cpu_count()),
        "hypervisor bit": hypervisor_bit(cpu.get("flags")),
        "kernel": os.uname().release,
        "firmware": " ".join(_text(f"/sys/class/dmi/id/{name}") for name in ("bios_vendor", "bios_version")),
        "product": " ".join(_text(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")),
        "trap cost": "unknown" if trap_ns is None else f"{trap_ns} ns",
        "timer cost": f"{timer_cost_ns()} ns",
        "memory": f"{_meminfo_mib('MemTotal')} MiB",
        "swap": f"{_meminfo_mib('SwapTotal')} MiB",
        "memory nodes": str(len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or "unknown"),
        "clock source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "transparent huge pages": _chosen(_text("/sys/kernel/mm/transparent_hugepage/enabled")),
        "same-page merging": _text("/sys/kernel/mm/ksm/run"),
        "load": " ".join(_text("/proc/loadavg").split()[:3]),
        "steal": steal_text(Path("/proc/stat").read_text()),
        "temperature": temperature_text([_text(str(zone)) for zone in _THERMAL.glob("thermal_zone*/temp")]),
        "qemu": _version([emulator, "--version"]),
        "libvirt": _version(["/usr/sbin/libvirtd", "--version"]),
    }


def declared_facts(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The facts that open an epoch, over all hosts: 'name' → the value, or all values where hosts differ."""
    return {name: ", ".join(sorted({str(facts.get(name, "unknown")) for facts in hosts.values()})) for name in DECLARED}


def conclude_fidelity(accelerators: Iterable[str], hosts: Mapping[str, Mapping[str, Any]]) -> FidelityFact:
    """How real the figures are, from what guests ran on and what the hosts themselves are made of.

    `accelerators` are libvirt's domain types of guests that booted and answered: 'kvm' ran on the processor itself,
    'qemu' was translated (TCG). `hosts` are the facts of each host, as `read` gives them.
    """
    kinds = sorted(set(accelerators))
    told = ", ".join(kinds) or "none"
    evidence = [f"domain types of guests that answered: {told}; 'qemu' means that QEMU translated their code (TCG)"]
    doubts = {name: [*signs_of_a_hypervisor(facts), *_silences(facts)] for name, facts in sorted(hosts.items())}
    for name, its in doubts.items():
        trap, timer = (hosts[name].get(cost, "unknown") for cost in ("trap cost", "timer cost"))
        told = " and ".join(its) or "no sign of a hypervisor below it"
        evidence.append(f"host {name}: {told} (cpuid: {trap}, reading the clock: {timer})")
    real = kinds == ["kvm"] and bool(doubts) and not any(doubts.values())
    return FidelityFact("hardware" if real else "emulated", evidence)


def refuse_false_claim(claimed: Fidelity | None, hosts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises Failed (donor) where hosts are lent as real machines and one of them shows that it is virtual."""
    for name, facts in sorted(hosts.items()):
        if claimed == "hardware" and (signs := signs_of_a_hypervisor(facts)):
            raise Failed("donor", f"host {name} is lent as hardware, but is a virtual machine: {' and '.join(signs)}")


def hypervisor_bit(flags: str | None) -> str:
    """Whether the processor's flags say that it is virtual; 'unknown' where it has none, as on ARM."""
    if flags is None:
        return "unknown"
    return "set" if "hypervisor" in flags.split() else "clear"


def signs_of_a_hypervisor(facts: Mapping[str, Any]) -> list[str]:
    """What shows that a host is a virtual machine itself."""
    product = str(facts.get("product", "unknown"))
    signs = ["its processor says that it is virtual"] if facts.get("hypervisor bit") == "set" else []
    if any(word in product.lower() for word in _VIRTUAL_PRODUCTS):
        signs.append(f"its firmware calls it '{product}'")
    trap = re.fullmatch(r"(\d+) ns", str(facts.get("trap cost", "unknown")))
    if trap and int(trap[1]) > _DEAREST_BARE_TRAP_NS:
        signs.append(f"cpuid takes {trap[0]}, so something below it answers")
    return signs


def _silences(facts: Mapping[str, Any]) -> list[str]:
    """What leaves it open whether a host is a real machine: only evidence makes one."""
    silences = []
    if facts.get("hypervisor bit") not in ("set", "clear"):
        silences.append("its processor does not say whether it is virtual")
    if set(str(facts.get("product", "unknown")).split()) <= {"unknown"}:
        silences.append("its firmware does not say what it is")
    return silences


def steal_text(stat: str) -> str:
    """The share of CPU time since boot that a hypervisor below took, from /proc/stat's text."""
    line = next((line for line in stat.splitlines() if line.startswith("cpu ")), "")
    times = [int(word) for word in line.split()[1:9]]
    total = float(sum(times))
    return f"{100 * times[7] / total:.2f} %" if len(times) == 8 and total else "unknown"


def temperature_text(millidegrees: Sequence[str]) -> str:
    """The hottest sensor, from what the kernel's thermal zones hold."""
    read = [int(text) for text in millidegrees if text.lstrip("-").isdigit()]
    return f"{max(read) / 1000:.0f} °C" if read else "unknown"


def first_processor(cpuinfo: str) -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo's text."""
    first = cpuinfo.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _meminfo_mib(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) // 1024 if match else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _chosen(text: str) -> str:
    """The bracketed word of 'always [madvise] never'."""
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else text


def _version(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, stdin=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    match = re.search(r"\d+(\.\d+)+( \(.*\))?", done.stdout)
    return match[0] if match else "unknown"
