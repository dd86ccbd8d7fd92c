"""Figures of the farm against the same work done by hand, in a shell with the usual tools, in interleaved pairs.

`python -m bench.by_hand [PAIRS]`: making disks with qemu-img and dd; a live migration with virsh; a whole upload with
curl. Each is timed by bash's own `time` on the same host, so the ratio is what the farm adds or loses. A reflink is
made faster than any tool starts or tells.
"""

import contextlib
import random
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

from bench.pairs import Row, ratio_of
from bench.upload import example_build
from farm.settings import load_settings
from scenarios.crossing import PlannedCluster, PlannedHost
from scenarios.recipe import DiskSettings, GuestSettings
from workers.agent import AgentLink
from workers.hosts.namespaces import LocalCluster
from workers.hypervisors.domain import as_taken_over
from workers.hypervisors.qemu import QemuCluster
from workers.hypervisors.qemu_guest import QemuGuest
from workers.hypervisors.qemu_host import QemuHost
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.objectstores.swift import SwiftStore
from workers.stacks.swift import deploy
from workers.sweep import sweep

PAIRS = 8
SIZE_MIB = 64
_DISKS = {
    "overlay": "qemu-img create -q -f qcow2 -o cluster_size=64k -b {base} -F raw {target}",
    "copy": "dd if={base} of={target} bs=1M conv=fsync status=none",
}
_TIMED = "set -e; TIMEFORMAT=%3R; exec 3>&1; {{ time {work} >/dev/null 2>&3; }} 2>&1"
_TIMEOUT_S = 120.0

Pair = tuple[float, float]  # seconds as the farm tells them, seconds by hand


def run(home: Path, pairs: int = PAIRS) -> list[Row]:
    """Bring a cluster and an object store up, do everything both ways, and take them down again."""
    hosts = tuple(PlannedHost(name, "local:backports", "here") for name in ("h1", "h2"))
    local = LocalCluster(home, PlannedCluster("bench-by-hand", "qemu", hosts, storage_disks=4, storage_disk_mib=3072))
    try:
        with _session(local, home) as (qemu, mark):
            found = {
                **{f"disk by {method}, farm ÷ {_tool(method)}": _disks(qemu, method, pairs) for method in _DISKS},
                "live migration, farm ÷ virsh": _migrations(qemu, pairs),
                "single upload, farm ÷ curl": _uploads(qemu, mark, home, pairs),
            }
    finally:
        local.down()
    return [_row(what, its) for what, its in found.items()]


def _row(what: str, pairs: Sequence[Pair]) -> Row:
    """Whether the figures agree: 1 lies within the interval, or within a tenth of its middle."""
    ratio = ratio_of(pairs)
    agrees = ratio.low <= 1 <= ratio.high or abs(ratio.middle - 1) <= 0.1
    return Row(what, str(ratio), "1 in the interval, or within 10 %", agrees)


@contextlib.contextmanager
def _session(local: LocalCluster, home: Path) -> Iterator[tuple[QemuCluster, SessionMark]]:
    cluster = local.up()
    with contextlib.ExitStack() as stack:
        mark = stack.enter_context(SessionMark(cluster.folder, f"bench-{secrets.token_hex(6)}"))
        stack.callback(sweep, cluster, own=mark.session)
        yield stack.enter_context(QemuCluster(cluster, home, mark.session)), mark


def _interleaved(pairs: int, farm: Callable[[], float], hand: Callable[[], float]) -> list[Pair]:
    """The first pair warms up and does not count."""
    order, found = random.Random(), []
    for number in range(pairs + 1):
        took_s = {way: way() for way in order.sample((farm, hand), 2)}
        if number:
            found.append((took_s[farm], took_s[hand]))
    return found


def _tool(method: str) -> str:
    return _DISKS[method].split()[0]


