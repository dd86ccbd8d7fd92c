"""How long does a guest take from the request to its first answer?

Measured: from the request to the hypervisor until it says the guest runs (`vmm_ms`), until the guest's first
process speaks on the console (`init_ms`, as its host sees it) and until its first answer reaches an observer
elsewhere on the network (`answer_ms`); and the CPU time that QEMU has used by then (`qemu_cpu_s`), which
hardly depends on what else the host does. Kernel and initramfs are in the host's page cache.

Not measured: firmware and boot loader, since the kernel is given directly; fetching images; logging in.

The proof: the answer repeats a nonce that was made for this boot and stands only on its kernel's command line;
the stages come in their order.
"""

from scenarios.contract import Bench, Metric, Scenario, Sheet
from scenarios.parameters import Parameter, Values

TIMEOUT_S = 60.0


class Boot:
    name = "boot"
    version = 2
    metrics: tuple[Metric, ...] = (
        Metric("vmm_ms", "ms", "lower", 0.25, "Request to guest running", judged=False),
        Metric("init_ms", "ms", "lower", 0.1, "Request to first process", judged=False),
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first answer"),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first answer"),
    )
    parameters: tuple[Parameter, ...] = ()

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        with sheet.cell(hosts={"host": host.name}) as cell:
            nonce = bench.nonce()
            with host.guest(nonce=nonce) as guest:
                requested_s = guest.start()
                answer = guest.first_answer(timeout_s=TIMEOUT_S)
                cpu_s = guest.vmm_cpu_s()
                running_s = guest.running_since_s()
                init_s = guest.init_at_s(timeout_s=TIMEOUT_S)

            cell.record("vmm_ms", (running_s - requested_s) * 1e3)
            cell.record("init_ms", (init_s - requested_s) * 1e3)
            cell.record("answer_ms", (answer.at_s - requested_s) * 1e3)
            cell.record("qemu_cpu_s", cpu_s)

            cell.prove(answer.nonce == nonce, f"the guest answered '{answer.nonce}', not its nonce '{nonce}'")
            cell.prove(requested_s < init_s < answer.at_s, "the stages of the boot are not in their order")
            cell.evidence(f"guest {guest.name} answered with its nonce {nonce}")


SCENARIO: Scenario = Boot()
