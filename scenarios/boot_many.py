"""How long do several guests take that are asked for at once, on one host?

Measured: from its request to each guest's first answer, as the median of all (`median_answer_ms`); from the first
request until all have answered (`last_answer_ms`); and the CPU time of QEMU by then, per guest (`qemu_cpu_s`), and of
the daemon that manages guests, for all (`daemon_cpu_s`). Images are in the host's page cache.

Not measured: how guests share the host afterwards; more than one host.

The proof: each guest answers with a nonce of its own; all were requested before the first of them answered, and all
are alive when the last has.
"""

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from scenarios.contract import Beat, Bench, Cell, Guest, Host, Metric, Scenario, Sheet
from scenarios.hardware import HARDWARE, hardware_of
from scenarios.parameters import Number, Parameter, Values, number
from scenarios.unlimited import CPU, STAGE

TIMEOUT_S = 60.0
TIMEOUT_PER_GUEST_S = 10.0  # on hosts with less processors than guests they take turns


class BootMany:
    name = "boot_many"
    version = 1
    metrics: tuple[Metric, ...] = (
        Metric(
            "median_answer_ms",
            "ms",
            "lower",
            0.1,
            "Request to first answer, median of all guests",
            judged=False,
            no_limit=STAGE,
        ),
        Metric("last_answer_ms", "ms", "lower", 0.1, "First request until all guests have answered"),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU per guest", no_limit=CPU),
        Metric("daemon_cpu_s", "s", "lower", 0.25, "CPU time of libvirtd for all guests", judged=False, no_limit=CPU),
    )
    parameters: tuple[Parameter, ...] = (
        Number("guests", 4, 1, 64, "guests", "how many are asked for at once"),
        *HARDWARE,
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        with sheet.cell(hosts={"host": host.name}) as cell, ExitStack() as all_guests:
            hardware = hardware_of(params)
            nonces = [bench.nonce() for _ in range(number(params, "guests"))]
            guests = [all_guests.enter_context(host.guest(nonce=nonce, hardware=hardware)) for nonce in nonces]
            self._measure(cell, host, guests, nonces)

    def _measure(self, cell: Cell, host: Host, guests: Sequence[Guest], nonces: Sequence[str]) -> None:
        timeout_s = TIMEOUT_S + TIMEOUT_PER_GUEST_S * len(guests)
        daemon_s = host.daemon_cpu_s()
        with ThreadPoolExecutor(len(guests)) as at_once:
            requested_s = list(at_once.map(lambda guest: guest.start(), guests))
            answers: list[Beat] = list(at_once.map(lambda guest: guest.first_answer(timeout_s=timeout_s), guests))
        answered_s = [answer.at_s for answer in answers]
        cell.record("qemu_cpu_s", sum(guest.vmm_cpu_s() for guest in guests) / len(guests))
        cell.record("daemon_cpu_s", host.daemon_cpu_s() - daemon_s)
        took_s = [at_s - since_s for at_s, since_s in zip(answered_s, requested_s, strict=True)]
        cell.record("median_answer_ms", statistics.median(took_s) * 1e3)
        cell.record("last_answer_ms", (max(answered_s) - min(requested_s)) * 1e3)

        cell.prove([answer.nonce for answer in answers] == list(nonces), "a guest answered with another's nonce")
        cell.prove(
            max(requested_s) < min(answered_s), "a guest had answered before the last was requested: not at once"
        )
        for guest in guests:
            cell.prove(list(guest.found_on()) == [host.name], f"guest {guest.name} did not live until all had answered")
        cell.evidence(f"{len(guests)} guests at once answered, each with its nonce")


SCENARIO: Scenario = BootMany()
