"""What every session holds of its cluster, whatever its hosts are: the observer, who hears guests, and his clock."""

import contextlib
import time
from pathlib import Path
from typing import Any

from scenarios.recipe import GuestSettings
from workers.guest_image import build_guest_image
from workers.hosts.base import ClusterHosts

_CALL_TIMEOUT_S = 30.0


class Watch:
    """Times are the observer's monotonic clock."""

    def __init__(self, cluster: ClusterHosts, home: Path, session: str) -> None:
        self.cluster = cluster
        self.session = session
        self._home = home

    def begin(self, exits: contextlib.ExitStack) -> None:
        """Start the observer's agent, which `exits` ends, and hear guests."""
        self.observer = exits.enter_context(self.cluster.observer.agent(self.session))
        self._observer_ahead_s, _ = self.observer.clock_offset_s()
        self.port = int(self._observe("start", address=self.cluster.observer.address))

    def now_s(self) -> float:
        """The observer's monotonic clock."""
        return time.monotonic() + self._observer_ahead_s

    def observe(self, operation: str, *, timeout_s: float = _CALL_TIMEOUT_S, **arguments: Any) -> Any:
        """Ask the collector of heartbeats."""
        return self._observe(operation, timeout_s=timeout_s, port=self.port, **arguments)

    def guest_image_digest(self, guest: GuestSettings) -> str:
        return build_guest_image(self._home, guest.extra_modules).digest

    def _observe(self, operation: str, *, timeout_s: float = _CALL_TIMEOUT_S, **arguments: Any) -> Any:
        return self.observer.call(f"heartbeats.{operation}", timeout_s=timeout_s, **arguments)
