"""A session that makes one of everything and then waits to be killed: `python -m … HOME CLUSTER_JSON SESSION`.

Prints "ready" when all of it is there.
"""

import subprocess
import sys
import time
from pathlib import Path

from scenarios.crossing import PlannedCluster
from scenarios.strict import parse_json
from tests.helpers.local_clusters import libvirt_of, start_bare_guest
from workers.marks import SessionMark
from workers.places import place_of


def main(home: str, planned: str, session: str) -> None:
    cluster = place_of(Path(home), parse_json(planned, PlannedCluster, source="plan")).up()
    first, second = cluster.hosts
    with SessionMark(cluster.folder, session) as mark, first.agent(session) as agent:
        start_bare_guest(first, f"{mark.guest_prefix}1")
        start_bare_guest(second, f"{mark.guest_prefix}2")
        with libvirt_of(second) as connection:
            connection.defineXML(
                f"<domain type='qemu'><name>{mark.guest_prefix}3</name><memory>1</memory><os><type>hvm</type></os></domain>"
            )
        folder = f"{first.work_dir}/sessions/{session}"
        agent.run(["mkdir", "-p", f"{folder}/mounted", f"{first.shared_dir}/sessions/{session}"], timeout_s=10)
        agent.run(["mount", "-t", "tmpfs", "tmpfs", f"{folder}/mounted"], timeout_s=10)
        agent.run(
            ["sh", "-c", "setsid sh -c 'trap : TERM; while :; do sleep 60; done' >/dev/null 2>&1 &"], timeout_s=10
        )
        make_here(mark, cluster.storage.disks[0])
        print("ready", flush=True)
        time.sleep(600)


def make_here(mark: SessionMark, disk: Path) -> None:
    """A mounted image, a loop device on a disk of the storage, and a process that heeds no TERM."""
    image, mount_point = mark.folder / "image", mark.folder / "mounted"
    mount_point.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mount_point)], check=True)
    subprocess.run(["losetup", "--find", str(disk)], check=True)
    subprocess.Popen(
        ["setsid", "sh", "-c", f"cd {mount_point}; trap : TERM; while :; do sleep 60; done"],
        env={**mark.environment, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
