"""What a host is: read by its agent at the start of a session, so that every figure has its circumstances."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scenarios.crossing import FidelityFact
from workers.operations import operation

_VERSION_TIMEOUT_S = 20
_THERMAL = Path("/sys/class/thermal")
# words in a machine's DMI product that say it is made by a hypervisor
_VIRTUAL_PRODUCTS = ("kvm", "qemu", "virtual", "vmware", "xen", "bochs", "bhyve", "openstack", "google compute", "ec2")

# A change of one of these opens a new epoch of every series of the cluster
DECLARED = ("cpu", "microcode", "kernel", "firmware", "qemu", "libvirt", "swap")


@operation
def read(emulator: str) -> dict[str, Any]:
    """The facts of this host; what cannot be read is the text 'unknown'. Memory in MiB."""
    cpu = _cpuinfo()
    return {
        "cpu": cpu.get("model name", "unknown"),
        "microcode": cpu.get("microcode", "unknown"),
        "cores": str(os.cpu_count()),
        "hypervisor bit": hypervisor_bit(cpu.get("flags")),
        "kernel": os.uname().release,
        "firmware": " ".join(_text(f"/sys/class/dmi/id/{name}") for name in ("bios_vendor", "bios_version")),
        "product": " ".join(_text(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")),
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


def conclude_fidelity(accelerators: Sequence[str], hosts: Mapping[str, Mapping[str, Any]]) -> FidelityFact:
    """How real the figures are, from what guests ran on and what the hosts themselves are made of.

    `accelerators` are libvirt's domain types that guests booted with: 'kvm' ran on the processor itself, 'qemu'
    was translated (TCG). `hosts` are the facts of each host, as `read` gives them.
    """
    kinds = sorted(set(accelerators))
    told = ", ".join(kinds) or "none"
    evidence = [f"guests' domain types: {told}; 'qemu' means that QEMU translated their code (TCG)"]
    signs = {name: _signs_of_a_hypervisor(facts) for name, facts in sorted(hosts.items())}
    evidence += [
        f"host {name}: {' and '.join(its) or 'no sign of a hypervisor below it'}" for name, its in signs.items()
    ]
    real = kinds == ["kvm"] and bool(signs) and not any(signs.values())
    return FidelityFact("hardware" if real else "emulated", evidence)


def hypervisor_bit(flags: str | None) -> str:
    """Whether the processor's flags say that it is virtual; 'unknown' where it has none, as on ARM."""
    if flags is None:
        return "unknown"
    return "set" if "hypervisor" in flags.split() else "clear"


def _signs_of_a_hypervisor(facts: Mapping[str, Any]) -> list[str]:
    """What shows that a host is a virtual machine itself, or leaves it open: only evidence makes a real machine."""
    product = str(facts.get("product", "unknown"))
    bit = facts.get("hypervisor bit", "unknown")
    signs = ["its processor says that it is virtual"] if bit == "set" else []
    if bit not in ("set", "clear"):
        signs.append("its processor does not say whether it is virtual")
    if set(product.split()) <= {"unknown"}:
        signs.append("its firmware does not say what it is")
    if any(word in product.lower() for word in _VIRTUAL_PRODUCTS):
        signs.append(f"its firmware calls it '{product}'")
    return signs


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


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
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
