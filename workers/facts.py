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
        "hypervisor bit": "set" if "hypervisor" in cpu.get("flags", "").split() else "clear",
        "kernel": os.uname().release,
        "firmware": " ".join(_text(f"/sys/class/dmi/id/{name}") for name in ("bios_vendor", "bios_version")),
        "product": _text("/sys/class/dmi/id/product_name"),
        "memory": f"{_meminfo_mib('MemTotal')} MiB",
        "swap": f"{_meminfo_mib('SwapTotal')} MiB",
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "transparent huge pages": _chosen(_text("/sys/kernel/mm/transparent_hugepage/enabled")),
        "same-page merging": _text("/sys/kernel/mm/ksm/run"),
        "load": " ".join(_text("/proc/loadavg").split()[:3]),
        "qemu": _version([emulator, "--version"]),
        "libvirt": _version(["/usr/sbin/libvirtd", "--version"]),
    }


def declared_facts(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The facts that open an epoch, over all hosts: 'name' → the value, or all values where hosts differ."""
    return {name: ", ".join(sorted({str(facts.get(name, "unknown")) for facts in hosts.values()})) for name in DECLARED}


def conclude_fidelity(accelerators: Sequence[str]) -> FidelityFact:
    """How real the figures are, from the accelerator that each booted guest's VMM said it used.

    `accelerators` are libvirt's domain types: 'kvm' ran on the processor itself, 'qemu' was translated (TCG).
    """
    kinds = sorted(set(accelerators))
    if kinds == ["kvm"]:
        return FidelityFact("hardware", ["all guests ran under KVM"])
    told = ", ".join(kinds) or "none"
    return FidelityFact(
        "emulated", [f"guests' domain types: {told}; 'qemu' means that QEMU translated their code (TCG)"]
    )


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
