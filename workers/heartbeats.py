"""Receives the heartbeats of guests: operations of the observer's agent.

Guests send UDP datagrams of text (see `guest/init.c`). Each is stamped by the kernel as it arrives, so that a
busy observer does not make a guest look paused. Only guests that are expected are listened to. A guest whose write
test is to begin gets an answer to each heartbeat until it reports the test's end: none that is lost matters.
"""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from scenarios.contract import Failed
from workers import clocks
from workers.operations import operation

_SO_TIMESTAMPNS = 35  # Linux, x86 and ARM; the socket module does not name it
_TIMESPEC = struct.Struct("ll")
_BEAT, _WRITES, _DISK = b"FARM1", b"FARM1-WRITES", b"FARM1-DISK"
_BEGIN = b"FARM1-BEGIN"
_BEAT_NUMBERS, _WRITE_NUMBERS, _DISK_NUMBERS = 8, 7, 2
_DATAGRAM_BYTES = 512
_RECEIVE_BUFFER_BYTES = 4 << 20
_STOP_S = 2.0


@dataclass
class _Heard:
    """What one guest has said: `beats` are the fields of a contract.Beat in their order, but for the nonce."""

    beats: list[list[float]] = field(default_factory=list)
    # began_s, ended_s (as seen from here), first_us, first_p99_us, second_us, second_p99_us, read_us, blocks, errno
    writes: list[float] | None = None
    may_write: bool = False
    began_s: float | None = None  # when it was first told to write
    disk_times: list[list[float]] = field(default_factory=list)  # at_s, read_us, write_us


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
        self.cpu_s = 0.0  # of the thread that listens
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._receive, daemon=True, name="heartbeats")
        self._thread.start()

    def expect(self, nonce: str) -> None:
        with self.news:
            self._heard.setdefault(nonce.encode(), _Heard())

    def begin_writes(self, nonce: str) -> None:
        with self.news:
            self.heard(nonce).may_write = True

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
                datagram, ancillary, _, sender = self._socket.recvmsg(_DATAGRAM_BYTES, space)
            except OSError:
                datagram, ancillary, sender = b"", [], None
            if self._closed:
                return
            if self._note(datagram, _arrival_s(ancillary)):
                with contextlib.suppress(OSError):  # the next heartbeat is answered too
                    self._socket.sendto(_BEGIN, sender)
            self.cpu_s = time.thread_time()

    def _note(self, datagram: bytes, at_s: float) -> bool:
        """Keep what a guest says; whether it is waiting for a word to begin its write test."""
        words = datagram.split()
        if len(words) < 2:
            return False
        kind, nonce = words[:2]
        try:
            numbers = [int(word) for word in words[2:]]
        except ValueError:
            return False
        with self.news:
            heard = self._heard.get(nonce)
            if heard is None:
                return False
            if kind == _BEAT and len(numbers) == _BEAT_NUMBERS:
                # they come in order; the clocks' resolution must not put them into another
                at_s = max(at_s, heard.beats[-1][0]) if heard.beats else at_s
                heard.beats.append([at_s, *numbers])
                news = len(heard.beats) == 1
            elif kind == _WRITES and len(numbers) == _WRITE_NUMBERS:
                news = heard.writes is None
                if heard.writes is None and heard.began_s is not None:
                    heard.writes = [heard.began_s, at_s, *numbers]
            elif kind == _DISK and len(numbers) == _DISK_NUMBERS:
                heard.disk_times.append([at_s, *numbers])
                news = False
            else:
                return False
            if news:
                self.news.notify_all()
            waits = heard.may_write and heard.writes is None
            if waits and heard.began_s is None:
                heard.began_s = time.monotonic()
            return waits


def _arrival_s(ancillary: list[tuple[int, int, bytes]]) -> float:
    """When the kernel received the datagram, on the monotonic clock; now, where the kernel does not tell."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            monotonic_s, real_s = clocks.at_one_moment(time.time)
            age_s: float = real_s - seconds - nanoseconds / 1e9
            return monotonic_s - age_s
    return time.monotonic()


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
def cpu_s(port: int) -> float:
    """CPU seconds that listening has cost so far."""
    return _collector(port).cpu_s


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
def disk_times(port: int, nonce: str, since_s: float, until_s: float) -> list[list[float]]:
    """Timed reads and writes that were heard of between two times, oldest first: [at_s, read_us, write_us]."""
    collector = _collector(port)
    with collector.news:
        heard = list(collector.heard(nonce).disk_times)
    return [times for times in heard if since_s <= times[0] <= until_s]


@operation
def begin_writes(port: int, nonce: str) -> None:
    """Tell the guest to begin its write test."""
    _collector(port).begin_writes(nonce)


@operation
def write_times(port: int, nonce: str, limit_s: float) -> list[float] | None:
    """The write test's report (see `_Heard`), as soon as it is there; None when not in time."""
    collector = _collector(port)
    with collector.news:
        collector.news.wait_for(lambda: collector.heard(nonce).writes, limit_s)
        return collector.heard(nonce).writes
