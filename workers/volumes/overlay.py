"""A disk as a qcow2 overlay: an image that holds what differs from the base, cluster by cluster."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from scenarios.contract import Failed, WorkNotProven
from workers.operations import operation
from workers.volumes.base import STRIDE_BYTES, check_written, hand_over

FORMAT = "qcow2"
_TOOL_TIMEOUT_S = 60


@operation
def create(base: str, target: str, uid: int, cluster_size_kib: int) -> float:
    """Make the disk `target`; returns the seconds qemu-img took, its start included."""
    options = f"cluster_size={cluster_size_kib}k"
    started = time.monotonic()
    _qemu_img("create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "raw", target)
    took_s = time.monotonic() - started
    hand_over(Path(target), uid)
    return took_s


@operation
def prove_sharing(base: str, path: str) -> str:
    """Evidence that it refers to the base and holds little itself; raises WorkNotProven."""
    info = _json("info", path)
    backing = info.get("full-backing-filename", info.get("backing-filename"))
    if info["format"] != "qcow2" or backing != base:
        raise WorkNotProven(f"no overlay of the base: format {info['format']}, backing file {backing}")
    size, allocated = os.stat(base).st_size, os.stat(path).st_blocks * 512
    inherited = sum(extent["length"] for extent in _json("map", path) if extent["depth"] > 0 and extent["data"])
    if allocated > size // 2 or inherited < size // 2:
        raise WorkNotProven(
            f"no overlay of the base: {allocated >> 20} MiB of its own, {inherited >> 20} MiB from the base"
        )
    return f"overlay: {allocated >> 10} KiB of its own, {inherited >> 20} of {size >> 20} MiB from the base"


@operation
def prove_written(path: str, nonce: str, blocks: int, offset: int) -> str:
    """Evidence that the image holds what the write test of the guest with this nonce wrote last."""
    with tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix="written-") as raw:
        block_size = f"bs={STRIDE_BYTES}"
        _qemu_img("dd", "-f", "qcow2", "-O", "raw", block_size, f"count={blocks}", f"if={path}", f"of={raw.name}")
        with open(raw.name, "rb") as file:  # qemu-img has put another file in its place or written the same
            return check_written(file.fileno(), nonce, blocks, offset)


def _json(command: str, path: str) -> Any:
    return json.loads(_qemu_img(command, "--output=json", "-f", "qcow2", path))


def _qemu_img(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed("donor", f"qemu-img {arguments[0]} did not end within {_TOOL_TIMEOUT_S} s") from None
    if done.returncode:
        raise Failed("hypervisor", f"qemu-img {arguments[0]} refused: {done.stderr.strip()[-300:]}")
    return done.stdout
