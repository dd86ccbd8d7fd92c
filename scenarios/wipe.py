"""How fast is a tenant's volume wiped, and what of it can be read afterwards?

The volume is filled with markers of its tenant, one in each sector, amid noise that does not compress. Then it is
wiped in one of the ways in which clouds do it: `dd` writes zeros over it; `discard` and `write_zeroes` ask the
block device, `punch_hole` the file system to forget it; `sparse` cuts the file to nothing and makes it long again.

Measured: from the request until the wipe is on stable storage (`wipe_mib_s`, `wipe_ms`), the CPU time of the tool
that does it, without what the kernel does in threads of its own (`tool_cpu_s`), and how much of what the
tenant wrote still lies on the device underneath, where no tenant can read it but whoever gets hold of the device
can (`left_on_device_percent`). `dd` alone claims to erase, and is held to it.

Not measured: what a disk's own controller keeps out of sight; wiping whole disks; destroying the key of an encrypted
volume.

The proof: all of the volume read back past every page cache of the host shows no marker; nor does the next volume on
the same file system, on the same blocks as far as the file system gives them out again.
"""

import random

from scenarios.contract import Bench, Cell, Host, Metric, Scenario, Sheet
from scenarios.parameters import Number, Parameter, Several, Values, number, words
from scenarios.unlimited import CPU

METHODS = ("dd", "discard", "write_zeroes", "punch_hole", "sparse")
ERASING = ("dd",)


class Wipe:
    name = "wipe"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("wipe_mib_s", "MiB/s", "higher", 0.25, "Speed of the wipe"),
        Metric("wipe_ms", "ms", "lower", 0.25, "Request to wiped", judged=False),
        Metric("tool_cpu_s", "s", "lower", 0.25, "CPU time of the tool that wipes", judged=False, no_limit=CPU),
        Metric(
            "left_on_device_percent",
            "%",
            "lower",
            0.1,
            "Still on the device underneath",
            judged=False,
            no_limit="it is read from the device, and 0 is none",
        ),
    )
    parameters: tuple[Parameter, ...] = (
        Several("methods", METHODS, METHODS, "how it is wiped"),
        Number("volume_mib", 64, 1, 16_384, "MiB", "the volume's size"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        host = bench.hosts[0]
        methods = list(words(params, "methods"))
        random.Random(bench.nonce()).shuffle(methods)
        for method in methods:
            with sheet.cell(hosts={"host": host.name}, method=method) as cell:
                self._measure(bench, cell, host, method, number(params, "volume_mib"))

    def _measure(self, bench: Bench, cell: Cell, host: Host, method: str, volume_mib: int) -> None:
        volume = host.make_marked_volume(volume_mib, tenant=bench.nonce())
        try:
            took_s, cpu_s = volume.wipe(method)
            cell.record("wipe_mib_s", volume_mib / took_s)
            cell.record("wipe_ms", took_s * 1e3)
            cell.record("tool_cpu_s", cpu_s)
            cell.evidence(volume.prove_unreadable())
            left_percent = volume.left_percent()
            if left_percent is not None:
                cell.record("left_on_device_percent", left_percent)
                erased = left_percent == 0 or method not in ERASING
                cell.prove(erased, f"{method} claims to erase, but {left_percent:.1f} % is still on the device")
            cell.evidence(volume.prove_next_tenant())
        finally:
            volume.remove()


SCENARIO: Scenario = Wipe()
