"""The virtual hardware that a scenario may ask a guest to have, as parameters; by default as the stack says."""

from scenarios.contract import Hardware
from scenarios.parameters import Choice, Number, Parameter, Values, number, word

HARDWARE: tuple[Parameter, ...] = (
    Number("memory_mib", 0, 96, 2048, "MiB", "the guest's memory; 0 is as the stack says"),
    Number("vcpus", 0, 1, 8, "CPUs", "its virtual CPUs; 0 is as the stack says"),
    Choice("cpu", "stack", ("stack", "maximum", "qemu64"), "its CPU: all that the host can give, or the baseline"),
    Choice("machine", "stack", ("stack", "q35", "pc"), "its chipset"),
)


def hardware_of(params: Values) -> Hardware:
    """What the values ask for."""
    cpu, machine = word(params, "cpu"), word(params, "machine")
    return Hardware(
        memory_mib=number(params, "memory_mib") or None,
        vcpus=number(params, "vcpus") or None,
        cpu="maximum" if cpu == "maximum" else "qemu64" if cpu == "qemu64" else None,
        machine="q35" if machine == "q35" else "pc" if machine == "pc" else None,
    )
