"""How long does a guest take from the request to its first answer?

Measured: from the request to the hypervisor until each stage of the boot that can be seen (the VMM's process is
made, the first virtual CPU runs, the hypervisor says so, the kernel's clock begins, the first process speaks on the
console, user space is ready) and until the first answer reaches an observer elsewhere on the network
(`answer_ms`); and the CPU time that QEMU has used by then (`qemu_cpu_s`), which hardly depends on what else the
host does, with that of the daemon that manages guests (`daemon_cpu_s`). A stage that cannot be seen has no sample, nor
has one of which the clocks are not sure that it came in its order, as they may be on a busy host. Where guests are
asked for through an API, `api_ms` is the time until it has answered that it will see to it, and `vmm_ms` until it says
that the guest runs. On hosts that are not seen CPU times are unsupported. Kernel and initramfs are in the host's page
cache; with `cache=cold` they are not, and `read_mib` is what was read from the host's disk. Memory, virtual CPUs, CPU
model and chipset are as the stack says, or as asked for.

What boots is the small guest, its kernel given directly; or a Debian with systemd and 2 GiB of data, which answers
through a service of its own. On request GRUB boots them from their disk, by BIOS or UEFI.

Not measured: fetching images; logging in.

The proof: the answer repeats a nonce that was made for this boot and stands only on its kernel's command line; no
stage came out of its order, as far as the clocks are sure. A cold boot: no page of the image was in the cache at the
request, and at least what is there at the answer was read from the disk, by this guest's VMM.
"""

from scenarios.contract import Bench, Cell, Host, Metric, Scenario, Sheet, System
from scenarios.hardware import HARDWARE, hardware_of
from scenarios.parameters import Choice, Parameter, Values, word
from scenarios.sight import seen
from scenarios.stages import record_stages
from scenarios.unlimited import API, CPU, PROVEN, STAGE

TIMEOUT_S = {"small": 60.0, "debian": 300.0}
FIRMWARE_TIMEOUT_S = 120.0  # UEFI alone takes longer than the whole small guest


class Boot:
    name = "boot"
    version = 4
    metrics: tuple[Metric, ...] = (
        Metric("api_ms", "ms", "lower", 0.25, "Request to the answer of the API", no_limit=API),
        Metric("process_ms", "ms", "lower", 0.25, "Request to the VMM's process", judged=False, no_limit=STAGE),
        Metric("vcpu_ms", "ms", "lower", 0.25, "Request to first virtual CPU", judged=False, no_limit=STAGE),
        Metric("vmm_ms", "ms", "lower", 0.25, "Request to guest running", judged=False, no_limit=STAGE),
        Metric("kernel_ms", "ms", "lower", 0.25, "Request to kernel", judged=False, no_limit=STAGE),
        Metric("init_ms", "ms", "lower", 0.1, "Request to first process", judged=False, no_limit=STAGE),
        Metric("userspace_ms", "ms", "lower", 0.1, "Request to user space ready", judged=False, no_limit=STAGE),
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first answer"),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first answer", no_limit=CPU),
        Metric(
            "daemon_cpu_s", "s", "lower", 0.25, "CPU time of libvirtd to the first answer", judged=False, no_limit=CPU
        ),
        Metric(
            "read_mib", "MiB", "lower", 0.1, "Read from the host's disk by a cold boot", judged=False, no_limit=PROVEN
        ),
    )
    parameters: tuple[Parameter, ...] = (
        *HARDWARE,
        Choice("cache", "warm", ("warm", "cold"), "whether the image is in the host's page cache"),
        Choice(
            "guest", "small", ("small", "debian"), "what is booted: the farm's small guest, or a Debian with systemd"
        ),
        Choice(
            "firmware", "none", ("none", "seabios", "ovmf"), "what boots it from its disk; none: the kernel is given"
        ),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host, system = bench.hosts[0], _system(params)
        # a stack's own small guest is what its series show; another system is a series of its own
        known = {"digest": host.system_digest(system)[:16]} if system.name != "small" else {}
        with sheet.cell(hosts={"host": host.name}, **known) as cell:
            self._measure(bench, cell, host, system, params)

    def _measure(self, bench: Bench, cell: Cell, host: Host, system: System, params: Values) -> None:
        nonce, cold = bench.nonce(), word(params, "cache") == "cold"
        timeout_s = TIMEOUT_S[system.name] + (FIRMWARE_TIMEOUT_S if system.firmware != "none" else 0)
        with host.guest(nonce=nonce, hardware=hardware_of(params), system=system) as guest:
            if cold:
                guest.make_cold()
            daemon_s = seen(cell, "daemon_cpu_s", host.daemon_cpu_s)
            guest.start(ledger=True)
            answer = guest.first_answer(timeout_s=timeout_s)
            cpu_s = seen(cell, "qemu_cpu_s", guest.vmm_cpu_s)
            if cpu_s is not None:
                cell.record("qemu_cpu_s", cpu_s)
            if daemon_s is not None:
                cell.record("daemon_cpu_s", host.daemon_cpu_s() - daemon_s)
            record_stages(cell, guest.stages())
            if cold:
                cell.record("read_mib", guest.prove_cold())

        cell.prove(answer.nonce == nonce, f"the guest answered '{answer.nonce}', not its nonce '{nonce}'")
        cell.evidence(f"guest {guest.name} answered with its nonce {nonce}")


def _system(params: Values) -> System:
    firmware = word(params, "firmware")
    return System(
        "debian" if word(params, "guest") == "debian" else "small",
        "seabios" if firmware == "seabios" else "ovmf" if firmware == "ovmf" else "none",
    )


SCENARIO: Scenario = Boot()
