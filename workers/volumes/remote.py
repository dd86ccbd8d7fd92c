"""A disk over an image that another host serves, and that stays there: what shows that it does."""

import json
import os

from scenarios.contract import WorkNotProven
from workers.operations import operation
from workers.volumes.overlay import tool

FORMAT = "qcow2"


@operation
def prove_sharing(base: str, path: str) -> str:
    """Evidence that it lies over a served image as large as `base`, and holds little itself; raises WorkNotProven."""
    image = json.loads(tool("qemu-img", "info", "--output=json", "-f", FORMAT, path))
    served, size = image.get("backing-filename", "nothing"), os.stat(base).st_size
    allocated = os.stat(path).st_blocks * 512
    if not served.startswith("nbd://") or image["virtual-size"] != size or allocated > size // 2:
        raise WorkNotProven(f"no disk over a served image: it lies over {served}, {allocated >> 20} MiB are its own")
    return f"remote: over {served}, {allocated >> 10} KiB of its own"