def _disks(qemu: QemuCluster, method: str, pairs: int) -> list[Pair]:
    host = qemu.hosts(GuestSettings(), DiskSettings())[0]
    folder = qemu.work_dir(host.link.host)
    host.link.agent.run(["mkdir", "-p", str(folder)], timeout_s=_TIMEOUT_S)

    def by_farm() -> float:
        disk, took_s = host.make_disk(method)
        assert took_s is not None
        disk.remove()
        return took_s

    def by_hand() -> float:
        target = folder / "by-hand"
        work = _DISKS[method].format(base=host.link.base.path, target=target)
        took_s = _timed(host.link.agent, work)
        host.link.agent.run(["rm", str(target)], timeout_s=_TIMEOUT_S)
        return took_s

    return _interleaved(pairs, by_farm, by_hand)


def _timed(agent: AgentLink, work: str) -> float:
    """Seconds of a shell command on the host."""
    return float(agent.run(["bash", "-c", _TIMED.format(work=work)], timeout_s=_TIMEOUT_S))


def _migrations(qemu: QemuCluster, pairs: int) -> list[Pair]:
    source, target = qemu.hosts(GuestSettings(), DiskSettings())

    def by_farm() -> float:
        with _guest(source) as guest:
            report = guest.migrate(target, timeout_s=_TIMEOUT_S)
            return report.finished_s - report.started_s

    def by_hand() -> float:
        with _guest(source) as guest, tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            there = target.link.host
            virsh = f"virsh --quiet --connect '{source.link.host.uri}'"
            xml = _shell(f"{virsh} dumpxml --migratable {guest.name}")
            file.write(as_taken_over(xml, there.console_dir / f"{guest.name}.log", there.emulator, None))
            file.flush()
            move = f"{virsh} migrate --live --p2p --xml {file.name} {guest.name} '{there.migration_uri}'"
            return float(_shell(_TIMED.format(work=move)))

    return _interleaved(pairs, by_farm, by_hand)


@contextlib.contextmanager
def _guest(host: QemuHost) -> Iterator[QemuGuest]:
    with host.guest(nonce=secrets.token_hex(8)) as guest:
        guest.start()
        guest.first_answer(timeout_s=_TIMEOUT_S)
        yield cast(QemuGuest, guest)


def _shell(script: str) -> str:
    return subprocess.run(
        ["bash", "-c", script], check=True, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT_S
    ).stdout


def _uploads(qemu: QemuCluster, mark: SessionMark, home: Path, pairs: int) -> list[Pair]:
    payload = Payload(mark.folder / "payload", SIZE_MIB)
    build, run_dir, software = example_build(home), mark.folder / "deployment", home / "cache" / "software"
    with deploy(build, qemu.cluster, lease=mark.session, run_dir=run_dir, software=software) as deployment:
        store = SwiftStore(deployment, qemu.observer, payload)
        url = f"http://{deployment.address}:{deployment.port}"
        login = f"curl -sSi -H 'X-Auth-User: {deployment.user}' -H 'X-Auth-Key: {deployment.password}' {url}/auth/v1.0"
        answer = qemu.observer.run(["sh", "-c", login], timeout_s=_TIMEOUT_S)
        told = (line.partition(": ") for line in answer.splitlines())
        headers = {name.lower(): value.strip() for name, _, value in told}
        sent = mark.folder / "by-hand"
        _shell(f"head -c {SIZE_MIB}M {payload.path} > {sent}")
        names = iter(range(10_000))

        def by_farm() -> float:
            name = f"farm-{next(names)}"
            took_s = store.upload_single(name, size_mib=SIZE_MIB).total_s
            store.remove(name)
            return took_s

        def by_hand() -> float:
            object_url = f"{headers['x-storage-url']}/by-hand/{next(names)}"
            curl = f"curl -fsS -H 'X-Auth-Token: {headers['x-auth-token']}'"
            qemu.observer.run(["sh", "-c", f"{curl} -X PUT {object_url.rpartition('/')[0]}"], timeout_s=_TIMEOUT_S)
            took_s = _timed(qemu.observer, f"{curl} -H 'Expect:' -T {sent} {object_url}")
            qemu.observer.run(["sh", "-c", f"{curl} -X DELETE {object_url}"], timeout_s=_TIMEOUT_S)
            return took_s

        return _interleaved(pairs, by_farm, by_hand)


def main(arguments: Sequence[str]) -> int:
    rows = run(load_settings().home, int(arguments[0]) if arguments else PAIRS)
    print(*rows, sep="\n")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
