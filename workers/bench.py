"""One deployed revision on a cluster, ready to be measured (scenarios.contract.Bench)."""

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence

from scenarios.contract import Guest, Host, ObjectStore, Suite

_NONCE_BYTES = 8


class SessionBench:
    """A context manager: guests that scenarios keep for verifying are removed on leaving, or by `release`."""

    def __init__(
        self,
        hosts: Sequence[Host],
        store: ObjectStore | None,
        now_s: Callable[[], float],
        suite: Suite | None = None,
    ) -> None:
        self.hosts = hosts
        self.store = store
        self.suite = suite
        self._now_s = now_s
        self._kept = contextlib.ExitStack()
        self.keeps_guests = False

    def __enter__(self) -> "SessionBench":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def nonce(self) -> str:
        return secrets.token_hex(_NONCE_BYTES)

    def now_s(self) -> float:
        return self._now_s()

    def pause_s(self, seconds: float) -> None:
        time.sleep(seconds)

    def keep(self, resource: contextlib.AbstractContextManager[Guest]) -> Guest:
        self.keeps_guests = True
        return self._kept.enter_context(resource)

    def release(self) -> None:
        """Leave all kept guests: what they were kept for has been verified."""
        self._kept.close()
        self.keeps_guests = False
