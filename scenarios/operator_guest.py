"""How long does the operator's own guest image take from the request to its answer over the network?

The image stands in the cluster's inventory file, with its digest and the port at which it answers; it gets its address
by DHCP, and nobody logs in. Each guest boots from a fresh overlay of it, by the firmware that the file names.

Measured: from the request to the hypervisor until each stage that can be seen from outside (the VMM's process is made,
the first virtual CPU runs, the hypervisor says so), until it was given its address (`lease_ms`) and until it took a
connection at its port (`answer_ms`); and the CPU time that QEMU and libvirtd have used by then.

Not measured: anything inside it; whether the service behind the port is any good.

The proof: the image has the digest that the inventory states; nothing answered at the guest's address before it was
requested; it was given that address, by its own hardware address, before it answered.
"""

from scenarios.contract import Bench, Cell, Host, Metric, OperatorGuest, Scenario, Sheet, System, Unsupported
from scenarios.parameters import Parameter, Values
from scenarios.stages import record_stages
from scenarios.unlimited import CPU, STAGE

TIMEOUT_S = 600.0


class OperatorGuestBoot:
    name = "operator_guest"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("process_ms", "ms", "lower", 0.25, "Request to the VMM's process", judged=False, no_limit=STAGE),
        Metric("vcpu_ms", "ms", "lower", 0.25, "Request to first virtual CPU", judged=False, no_limit=STAGE),
        Metric("vmm_ms", "ms", "lower", 0.25, "Request to guest running", judged=False, no_limit=STAGE),
        Metric("lease_ms", "ms", "lower", 0.1, "Request to its address", judged=False, no_limit=STAGE),
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first connection"),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first connection", no_limit=CPU),
        Metric(
            "daemon_cpu_s",
            "s",
            "lower",
            0.25,
            "CPU time of libvirtd to the first connection",
            judged=False,
            no_limit=CPU,
        ),
    )
    parameters: tuple[Parameter, ...] = ()

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        if host.operator_guest is None:
            raise Unsupported("the cluster's inventory file names no guest of the operator's")
        system = System("operator", host.operator_guest.firmware)
        digest = host.system_digest(system)[:16]
        with sheet.cell(hosts={"host": host.name}, digest=digest) as cell:
            self._measure(bench, cell, host, system, host.operator_guest)

    def _measure(self, bench: Bench, cell: Cell, host: Host, system: System, operator: OperatorGuest) -> None:
        with host.guest(nonce=bench.nonce(), system=system) as guest:
            cell.prove(guest.is_silent(operator.tcp_port), "something answered at its address before it was requested")
            daemon_s = host.daemon_cpu_s()
            requested_s = guest.start(ledger=True)
            leased_s = guest.leased_s(timeout_s=TIMEOUT_S)
            answered_s = guest.first_connection(operator.tcp_port, timeout_s=TIMEOUT_S)
            cell.record("qemu_cpu_s", guest.vmm_cpu_s())
            cell.record("daemon_cpu_s", host.daemon_cpu_s() - daemon_s)
            cell.record("lease_ms", (leased_s - requested_s) * 1e3)
            record_stages(cell, guest.stages())

        cell.prove(requested_s < leased_s < answered_s, "the guest answered before it had its address")
        cell.evidence(f"guest {guest.name} of the operator's image took a connection at port {operator.tcp_port}")


SCENARIO: Scenario = OperatorGuestBoot()
