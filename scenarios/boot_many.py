"""How long do several guests take that are asked for at once, on one host or spread over several?

Measured: from its request to each guest's first answer, as the median of all (`median_answer_ms`); from the first
request until all have answered (`last_answer_ms`); and the CPU time of QEMU by then, per guest (`qemu_cpu_s`), and of
the daemons that manage guests, for all (`daemon_cpu_s`). Images are in the hosts' page caches. What boots is the small
guest, or a Debian, each with a disk over the same image; the kernel is given directly.

Not measured: how guests share a host afterwards; where a scheduler would put them.

The proof: each guest answers with a nonce of its own; all were requested before the first of them answered, and all
are alive, each on its host, when the last has.
"""

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from scenarios.contract import Beat, Bench, Cell, Guest, Host, Metric, Scenario, Sheet, System, Unsupported
from scenarios.hardware import HARDWARE, hardware_of
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.unlimited import CPU, STAGE

TIMEOUT_S = {"small": 60.0, "debian": 300.0}
PER_GUEST = 6  # on hosts with less processors than guests they take turns: so much of it more for each


class BootMany:
    name = "boot_many"
    version = 3
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
        Number("hosts", 1, 1, 64, "hosts", "over how many they are spread, in turn"),
        Choice("guest", "small", ("small", "debian"), "what is booted"),
        *HARDWARE,
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        count, system = number(params, "hosts"), System("debian" if word(params, "guest") == "debian" else "small")
        if count > len(bench.hosts):
            raise Unsupported(f"guests are to be spread over {count} hosts, the cluster has {len(bench.hosts)}")
        hosts = bench.hosts[:count]
        roles = {f"host-{place}" if place > 1 else "host": host.name for place, host in enumerate(hosts, 1)}
        known = {"digest": hosts[0].system_digest(system)[:16]} if system.name != "small" else {}
        with sheet.cell(hosts=roles, **known) as cell, ExitStack() as all_guests:
            places = [(bench.nonce(), hosts[place % count]) for place in range(number(params, "guests"))]
            hardware = hardware_of(params)
            made = [host.guest(nonce=nonce, hardware=hardware, system=system) for nonce, host in places]
            guests = [all_guests.enter_context(guest) for guest in made]
            self._measure(cell, places, guests, TIMEOUT_S[system.name] * (1 + len(guests) / PER_GUEST))

    def _measure(
        self, cell: Cell, places: Sequence[tuple[str, Host]], guests: Sequence[Guest], timeout_s: float
    ) -> None:
        hosts = {host.name: host for _, host in places}.values()
        daemons_s = sum(host.daemon_cpu_s() for host in hosts)
        with ThreadPoolExecutor(len(guests)) as at_once:
            requested_s = list(at_once.map(lambda guest: guest.start(), guests))
            answers: list[Beat] = list(at_once.map(lambda guest: guest.first_answer(timeout_s=timeout_s), guests))
        answered_s = [answer.at_s for answer in answers]
        cell.record("qemu_cpu_s", sum(guest.vmm_cpu_s() for guest in guests) / len(guests))
        cell.record("daemon_cpu_s", sum(host.daemon_cpu_s() for host in hosts) - daemons_s)
        took_s = [at_s - since_s for at_s, since_s in zip(answered_s, requested_s, strict=True)]
        cell.record("median_answer_ms", statistics.median(took_s) * 1e3)
        cell.record("last_answer_ms", (max(answered_s) - min(requested_s)) * 1e3)

        for answer, (nonce, _) in zip(answers, places, strict=True):
            cell.prove(answer.nonce == nonce, f"a guest answered '{answer.nonce}', not its nonce '{nonce}'")
        cell.prove(
            max(requested_s) < min(answered_s), "a guest had answered before the last was requested: not at once"
        )
        for guest, (_, host) in zip(guests, places, strict=True):
            cell.prove(list(guest.found_on()) == [host.name], f"guest {guest.name} did not live until all had answered")
        cell.evidence(
            f"{len(guests)} guests at once on {', '.join(host.name for host in hosts)} answered as themselves"
        )


SCENARIO: Scenario = BootMany()
