"""What is concluded from a host's facts."""

import pytest

from workers.facts import conclude_fidelity, hypervisor_bit, steal_text, temperature_text

REAL = {"hypervisor bit": "clear", "product": "Example Systems R640"}
VIRTUAL = {"hypervisor bit": "set", "product": "QEMU Standard PC"}


@pytest.mark.parametrize(
    ("accelerators", "hosts", "concluded", "told"),
    [
        (["kvm"], {"h1": REAL, "h2": REAL}, "hardware", "host h1: no sign of a hypervisor below it"),
        (["kvm"], {"h1": REAL, "h2": VIRTUAL}, "emulated", "host h2: its processor says that it is virtual"),
        (["kvm"], {"h1": {**REAL, "product": "VMware7,1"}}, "emulated", "its firmware calls it 'VMware7,1'"),
        (["qemu"], {"h1": REAL}, "emulated", "guests' domain types: qemu"),
        (["kvm", "qemu"], {"h1": REAL}, "emulated", "guests' domain types: kvm, qemu"),
        (["kvm"], {"h1": {}}, "emulated", "its firmware does not say what it is"),
        (["kvm"], {"h1": {**REAL, "product": "unknown unknown"}}, "emulated", "its firmware does not say what it is"),
        (["kvm"], {"h1": {**REAL, "hypervisor bit": "unknown"}}, "emulated", "does not say whether it is virtual"),
        (["kvm"], {}, "emulated", "guests' domain types: kvm"),
        ([], {"h1": REAL}, "emulated", "guests' domain types: none"),
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
