"""An operator's guest image that knows nothing of the farm: busybox, DHCP and a port that takes connections."""

import hashlib
import shutil
import stat
import subprocess
from pathlib import Path

from scenarios.crossing import PlannedGuest
from tests.helpers.local_clusters import FARM_HOME
from workers.disk_image import grub_cfg, write_disk
from workers.guest_image import Entry, build_guest_image, kernel_of, write_initrd

PORT = 2222
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/network); do insmod $module; done
ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -T 1 -s /lease && httpd -f -p {PORT}
"""
_LEASE = """#!/bin/busybox sh
[ "$1" = bound ] && ip addr add $ip/$mask dev eth0
exit 0
"""


def operator_image(folder: Path) -> PlannedGuest:
    """Make one in `folder`, as an inventory file would name it."""
    root, disk, image = folder / "root", folder / "disk.raw", folder / "image.qcow2"
    (root / "boot" / "grub").mkdir(parents=True)
    (root / "boot" / "grub" / "grub.cfg").write_text(grub_cfg("console=ttyS0 quiet panic=-1"))
    shutil.copyfile(kernel_of(FARM_HOME), root / "boot" / "vmlinuz")
    more = folder / "more"
    write_initrd(more, iter(_entries()))
    modules = build_guest_image(FARM_HOME).initrd.read_bytes()
    (root / "boot" / "initrd").write_bytes(modules + bytes(-len(modules) % 4) + more.read_bytes())
    write_disk(disk, root, root_mib=64)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image], check=True)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    return PlannedGuest(str(image), digest, "qcow2", "seabios", PORT, memory_mib=192)


def _entries() -> list[Entry]:
    program = stat.S_IFREG | 0o755
    folders = [Entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "etc", "tmp")]
    busybox = Entry("bin/busybox", program, Path("/bin/busybox").read_bytes())
    return [*folders, busybox, Entry("init", program, _INIT.encode()), Entry("lease", program, _LEASE.encode())]
