"""Boot of the same domain XML, started by the farm and by virsh, in interleaved pairs on one host.

`python -m bench.boot [PAIRS]`. Both are timed from the request to the guest's first answer at the same observer; QEMU's
CPU seconds by then are read in the same way. So the ratio is what the farm itself adds to the figure it publishes.
"""

import contextlib
import random
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from bench.pairs import Row, ratio_of
from farm.settings import load_settings
from scenarios.contract import Guest
from scenarios.crossing import PlannedCluster, PlannedHost
from scenarios.recipe import DiskSettings, GuestSettings
from workers.hosts.namespaces import LocalCluster
from workers.hypervisors.qemu import QemuCluster
from workers.hypervisors.qemu_guest import QemuGuest
from workers.hypervisors.qemu_host import QemuHost
from workers.marks import SessionMark
from workers.sweep import sweep

PAIRS = 30
WARM_UP = 2
WALL_WITHIN, CPU_WITHIN = 0.05, 0.02
_ANSWER_TIMEOUT_S = 60.0
_VIRSH_TIMEOUT_S = 30.0

Boot = tuple[float, float]  # seconds from request to first answer, CPU seconds of QEMU by then


def run(home: Path, pairs: int = PAIRS) -> list[Row]:
    """Bring a cluster up, boot, and take it down again."""
    hosts = (PlannedHost("h1", "local:debian12", "here"),)
    local = LocalCluster(home, PlannedCluster("bench-boot", "qemu", hosts, storage_disks=1, storage_disk_mib=512))
    try:
        found = _measure(local, home, pairs)
    finally:
        local.down()
    wall = ratio_of([(ours[0], theirs[0]) for ours, theirs in found])
    cpu = ratio_of([(ours[1], theirs[1]) for ours, theirs in found])
    return [
        Row("boot to first answer, farm ÷ virsh", str(wall), "interval within ±5 %", wall.reach <= WALL_WITHIN),
        Row("QEMU's CPU seconds, farm ÷ virsh", str(cpu), "1 within ±2 %", abs(cpu.middle - 1) <= CPU_WITHIN),
    ]


def _measure(local: LocalCluster, home: Path, pairs: int) -> list[tuple[Boot, Boot]]:
    cluster = local.up()
    order = random.Random()
    found = []
    with contextlib.ExitStack() as stack:
        mark = stack.enter_context(SessionMark(cluster.folder, f"bench-{secrets.token_hex(6)}"))
        stack.callback(sweep, cluster, own=mark.session)
        qemu = stack.enter_context(QemuCluster(cluster, home, mark.session))
        (host,) = qemu.hosts(GuestSettings(), DiskSettings())
        for number in range(WARM_UP + pairs):
            boots = {way: way(host) for way in order.sample((_by_farm, _by_virsh), 2)}
            if number >= WARM_UP:
                found.append((boots[_by_farm], boots[_by_virsh]))
    return found


def _by_farm(host: QemuHost) -> Boot:
    with host.guest(nonce=secrets.token_hex(8)) as guest:
        return _until_answer(guest, guest.start())


def _by_virsh(host: QemuHost) -> Boot:
    with host.guest(nonce=secrets.token_hex(8)) as guest, tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(cast(QemuGuest, guest).xml())
        file.flush()
        requested_s = host.cluster.now_s()
        command = ["virsh", "--quiet", "--connect", host.link.host.uri, "create", file.name]
        subprocess.run(command, check=True, capture_output=True, timeout=_VIRSH_TIMEOUT_S)
        return _until_answer(guest, requested_s)


def _until_answer(guest: Guest, requested_s: float) -> Boot:
    answer = guest.first_answer(timeout_s=_ANSWER_TIMEOUT_S)
    return answer.at_s - requested_s, guest.vmm_cpu_s()


def main(arguments: Sequence[str]) -> int:
    rows = run(load_settings().home, int(arguments[0]) if arguments else PAIRS)
    print(*rows, sep="\n")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
