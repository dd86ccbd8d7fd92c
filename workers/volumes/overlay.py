"""A disk as a qcow2 overlay: an image that holds what differs from the base, cluster by cluster.

Layers may lie between it and the base, overlays of each other; each holds one cluster, so that all of them have
to be asked for every cluster that the disk does not have.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from scenarios.contract import Failed, Unsupported, WorkNotProven
from workers.operations import operation
from workers.volumes.base import STRIDE_BYTES, blamed, check_written, hand_over

FORMAT = "qcow2"
_TOOL_TIMEOUT_S = 60


@operation
def create(
    base: str,
    base_format: str,
    target: str,
    uid: int,
    cluster_size_kib: int,
    extended_l2: bool,
    preallocation: str,
) -> float:
    """Make the disk `target`; returns the seconds qemu-img took, its start included. Raises Unsupported."""
    started = time.monotonic()
    make_image(base, base_format, target, cluster_size_kib, extended_l2, preallocation)
    took_s = time.monotonic() - started
    hand_over(Path(target), uid)
    return took_s


@operation
def make_layers(base: str, target: str, count: int, cluster_size_kib: int, extended_l2: bool) -> str:
    """Make `count` layers on the base for the disk `target`; returns the uppermost one's path."""
    behind = os.stat(base).st_size // 4 * 3  # no write test comes here
    for number in range(1, count + 1):
        layer = f"{target}.layer{number}"
        make_image(base, "raw" if number == 1 else FORMAT, layer, cluster_size_kib, extended_l2)
        tool("qemu-io", "-f", "qcow2", "-c", f"write -P {number} {behind} 4k", layer)
        Path(layer).chmod(0o444)
        base = layer
    return base


@operation
def prove_sharing(base: str, path: str, layers: int, preallocation: str) -> str:
    """Evidence that it refers to the base, through its layers, and holds little itself; raises WorkNotProven."""
    chain = json.loads(tool("qemu-img", "info", "--output=json", "--backing-chain", path))
    formats, last = [image["format"] for image in chain], chain[-1]["filename"]
    if formats != ["qcow2"] * (layers + 1) + ["raw"] or last != base:
        raise WorkNotProven(f"no overlay of the base with {layers} layers: {', '.join(formats)}, the last is {last}")
    extents = json.loads(tool("qemu-img", "map", "--output=json", "-f", "qcow2", path))
    size, allocated = os.stat(base).st_size, os.stat(path).st_blocks * 512
    held = [0] * (layers + 2)
    for extent in extents:
        held[extent["depth"]] += extent["length"] if extent["data"] else 0
    own, inherited = held[0], held[-1]
    reserved = preallocation in ("falloc", "full")
    if own > size // 2 or inherited < size // 2 or (allocated >= size) != reserved:
        raise WorkNotProven(
            f"no overlay of the base: {own >> 20} MiB of its own, {allocated >> 20} MiB allocated,"
            f" {inherited >> 20} MiB from the base"
        )
    through = f" through {layers} layers" if layers else ""
    return (
        f"overlay: {own >> 10} KiB of its own, {allocated >> 10} KiB allocated,"
        f" {inherited >> 20} of {size >> 20} MiB from the base{through}"
    )


@operation
def prove_written(path: str, nonce: str, blocks: int, offset: int) -> str:
    """Evidence that the image holds what the write test of the guest with this nonce wrote last."""
    with tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix="written-") as raw:
        block_size = f"bs={STRIDE_BYTES}"
        count = f"count={blocks + 1}"  # the last one may reach into the next stride
        tool("qemu-img", "dd", "-f", "qcow2", "-O", "raw", block_size, count, f"if={path}", f"of={raw.name}")
        with open(raw.name, "rb") as file:  # qemu-img has put another file in its place or written the same
            return check_written(file.fileno(), nonce, blocks, offset)


def make_image(
    base: str, base_format: str, target: str, cluster_size_kib: int, extended_l2: bool, preallocation: str = "off"
) -> None:
    options = [f"cluster_size={cluster_size_kib}k"]
    options += ["extended_l2=on"] if extended_l2 else []
    options += [f"preallocation={preallocation}"] if preallocation != "off" else []
    try:
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", ",".join(options), "-b", base, "-F", base_format, target)
    except Failed as error:
        if len(options) == 1:
            raise
        raise Unsupported(str(error)) from None


def tool(*command: str) -> str:
    what = " ".join(command[:2])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Failed("donor", f"{what} did not end within {_TOOL_TIMEOUT_S} s") from None
    if done.returncode:
        raise blamed(Failed("hypervisor", f"{what} refused: {done.stderr.strip()[-300:]}"))
    return done.stdout
