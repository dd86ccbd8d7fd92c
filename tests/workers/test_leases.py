"""Addresses for guests that ask for one: what is asked, and what is answered."""

import struct
from ipaddress import IPv4Interface

import pytest

from workers.leases import Request, make_reply, read_request

MAC = bytes.fromhex("525400aabbcc")
COOKIE = bytes.fromhex("63825363")


def asked(options: bytes, *, kind: int = 1, cookie: bytes = COOKIE) -> bytes:
    head = struct.pack("!BBBBIHH", kind, 1, 6, 0, 0xCAFE, 0, 0x8000) + bytes(16)
    return head + MAC.ljust(16, b"\0") + bytes(192) + cookie + options


def test_a_discovery_is_understood() -> None:
    datagram = asked(bytes([53, 1, 1, 0, 55, 2, 1, 3, 255]))
    assert read_request(datagram) == Request(1, 0xCAFE, 0x8000, MAC, None)


def test_a_request_names_the_server_it_has_chosen() -> None:
    request = read_request(asked(bytes([53, 1, 3, 54, 4, 10, 77, 0, 254, 255])))
    assert request is not None
    assert request.server == bytes([10, 77, 0, 254])


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"x" * 100,
        asked(bytes([53, 1, 1, 255]), kind=2),
        asked(bytes([53, 1, 1, 255]), cookie=bytes(4)),
        asked(b""),
        asked(bytes([53, 200, 1])),
        asked(bytes([53])),
    ],
    ids=["empty", "short", "reply", "no-cookie", "no-options", "cut-off", "no-length"],
)
def test_what_is_no_request_is_not_answered(datagram: bytes) -> None:
    assert read_request(datagram) is None


def test_the_reply_gives_the_address_and_its_network() -> None:
    request = Request(1, 0xCAFE, 0x8000, MAC, None)
    reply = make_reply(request, 2, IPv4Interface("10.77.0.100/24"), "10.77.0.254")
    assert reply[0] == 2
    assert reply[4:8] == (0xCAFE).to_bytes(4, "big")
    assert reply[16:20] == bytes([10, 77, 0, 100])
    assert reply[28:34] == MAC
    assert reply[236:240] == COOKIE
    assert bytes([1, 4, 255, 255, 255, 0]) in reply[240:]
    assert reply[240:243] == bytes([53, 1, 2])
    assert reply[-1] == 255
