"""When guests began to run, as QEMU says: its own events, with its own time stamps, delivered by libvirt."""

import threading
from typing import Any

import libvirt
import libvirt_qemu

_lock = threading.Lock()
_loop: list[threading.Thread] = []


def listen() -> None:
    """Let libvirt deliver events from now on; for connections that are opened afterwards."""
    with _lock:
        if not _loop:
            libvirt.virEventRegisterDefaultImpl()
            _loop.append(threading.Thread(target=_deliver, daemon=True, name="libvirt's events"))
            _loop[0].start()


def _deliver() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class FirstRuns:
    """When each guest of a connection first ran: QEMU's RESUME event, on the host's calendar clock."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._at_s: dict[str, float] = {}
        self._news = threading.Condition()
        self._connection = connection
        self._id = libvirt_qemu.qemuMonitorEventRegister(connection, None, "RESUME", self._note, None, 0)

    def of(self, guest: str, limit_s: float) -> float | None:
        """None when nothing was heard in time."""
        with self._news:
            self._news.wait_for(lambda: guest in self._at_s, limit_s)
            return self._at_s.get(guest)

    def stop(self) -> None:
        """Listen no more: what listens keeps the connection open."""
        libvirt_qemu.qemuMonitorEventDeregister(self._connection, self._id)

    def _note(self, _c: Any, domain: libvirt.virDomain, _event: str, seconds: int, micros: int, *_: Any) -> None:
        with self._news:
            self._at_s.setdefault(domain.name(), seconds + micros / 1e6)
            self._news.notify_all()
