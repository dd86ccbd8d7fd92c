"""Addresses for guests that ask for one (DHCP), and whether they answer there: operations of the observer's agent.

Only guests that an address is kept for are answered; whoever else asks on the test network hears nothing.
"""

import contextlib
import fcntl
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface

from scenarios.contract import Failed
from workers.operations import operation

_SERVER_PORT, _CLIENT_PORT = 67, 68
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_MESSAGE, _SERVER, _LEASE_TIME, _MASK, _END = 53, 54, 51, 1, 255
_LEASE_S = 86400
_HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")
_COOKIE = b"\x63\x82\x53\x63"
_SIOCGIFADDR = 0x8915
_COMMAND_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 0.5
_POLL_S = 0.01


@dataclass
class _Kept:
    """An address that is kept for one guest, and when it was given out."""

    address: IPv4Interface
    leased_s: float | None = None


@dataclass
class _Server:
    """The socket and thread that answer; there is at most one in an agent."""

    own: str
    interface: str
    socket: socket.socket
    kept: dict[bytes, _Kept] = field(default_factory=dict)
    news: threading.Condition = field(default_factory=threading.Condition)

    def serve(self) -> None:
        while True:
            try:
                datagram = self.socket.recv(4096)
            except OSError:
                return
            with self.news:
                reply = self._reply(datagram)
            if reply is not None:
                with contextlib.suppress(OSError):  # it will ask again
                    self.socket.sendto(reply, ("255.255.255.255", _CLIENT_PORT))

    def _reply(self, datagram: bytes) -> bytes | None:
        asked = read_request(datagram)
        if asked is None or (kept := self.kept.get(asked.mac)) is None:
            return None
        if asked.message == _DISCOVER:
            return make_reply(asked, _OFFER, kept.address, self.own)
        if asked.message == _REQUEST and asked.server in (None, socket.inet_aton(self.own)):
            self._introduce(asked.mac, kept.address)
            kept.leased_s = kept.leased_s or time.monotonic()
            self.news.notify_all()
            return make_reply(asked, _ACK, kept.address, self.own)
        return None

    def _introduce(self, mac: bytes, address: IPv4Interface) -> None:
        """Tell the kernel whose address it is: looking for it would cost up to a second after the guest is up."""
        known = ["lladdr", mac.hex(":"), "dev", self.interface, "nud", "reachable"]  # forgotten when it is silent
        command = ["ip", "neigh", "replace", str(address.ip), *known]
        subprocess.run(command, capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=True)


@dataclass(frozen=True)
class Request:
    """What a guest asks: `server` is the one it has chosen, if any."""

    message: int
    transaction: int
    flags: int
    mac: bytes
    server: bytes | None


def read_request(datagram: bytes) -> Request | None:
    """None for what is no request for an address."""
    if len(datagram) < _HEAD.size:
        return None
    kind, hardware, length, _, transaction, _, flags, _, _, _, _, mac, cookie = _HEAD.unpack_from(datagram)
    if (kind, hardware, length, cookie) != (1, 1, 6, _COOKIE):
        return None
    options = _options(datagram[_HEAD.size :])
    message = options.get(_MESSAGE, b"")
    if len(message) != 1:
        return None
    return Request(message[0], transaction, flags, mac[:6], options.get(_SERVER))


def make_reply(asked: Request, message: int, address: IPv4Interface, server: str) -> bytes:
    """The server's answer, without a router: there is no way out of a test network."""
    own, zero = socket.inet_aton(server), bytes(4)
    head = _HEAD.pack(
        2, 1, 6, 0, asked.transaction, 0, asked.flags, zero, address.ip.packed, own, zero, asked.mac, _COOKIE
    )
    options: Mapping[int, bytes] = {
        _MESSAGE: bytes([message]),
        _SERVER: own,
        _LEASE_TIME: _LEASE_S.to_bytes(4, "big"),
        _MASK: address.netmask.packed,
    }
    return head + b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + bytes([_END])


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(data) and data[at] != _END:
        if data[at] == 0:  # padding
            at += 1
            continue
        length = data[at + 1]
        if at + 2 + length > len(data):  # cut off
            break
        found[data[at]] = data[at + 2 : at + 2 + length]
        at += 2 + length
    return found


_servers: list[_Server] = []
_lock = threading.Lock()


@operation
def keep(own: str, mac: str, address: str) -> None:
    """Give `address` (with its prefix) to the guest with this MAC when it asks; `own` is the observer's address."""
    with _lock:
        if not _servers:
            _servers.append(_start(own))
    with _servers[0].news:
        _servers[0].kept[bytes.fromhex(mac.replace(":", ""))] = _Kept(IPv4Interface(address))


@operation
def forget(mac: str) -> None:
    """Give it none any more; harmless when none was kept."""
    for server in _servers:
        with server.news:
            server.kept.pop(bytes.fromhex(mac.replace(":", "")), None)


@operation
def leased_s(mac: str, limit_s: float) -> float | None:
    """When the guest was first given its address, on the observer's monotonic clock; None when not in time."""
    if not _servers:
        raise Failed("farm", "no address is kept for any guest")
    server, key = _servers[0], bytes.fromhex(mac.replace(":", ""))
    with server.news:
        server.news.wait_for(lambda: server.kept[key].leased_s is not None, limit_s)
        return server.kept[key].leased_s


@operation
def connected_s(address: str, port: int, limit_s: float) -> float | None:
    """When a TCP connection to this port was first accepted; None when none is within `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=_CONNECT_TIMEOUT_S):
            return time.monotonic()
        if time.monotonic() > deadline_s:
            return None
        time.sleep(_POLL_S)


def _start(own: str) -> _Server:
    interface = _interface_of(own)
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        listening.bind(("", _SERVER_PORT))
    except OSError as error:
        listening.close()
        raise Failed("farm", f"cannot give addresses to guests on {interface}: {error}") from None
    server = _Server(own, interface, listening)
    threading.Thread(target=server.serve, daemon=True, name="leases").start()
    return server


def _interface_of(own: str) -> str:
    """The network interface that has this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if answer[20:24] == socket.inet_aton(own):
                    return name
    raise Failed("farm", f"the observer has no interface with its address {own}")
