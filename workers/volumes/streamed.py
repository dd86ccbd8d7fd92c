"""A disk over a base image that another host serves, and that is pulled here while the guest runs."""

import json
import os
import tempfile
import time
from pathlib import Path

from scenarios.contract import WorkNotProven
from workers.operations import operation
from workers.volumes import blank
from workers.volumes.base import BLOCK_BYTES, hand_over, test_word
from workers.volumes.overlay import make_image, tool

FORMAT = "qcow2"
_TIMED_PASS = 3  # as in guest/init.c


@operation
def create(base: str, target: str, uid: int, cluster_size_kib: int) -> float:
    """Make the disk `target` over the image at the URL `base`; returns the seconds that took."""
    started = time.monotonic()
    make_image(base, "raw", target, cluster_size_kib, extended_l2=False)
    took_s = time.monotonic() - started
    hand_over(Path(target), uid)
    return took_s


@operation
def prove_sharing(base: str, path: str) -> str:
    """Evidence that all of it is here, as this host's own `base` has it, but for the guest's journal."""
    image = json.loads(tool("qemu-img", "info", "--output=json", "-f", FORMAT, path))
    if elsewhere := image.get("backing-filename"):
        raise WorkNotProven(f"it was not pulled: the disk still lies over {elsewhere}")
    with tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix="pulled-") as raw:
        tool("qemu-img", "convert", "-f", FORMAT, "-O", "raw", path, raw.name)
        return blank.prove_sharing(base, raw.name)


@operation
def prove_written(path: str, nonce: str, blocks: int, offset: int) -> str:
    """Evidence that the blocks at the disk's end hold what the guest that timed its disk wrote there."""
    with tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix="written-") as raw:
        tool("qemu-img", "convert", "-f", FORMAT, "-O", "raw", path, raw.name)
        with open(raw.name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for block in range(blocks):
                wanted = test_word(nonce, _TIMED_PASS, block).to_bytes(8, "little") * (BLOCK_BYTES // 8)
                if os.pread(file.fileno(), BLOCK_BYTES, size - (block + 1) * BLOCK_BYTES) != wanted:
                    raise WorkNotProven(f"block {block} of {blocks} at the disk's end is not what the guest wrote")
    return f"{blocks} timed blocks read back from outside as the guest wrote them"
