"""Fencing: a worker that holds an old lease must not touch a host that has been promised to somebody else.

The cluster's folder remembers the highest token seen for each resource. A lease with a lower one is over,
whatever its holder believes.
"""

import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scenarios.crossing import Lease
from workers.turns import take_turn

_TURN_TIMEOUT_S = 10.0  # a look at a small file


class LeaseLost(Exception):
    """The promise this session runs under has ended or has been given to another holder."""


class Fence:
    """The tokens seen on one cluster."""

    def __init__(self, cluster_folder: Path) -> None:
        self._path = cluster_folder / "fence.json"

    def enter(self, lease: Lease, now: datetime.datetime) -> None:
        """Record the lease's token; raises LeaseLost for one that is over or older than what was seen."""
        if datetime.datetime.fromisoformat(lease.expires) <= now:
            raise LeaseLost(f"the lease of {lease.holder} ended at {lease.expires}")
        with self._seen() as seen:
            self._compare(lease, seen)
            seen.update(dict.fromkeys(lease.resources, lease.token))

    def check(self, lease: Lease) -> None:
        """Raises LeaseLost when a newer token has been seen since `enter`."""
        with self._seen() as seen:
            self._compare(lease, seen)

    def _compare(self, lease: Lease, seen: dict[str, int]) -> None:
        for resource in lease.resources:
            if seen.get(resource, 0) > lease.token:
                raise LeaseLost(
                    f"{resource} has been promised to another holder (token {seen[resource]} > {lease.token})"
                )

    @contextmanager
    def _seen(self) -> Iterator[dict[str, int]]:
        """Resource → highest token; what the caller changes is kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+") as file:
            take_turn(file, timeout_s=_TURN_TIMEOUT_S, busy=str(self._path))
            file.seek(0)
            seen = _tokens(file.read())
            before = dict(seen)
            yield seen
            if seen != before:
                file.truncate(0)
                file.write(json.dumps(seen))


def _tokens(text: str) -> dict[str, int]:
    """What the file says; one that was cut short by a crash says nothing, and tokens start to be seen anew."""
    try:
        return {str(resource): int(token) for resource, token in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        return {}
