"""Receives the heartbeats of guests: operations of the observer's agent.

Guests send UDP datagrams of text (see `guest/init.c`). Each is stamped by the kernel as it arrives, so that a
busy observer does not make a guest look paused. Only guests that are expected are listened to.
"""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from scenarios.contract import Failed
from workers.operations import operation

_SO_TIMESTAMPNS = 35  # Linux, x86 and ARM; the socket module does not name it
_TIMESPEC = struct.Struct("ll")
_MARK = b"FARM1"
_DATAGRAM_BYTES = 512
_RECEIVE_BUFFER_BYTES = 4 << 20
_STOP_S = 2.0


@dataclass
class _Heard:
    """What one guest has said: `beats` are the fields of a contract.Beat in their order, but for the nonce."""

    beats: list[list[float]] = field(default_factory=list)
    write_times: tuple[float, float, int] | None = None


class _Collector:
    """One socket and the thread that reads it."""

    def __init__(self, address: str) -> None:
        self.news = threading.Condition()
        self._heard: dict[bytes, _Heard] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((address, 0))
        self._closed = False
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._receive, daemon=True, name="heartbeats")
        self._thread.start()

    def expect(self, nonce: str) -> None:
        with self.news:
            self._heard.setdefault(nonce.encode(), _Heard())

    def forget(self, nonce: str) -> None:
        with self.news:
            self._heard.pop(nonce.encode(), None)

    def heard(self, nonce: str) -> _Heard:
        """To be called and used with `news` held."""
        try:
            return self._heard[nonce.encode()]
        except KeyError:
            raise Failed("farm", f"heartbeats of guest {nonce} are not expected") from None

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):  # wakes the thread, though nothing was connected
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_STOP_S)
        self._socket.close()

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(_TIMESPEC.size)
        while True:
            try:
                datagram, ancillary, _, _ = self._socket.recvmsg(_DATAGRAM_BYTES, space)
            except OSError:
                datagram, ancillary = b"", []
            if self._closed:
                return
            self._note(datagram, _arrival_s(ancillary))

    def _note(self, datagram: bytes, at_s: float) -> None:
        words = datagram.split()
        if len(words) != 13 or words[0] != _MARK:
            return
        try:
            numbers = [int(word) for word in words[2:]]
        except ValueError:
            return
        first_us, second_us, blocks = numbers[5:8]
        with self.news:
            heard = self._heard.get(words[1])
            if heard is None:
                return
            heard.beats.append([at_s, *numbers[:5], *numbers[8:]])
            news = len(heard.beats) == 1
            if blocks and heard.write_times is None:
                heard.write_times = (first_us, second_us, blocks)
                news = True
            if news:
                self.news.notify_all()


def _arrival_s(ancillary: list[tuple[int, int, bytes]]) -> float:
    """When the kernel received the datagram, on the monotonic clock; now, where the kernel does not tell."""
    now_s = time.monotonic()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            age_s: float = time.time() - (seconds + nanoseconds / 1e9)
            return now_s - age_s
    return now_s


_collectors: dict[int, _Collector] = {}


def _collector(port: int) -> _Collector:
    try:
        return _collectors[port]
    except KeyError:
        raise Failed("farm", f"no collector of heartbeats at port {port}") from None


@operation
def start(address: str) -> int:
    """Listen on `address`; returns the UDP port, by which the other operations name this collector."""
    collector = _Collector(address)
    _collectors[collector.port] = collector
    return collector.port


@operation
def stop(port: int) -> None:
    """Stop listening; harmless when it has been stopped already."""
    collector = _collectors.pop(port, None)
    if collector is not None:
        collector.close()


@operation
def expect(port: int, nonce: str) -> None:
    """Keep what the guest with this nonce will say."""
    _collector(port).expect(nonce)


@operation
def forget(port: int, nonce: str) -> None:
    """Drop what the guest has said, and listen to it no more."""
    _collector(port).forget(nonce)


@operation
def first(port: int, nonce: str, limit_s: float) -> list[float] | None:
    """The guest's first heartbeat, as soon as it is there; None when there is none in time."""
    collector = _collector(port)
    with collector.news:
        collector.news.wait_for(lambda: collector.heard(nonce).beats, limit_s)
        beats = collector.heard(nonce).beats
        return beats[0] if beats else None


@operation
def beats(port: int, nonce: str, since_s: float, until_s: float) -> list[list[float]]:
    """Heartbeats received between two times of the observer's monotonic clock, oldest first."""
    collector = _collector(port)
    with collector.news:
        heard = list(collector.heard(nonce).beats)
    return [beat for beat in heard if since_s <= beat[0] <= until_s]


@operation
def write_times(port: int, nonce: str, limit_s: float) -> tuple[float, float, int] | None:
    """The write test's report (first_us, second_us, blocks), as soon as it is there; None when not in time."""
    collector = _collector(port)
    with collector.news:
        collector.news.wait_for(lambda: collector.heard(nonce).write_times, limit_s)
        return collector.heard(nonce).write_times
