"""The collector of heartbeats, with real datagrams on loopback."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.contract import Failed
from workers import heartbeats

Send = Callable[[str], None]


@pytest.fixture
def port() -> Iterator[int]:
    port = heartbeats.start("127.0.0.1")
    yield port
    heartbeats.stop(port)


@pytest.fixture
def send(port: int) -> Iterator[Send]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:

        def send(text: str) -> None:
            guest.sendto(text.encode(), ("127.0.0.1", port))

        yield send


def test_heartbeats_arrive_in_order_with_their_counters(port: int, send: Send) -> None:
    heartbeats.expect(port, "n1")
    heartbeats.begin_writes(port, "n1")
    before_s = time.monotonic()
    for sequence in range(50):
        send(f"FARM1 n1 {sequence} {sequence * 2} 1 2 3 4 5 6")
    first = heartbeats.first(port, "n1", limit_s=5)
    send("FARM1 n1 50 100 1 2 3 4 5 6")
    send("FARM1-WRITES n1 11 15 7 9 5 128 0")
    writes = heartbeats.write_times(port, "n1", limit_s=5)
    assert writes is not None
    assert writes[2:] == [11, 15, 7, 9, 5, 128, 0]
    assert before_s <= writes[0] <= writes[1] <= time.monotonic()
    heard = heartbeats.beats(port, "n1", before_s, time.monotonic())
    assert heard[0] == first
    assert [beat[1:] for beat in heard] == [[n, n * 2, 1, 2, 3, 4, 5, 6] for n in range(51)]
    times = [beat[0] for beat in heard]
    assert times == sorted(times)
    assert heartbeats.beats(port, "n1", times[10], times[12]) == heard[10:13]


def test_a_guest_that_says_nothing_is_silent(port: int) -> None:
    heartbeats.expect(port, "n1")
    assert heartbeats.first(port, "n1", limit_s=0.05) is None
    assert heartbeats.write_times(port, "n1", limit_s=0.05) is None
    assert heartbeats.beats(port, "n1", 0, time.monotonic()) == []


def test_a_guest_is_told_to_write_until_it_has_written(port: int) -> None:
    heartbeats.expect(port, "n1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
        guest.settimeout(5)
        guest.connect(("127.0.0.1", port))
        guest.send(b"FARM1 n1 0 0 0 0 0 0 0 0")
        assert heartbeats.first(port, "n1", limit_s=5) is not None
        heartbeats.begin_writes(port, "n1")
        for sequence in (b"1", b"2"):  # as if the first answer were lost
            guest.send(b"FARM1 n1 " + sequence + b" 0 0 0 0 0 0 0")
            assert guest.recv(100) == b"FARM1-BEGIN"
        guest.send(b"FARM1-WRITES n1 1 1 1 1 1 8 0")
        assert heartbeats.write_times(port, "n1", limit_s=5) is not None
        guest.send(b"FARM1 n1 3 0 0 0 0 0 0 0")
        guest.settimeout(0.2)
        with pytest.raises(TimeoutError):
            guest.recv(100)


def test_times_of_the_disk_are_kept_with_when_they_came(port: int, send: Send) -> None:
    heartbeats.expect(port, "n1")
    before_s = time.monotonic()
    send("FARM1-DISK n1 250 300")
    send("FARM1-DISK n1 260 310")
    send("FARM1 n1 0 0 0 0 0 0 0 0")
    assert heartbeats.first(port, "n1", limit_s=5) is not None
    heard = heartbeats.disk_times(port, "n1", before_s, time.monotonic())
    assert [times[1:] for times in heard] == [[250, 300], [260, 310]]
    assert heartbeats.disk_times(port, "n1", 0, before_s) == []


def test_only_expected_guests_are_heard(port: int, send: Send) -> None:
    heartbeats.expect(port, "mine")
    send("FARM1 other 0 0 0 0 0 0 0 0")
    send("FARM1 mine 0 0 0 0 0 0 0 0")
    assert heartbeats.first(port, "mine", limit_s=5) is not None
    with pytest.raises(Failed, match="not expected"):
        heartbeats.beats(port, "other", 0, time.monotonic())
    heartbeats.forget(port, "mine")
    with pytest.raises(Failed, match="not expected"):
        heartbeats.first(port, "mine", limit_s=0.05)


def test_a_collector_that_was_stopped_is_no_more() -> None:
    port = heartbeats.start("127.0.0.1")
    heartbeats.stop(port)
    heartbeats.stop(port)
    with pytest.raises(Failed, match="no collector"):
        heartbeats.expect(port, "n1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))  # the port is free again


@settings(max_examples=30)
@given(noise=st.lists(st.binary(max_size=600), max_size=20))
def test_noise_is_not_heard_and_stops_nothing(noise: list[bytes]) -> None:
    port = heartbeats.start("127.0.0.1")
    try:
        heartbeats.expect(port, "n1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in [
                *noise,
                b"FARM1 n1 x 0 0 0 0 0 0 0",
                b"FARM1 n1 1",
                b"FARM1-WRITES n1 1",
                b"FARM1 n1 7 0 0 0 0 0 0 0",
            ]:
                sender.sendto(datagram, ("127.0.0.1", port))
        first = heartbeats.first(port, "n1", limit_s=5)
        assert first is not None
        assert first[1] == 7
    finally:
        heartbeats.stop(port)
