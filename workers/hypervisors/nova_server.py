"""A server of Nova's: what is asked of it, and the waiting for it."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from scenarios.contract import Failed, Refused
from workers.stacks.openstack_client import Client

_POLL_S = 0.25  # a look costs Nova's API some 50 ms of a processor
_GIVEN_UP = ("error", "failed")


class Server:
    """One server, by its id; `failure` makes an error of what Nova did wrong with it."""

    def __init__(self, client: Client, number: str, failure: Callable[[str], Failed]) -> None:
        self.number = number
        self._client = client
        self._failure = failure

    def told(self) -> dict[str, Any]:
        """What Nova tells of it now."""
        return dict(self._client.compute("GET", f"/servers/{self.number}").body["server"])

    def wait_until_active(self, what: str, *, timeout_s: float) -> None:
        self._wait(what, timeout_s, lambda told: bool(told["status"] == "ACTIVE"))

    def ask_to_move(self, target: str) -> None:
        order = {"os-migrateLive": {"host": target, "block_migration": "auto"}}
        self._client.compute("POST", f"/servers/{self.number}/action", order)

    def abort_move(self) -> None:
        """Harmless when it has just ended."""
        path = f"/servers/{self.number}/migrations"
        with contextlib.suppress(Failed):
            for move in self._client.compute("GET", path).body["migrations"]:
                self._client.compute("DELETE", f"{path}/{move['id']}")

    def wait_until_moved(self, what: str, target: str, *, timeout_s: float) -> None:
        self._wait(what, timeout_s, lambda told: self._has_moved(what, told, target))

    def _has_moved(self, what: str, told: dict[str, Any], target: str) -> bool:
        if told.get("OS-EXT-STS:task_state") is not None:
            return False
        if told.get("OS-EXT-SRV-ATTR:host") == target:
            return True
        listed = self._client.compute("GET", f"/os-migrations?instance_uuid={self.number}").body["migrations"]
        status = listed[0]["status"] if listed else ""
        if status in _GIVEN_UP:
            raise self._failure(f"{what}: it gives up: {status}")
        if status == "cancelled":
            failed = self._failure(f"{what}: it was cancelled")
            raise Refused(failed.fault, str(failed))
        return False

    def _wait(self, what: str, timeout_s: float, is_so: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            told = self.told()
            if told["status"] == "ERROR":
                fault = str(told.get("fault", {}).get("message", "it does not say why"))
                raise self._failure(f"{what}: it sets the guest to ERROR: {fault[:300]}")
            if is_so(told):
                return
            if time.monotonic() > deadline:
                state = f"{told['status']}, {told.get('OS-EXT-STS:task_state')}"
                raise self._failure(f"{what}: not done within {timeout_s:g} s: it says {state}")
            time.sleep(_POLL_S)
