"""A file system on a file of the host's file system, for disks to lie on: operations of a host's agent.

It is made in a session's folder, and goes with that: the sweep unmounts what is mounted there, and removes it.
"""

import os
import subprocess
from pathlib import Path

from scenarios.contract import Failed, Unsupported
from workers import loops
from workers.operations import operation
from workers.volumes.base import blamed

_SIZE_MIB = 1024
_TOOL_TIMEOUT_S = 60
# all of it made at once: what the kernel would write later, in the background, is no guest's writing
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-N", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
}


@operation
def ensure(folder: str, kind: str, uid: int) -> None:
    """See that a file system of `kind` is mounted at `folder`, for the user `uid`. Raises Unsupported."""
    place = Path(folder)
    if place.is_mount():
        return
    place.mkdir(parents=True, exist_ok=True)
    image = place.with_name(f"{place.name}.img")
    with image.open("xb") as file:
        file.truncate(_SIZE_MIB << 20)
    _run(*_MAKE[kind], str(image))
    with loops.attached(image, direct=True) as device:
        _run("mount", "-t", kind, "-o", "noatime,nosuid,nodev,noexec", device, folder)
    os.chown(place, uid, uid)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise Unsupported(f"the host has no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise Failed("donor", f"{command[0]} did not end within {_TOOL_TIMEOUT_S} s") from None
    if done.returncode:
        raise blamed(Unsupported(f"{command[0]} refused: {' '.join(done.stderr.split())[-300:]}"))
