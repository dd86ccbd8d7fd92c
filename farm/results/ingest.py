"""Takes a session's bundle into the database: all of it in one transaction, or none of it."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from farm.inventory import Cluster
from farm.settings import Settings


@dataclass(frozen=True)
class IngestResult:
    """What became of one uploaded file. `session` and `attempt` are None where it cannot be believed."""

    accepted: bool
    reason: str | None  # why it was rejected, one line
    session: str | None
    attempt: int | None


def ingest(
    engine: Engine, settings: Settings, inventory: Mapping[str, Cluster], file: Path, now: datetime.datetime
) -> IngestResult:
    """Admit the bundle in `file` (a .tar.gz as a worker sent it) and store it, or reject it whole."""
    raise NotImplementedError
