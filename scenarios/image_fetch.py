"""What does it cost that a host must first fetch a guest's image over the network?

A guest is asked for on a host that has its image, and on the same as if it had not: then the image is fetched first,
whole, onto the host's disk, and booted from there. The two follow each other in random order.

Measured: from asking for the guest to its first answer, fetching included (`answer_ms`); the fetching alone
(`fetch_ms`, `fetch_mib_s`) and the CPU time of both its ends (`fetch_cpu_s`); and the CPU time of QEMU and of libvirtd
by the answer (`qemu_cpu_s`, `daemon_cpu_s`).

Not measured: an image store under load, since one server serves one host; booting while the image still comes, which is
`image_streaming`.

The proof: each answer repeats its guest's nonce; the copy that was booted has the digest of what was served.
"""

import random

from scenarios.contract import Bench, Cell, Guest, Host, Metric, Scenario, Sheet, System
from scenarios.parameters import Choice, Parameter, Several, Values, word, words
from scenarios.unlimited import CPU

IMAGES = ("preinstalled", "fetched")
TIMEOUT_S = {"small": 180.0, "debian": 420.0}


class ImageFetch:
    name = "image_fetch"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("answer_ms", "ms", "lower", 0.1, "Asking for a guest to its first answer"),
        Metric("fetch_ms", "ms", "lower", 0.25, "Fetching the image", judged=False),
        Metric("fetch_mib_s", "MiB/s", "higher", 0.25, "Speed of the fetching", judged=False),
        Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU to the first answer", judged=False, no_limit=CPU),
        Metric(
            "daemon_cpu_s", "s", "lower", 0.25, "CPU time of libvirtd to the first answer", judged=False, no_limit=CPU
        ),
        Metric("fetch_cpu_s", "s", "lower", 0.25, "CPU time of both ends of the fetch", judged=False, no_limit=CPU),
    )
    parameters: tuple[Parameter, ...] = (
        Several("images", IMAGES, IMAGES, "whether the host has the image"),
        Choice("guest", "small", ("small", "debian"), "what is booted, by GRUB from its disk"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        system = System("debian" if word(params, "guest") == "debian" else "small", "seabios")
        images = list(words(params, "images"))
        random.Random(bench.nonce()).shuffle(images)
        known = {"digest": host.system_digest(system)[:16]} if system.name != "small" else {}
        for image in images:
            with sheet.cell(hosts={"host": host.name}, image=image, **known) as cell:
                nonce = bench.nonce()
                with host.guest(nonce=nonce, system=system) as guest:
                    self._measure(cell, host, guest, nonce, image == "fetched", TIMEOUT_S[system.name])

    def _measure(self, cell: Cell, host: Host, guest: Guest, nonce: str, is_fetched: bool, timeout_s: float) -> None:
        fetch = guest.fetch() if is_fetched else None
        daemon_s = host.daemon_cpu_s()
        requested_s = guest.start()
        answer = guest.first_answer(timeout_s=timeout_s)
        cell.record("qemu_cpu_s", guest.vmm_cpu_s())
        cell.record("daemon_cpu_s", host.daemon_cpu_s() - daemon_s)
        cell.record("answer_ms", (answer.at_s - requested_s + (fetch.took_s if fetch else 0.0)) * 1e3)
        if fetch:
            cell.record("fetch_ms", fetch.took_s * 1e3)
            cell.record("fetch_mib_s", fetch.mib / fetch.took_s)
            cell.record("fetch_cpu_s", fetch.cpu_s)
        cell.prove(answer.nonce == nonce, f"the guest answered '{answer.nonce}', not its nonce '{nonce}'")
        cell.evidence(guest.prove_fetched() if fetch else f"guest {guest.name} answered with its nonce {nonce}")


SCENARIO: Scenario = ImageFetch()
