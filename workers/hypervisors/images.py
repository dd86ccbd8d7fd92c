"""What guests are made from and lies on a cluster's shared folder: operations of a host's agent."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from workers.operations import operation


@operation
def trim(folder: str, used: Sequence[str], most: int) -> None:
    """Remove folders, longest unused first, until at most `most` are left; never one of `used`."""
    images = sorted(Path(folder).iterdir(), key=lambda image: image.stat().st_mtime)
    for image in images:
        if image.name in used:
            os.utime(image)
    spare = [image for image in images if image.name not in used]
    for image in spare[: max(0, len(images) - most)]:
        shutil.rmtree(image)


@operation
def unpack(archive: str) -> None:
    """Make the files of an archive, beside it, unless they are there: all of them or none."""
    beside = Path(archive).parent
    if (beside / "usr").is_dir():
        return
    with tempfile.TemporaryDirectory(dir=beside) as part:
        with tarfile.open(archive) as packed:
            packed.extractall(part)  # which the session itself has made, of plain files
        Path(part, "usr").rename(beside / "usr")
