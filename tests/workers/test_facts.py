"""What is concluded from a host's facts."""

import pytest

from scenarios.contract import Failed
from workers.facts import (
    conclude_fidelity,
    first_processor,
    hypervisor_bit,
    refuse_false_claim,
    signs_of_a_hypervisor,
    steal_text,
    temperature_text,
)
from workers.traps import timer_cost_ns, trap_cost_ns

REAL = {"hypervisor bit": "clear", "product": "Example Systems R640"}
VIRTUAL = {"hypervisor bit": "set", "product": "QEMU Standard PC"}


@pytest.mark.parametrize(
    ("accelerators", "hosts", "concluded", "told"),
    [
        (["kvm"], {"h1": REAL, "h2": REAL}, "hardware", "host h1: no sign of a hypervisor below it"),
        (["kvm"], {"h1": REAL, "h2": VIRTUAL}, "emulated", "host h2: its processor says that it is virtual"),
        (["kvm"], {"h1": {**REAL, "product": "VMware7,1"}}, "emulated", "its firmware calls it 'VMware7,1'"),
        (["qemu"], {"h1": REAL}, "emulated", "domain types of guests that answered: qemu"),
        (["kvm", "qemu"], {"h1": REAL}, "emulated", "domain types of guests that answered: kvm, qemu"),
        (["kvm"], {"h1": {}}, "emulated", "its firmware does not say what it is"),
        (["kvm"], {"h1": {**REAL, "product": "unknown unknown"}}, "emulated", "its firmware does not say what it is"),
        (["kvm"], {"h1": {**REAL, "hypervisor bit": "unknown"}}, "emulated", "does not say whether it is virtual"),
        (["kvm"], {}, "emulated", "domain types of guests that answered: kvm"),
        ([], {"h1": REAL}, "emulated", "domain types of guests that answered: none"),
    ],
)
def test_only_kvm_on_hosts_that_are_no_virtual_machines_is_hardware(
    accelerators: list[str], hosts: dict[str, dict[str, str]], concluded: str, told: str
) -> None:
    fidelity = conclude_fidelity(accelerators, hosts)
    assert fidelity.concluded == concluded
    assert told in " · ".join(fidelity.evidence)


@pytest.mark.parametrize(
    ("stat", "told"),
    [
        ("cpu  50 0 20 920 0 0 0 10 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n", "1.00 %"),
        ("cpu  0 0 0 0 0 0 0 0 0 0\n", "unknown"),
        ("cpu  1 2 3\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_steal_is_a_share_of_all_cpu_time(stat: str, told: str) -> None:
    assert steal_text(stat) == told


@pytest.mark.parametrize(
    ("zones", "told"), [(["41000", "63500"], "64 °C"), (["unknown"], "unknown"), ([], "unknown"), (["-5000"], "-5 °C")]
)
def test_the_hottest_sensor_counts(zones: list[str], told: str) -> None:
    assert temperature_text(zones) == told


@pytest.mark.parametrize(
    ("flags", "told"), [("fpu hypervisor", "set"), ("fpu vme", "clear"), ("", "clear"), (None, "unknown")]
)
def test_a_processor_without_flags_says_nothing(flags: str | None, told: str) -> None:
    assert hypervisor_bit(flags) == told


INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz
stepping\t: 4
microcode\t: 0x2007006
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov vmx smx est tm2 ssse3 avx512f
bogomips\t: 4200.00

processor\t: 1
model name\t: another one
flags\t\t: fpu hypervisor
"""
AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7551 32-Core Processor
microcode\t: 0x8001227
flags\t\t: fpu vme de pse tsc msr pae svm sse4a
"""
GUEST = INTEL.replace("avx512f", "avx512f hypervisor")
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics
CPU implementer\t: 0x41
CPU part\t: 0xd0c
"""


@pytest.mark.parametrize(
    ("cpuinfo", "product", "trap", "signs"),
    [
        (INTEL, "Dell Inc. PowerEdge R640", "31 ns", []),
        (AMD, "HPE ProLiant DL385 Gen10", "52 ns", []),
        (INTEL, "Supermicro SYS-1029U-TN10RT", "unknown", []),
        (INTEL, "Amazon EC2 i3.metal", "33 ns", []),  # lent by a cloud, and a real machine
        (GUEST, "Amazon EC2 m5.large", "613 ns", ["its processor says that it is virtual", "cpuid takes 613 ns, so something below it answers"]),
        (GUEST, "QEMU Standard PC (Q35 + ICH9, 2009)", "1104 ns", ["its processor says that it is virtual", "its firmware calls it 'QEMU Standard PC (Q35 + ICH9, 2009)'", "cpuid takes 1104 ns, so something below it answers"]),
        (INTEL, "QEMU Standard PC (i440FX + PIIX, 1996)", "unknown", ["its firmware calls it 'QEMU Standard PC (i440FX + PIIX, 1996)'"]),
        (INTEL, "VMware, Inc. VMware7,1", "unknown", ["its firmware calls it 'VMware, Inc. VMware7,1'"]),
        (INTEL, "Microsoft Corporation Virtual Machine", "unknown", ["its firmware calls it 'Microsoft Corporation Virtual Machine'"]),
        (INTEL, "Xen HVM domU", "unknown", ["its firmware calls it 'Xen HVM domU'"]),
        (INTEL, "innotek GmbH VirtualBox", "unknown", ["its firmware calls it 'innotek GmbH VirtualBox'"]),
        (INTEL, "OpenStack Foundation OpenStack Nova", "unknown", ["its firmware calls it 'OpenStack Foundation OpenStack Nova'"]),
        (INTEL, "Dell Inc. PowerEdge R640", "8180 ns", ["cpuid takes 8180 ns, so something below it answers"]),  # hides its bit and its name
        (ARM, "Huawei TaiShan 200", "unknown", []),
    ],
)  # fmt: skip
def test_what_a_machine_tells_of_itself(cpuinfo: str, product: str, trap: str, signs: list[str]) -> None:
    flags = first_processor(cpuinfo).get("flags")
    facts = {"hypervisor bit": hypervisor_bit(flags), "product": product, "trap cost": trap}
    assert signs_of_a_hypervisor(facts) == signs
    real = conclude_fidelity(["kvm"], {"h1": facts}).concluded == "hardware"
    assert real is (not signs and flags is not None)


def test_the_first_processor_speaks_for_all() -> None:
    cpu = first_processor(INTEL)
    assert (cpu["model name"], cpu["microcode"]) == ("Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", "0x2007006")
    assert "model name" not in first_processor(ARM)


def test_a_virtual_machine_that_is_lent_as_hardware_is_the_donors_fault() -> None:
    refuse_false_claim("hardware", {"h1": REAL, "h2": {}})  # what does not speak is not hardware, and no lie either
    refuse_false_claim(None, {"h1": VIRTUAL})
    with pytest.raises(
        Failed, match="host h2 is lent as hardware, but is a virtual machine: its processor says"
    ) as told:
        refuse_false_claim("hardware", {"h1": REAL, "h2": VIRTUAL})
    assert told.value.fault == "donor"


def test_costs_are_measured_here_too() -> None:
    cost = trap_cost_ns()
    assert cost is None or 5 < cost < 1_000_000
    assert 0 <= timer_cost_ns() < 100_000
