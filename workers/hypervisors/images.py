"""Guest images that lie on a cluster's shared folder: an operation of a host's agent."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from workers.operations import operation


@operation
def trim(folder: str, used: Sequence[str], most: int) -> None:
    """Remove image folders, longest unused first, until at most `most` are left; never one of `used`."""
    images = sorted(Path(folder).iterdir(), key=lambda image: image.stat().st_mtime)
    for image in images:
        if image.name in used:
            os.utime(image)
    spare = [image for image in images if image.name not in used]
    for image in spare[: max(0, len(images) - most)]:
        shutil.rmtree(image)
