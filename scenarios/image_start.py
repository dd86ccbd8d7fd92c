"""How soon does a guest boot from a copy of its image, and how much of the image does it read by then?

Firmware, GRUB, kernel and initramfs come from the disk that the guest is given: a qcow2 `overlay` of its system's
image, a `reflink`, a full `copy`; or a `remote` one, an overlay of the image that another host serves over a link
that is capped, so that the guest boots while its image still is elsewhere.

Measured: making the disk (`create_ms`, by the host's own clock), request to first answer (`answer_ms`), QEMU's CPU
time and libvirtd's by then (`qemu_cpu_s`, `daemon_cpu_s`), and what was read from the disk by then (`read_mib`); for
`remote` also what the other host read of the image for it (`served_mib`), and the CPU time of its server
(`server_cpu_s`).

Not measured: bringing the rest of the image, which is `image_streaming`; fetching it first, which is `image_fetch`.

The proof: the answer repeats a nonce made for this boot; no less was read than the kernel and initramfs that every
boot reads, and for `remote` no less served; blocks are shared with the image (for a copy: none is), and its digest
is what it was.
"""

import contextlib
import random

from scenarios.contract import Bench, Cell, Disk, Host, Metric, Scenario, ServedBase, Sheet, System, Unsupported
from scenarios.parameters import Choice, Number, Parameter, Several, Values, number, word, words
from scenarios.unlimited import CPU, PROVEN

METHODS = ("overlay", "reflink", "copy", "remote")
TIMEOUT_S = {"small": 180.0, "debian": 420.0}


class ImageStart:
    name = "image_start"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("create_ms", "ms", "lower", 0.5, "Making the disk", judged=False),
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first answer"),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first answer", no_limit=CPU),
        Metric(
            "daemon_cpu_s", "s", "lower", 0.25, "CPU time of libvirtd to the first answer", judged=False, no_limit=CPU
        ),
        Metric(
            "read_mib", "MiB", "lower", 0.1, "Read from the disk to the first answer", judged=False, no_limit=PROVEN
        ),
        Metric(
            "served_mib",
            "MiB",
            "lower",
            0.1,
            "Read of the image on the other host by then",
            judged=False,
            no_limit=PROVEN,
        ),
        Metric("server_cpu_s", "s", "lower", 0.25, "CPU time of the image's server", judged=False, no_limit=CPU),
    )
    parameters: tuple[Parameter, ...] = (
        Several("methods", METHODS, METHODS, "how the disk is made"),
        Choice("guest", "small", ("small", "debian"), "what is booted"),
        Choice("firmware", "seabios", ("seabios", "ovmf"), "what boots it"),
        Number("bandwidth_mib_s", 32, 0, 100_000, "MiB/s", "a cap for the link of a remote image's host; 0 is none"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host, system = bench.hosts[0], _system(params)
        methods = list(words(params, "methods"))
        random.Random(bench.nonce()).shuffle(methods)
        known = {"digest": host.system_digest(system)[:16]} if system.name != "small" else {}
        for method in methods:
            roles = zip(("host", "server"), bench.hosts[: 2 if method == "remote" else 1], strict=False)
            with sheet.cell(hosts={role: host.name for role, host in roles}, method=method, **known) as cell:
                self._measure(bench, cell, method, system, number(params, "bandwidth_mib_s"))

    def _measure(self, bench: Bench, cell: Cell, method: str, system: System, bandwidth_mib_s: int) -> None:
        with contextlib.ExitStack() as made:
            disk = self._boot(bench, cell, made, method, system, bandwidth_mib_s)
            kept = made.pop_all()

        def verify() -> None:
            with kept:
                cell.evidence(disk.prove_sharing())
                cell.evidence(disk.prove_base_unchanged())

        cell.verify_later(verify, deployed=False)

    def _boot(
        self,
        bench: Bench,
        cell: Cell,
        made: contextlib.ExitStack,
        method: str,
        system: System,
        bandwidth_mib_s: int,
    ) -> Disk:
        """Boot a guest from a disk, which goes when `made` is left."""
        nonce, host, timeout_s = bench.nonce(), bench.hosts[0], TIMEOUT_S[system.name]
        with contextlib.ExitStack() as within:
            served = _serve(within, bench, system, bandwidth_mib_s, 2 * timeout_s) if method == "remote" else None
            disk, create_s = _make_disk(host, method, system, served)
            made.callback(disk.remove)
            guest = within.enter_context(host.guest(nonce=nonce, disk=disk, system=system))
            daemon_s = host.daemon_cpu_s()
            requested_s = guest.start()
            answer = guest.first_answer(timeout_s=timeout_s)
            cell.record("qemu_cpu_s", guest.vmm_cpu_s())
            cell.record("daemon_cpu_s", host.daemon_cpu_s() - daemon_s)
            read_mib = guest.disk_read_bytes() / (1 << 20)
            served_mib = served.served_mib() if served else None
            if served:
                cell.record("server_cpu_s", served.server_cpu_s())
            guest.stop()

        if create_s is not None:
            cell.record("create_ms", create_s * 1e3)
        cell.record("answer_ms", (answer.at_s - requested_s) * 1e3)
        cell.record("read_mib", read_mib)
        cell.prove(answer.nonce == nonce, f"the guest answered '{answer.nonce}', not its nonce '{nonce}'")
        least_mib = host.least_read_mib(system)
        cell.prove(read_mib >= least_mib, f"{read_mib:.1f} MiB read, every boot reads {least_mib:.1f}")
        if served_mib is not None:
            cell.record("served_mib", served_mib)
            cell.prove(served_mib >= least_mib, f"{served_mib:.1f} MiB served, every boot reads {least_mib:.1f}")
        return disk


def _serve(
    within: contextlib.ExitStack, bench: Bench, system: System, bandwidth_mib_s: int, limit_s: float
) -> ServedBase:
    if len(bench.hosts) < 2:
        raise Unsupported(f"a remote image is on another host, the cluster has {len(bench.hosts)}")
    served = within.enter_context(bench.hosts[1].serve_base(system))
    if bandwidth_mib_s:
        within.enter_context(bench.hosts[1].link_capped(bandwidth_mib_s, limit_s=limit_s))
    return served


def _make_disk(host: Host, method: str, system: System, served: ServedBase | None) -> tuple[Disk, float | None]:
    if served is not None:
        return host.make_streamed_disk(served, pulled=False)
    return host.make_disk(method, system=system)


def _system(params: Values) -> System:
    name, firmware = word(params, "guest"), word(params, "firmware")
    return System("debian" if name == "debian" else "small", "ovmf" if firmware == "ovmf" else "seabios")


SCENARIO: Scenario = ImageStart()
