"""A disk that somebody else deletes with its guest, kept under a name of ours: an operation of a host's agent."""

import contextlib
import os

from workers.operations import operation


@operation
def keep(disk: str, kept: str) -> None:
    """A second name for the file; harmless when it is gone already, or has that name."""
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        os.link(disk, kept)
