"""A server whose answers come later: the same bytes in the same order, and nothing once one end is gone."""

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scenarios.contract import Failed
from workers.volumes import delayed, nbd

HERE = "127.0.0.1"
DELAY_MS = 50
TIMEOUT_S = 20.0


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that says everything twice, until there is nothing more."""

    def answer(connection: socket.socket) -> None:
        with connection:
            while said := connection.recv(1 << 16):
                connection.sendall(said + said)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server((HERE, 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def received(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (part := connection.recv(count - len(got))):
        got += part
    return got


def test_answers_come_whole_and_late(port: int) -> None:
    relay = delayed.start(HERE, port, DELAY_MS)
    said = os.urandom(3 << 20)
    with socket.create_connection((HERE, relay), timeout=TIMEOUT_S) as connection:
        for text in (b"one", b"other"):
            asked_s = time.monotonic()
            connection.sendall(text)
            assert received(connection, 2 * len(text)) == text + text
            assert time.monotonic() - asked_s >= DELAY_MS / 1e3
        threading.Thread(target=connection.sendall, args=(said,)).start()
        assert len(received(connection, 2 * len(said))) == 2 * len(said)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    delayed.end(relay)


def test_a_relay_that_was_ended_takes_no_more_connections(port: int) -> None:
    relay = delayed.start(HERE, port, DELAY_MS)
    delayed.end(relay)
    delayed.end(relay)
    with pytest.raises(Failed, match="cannot be read") as failed:
        nbd.read_s(HERE, relay)
    assert failed.value.fault == "donor"


def test_a_server_that_has_ended_has_nothing_to_answer() -> None:
    with socket.create_server((HERE, 0)) as listening:
        port = listening.getsockname()[1]
    relay = delayed.start(HERE, port, DELAY_MS)
    with socket.create_connection((HERE, relay), timeout=TIMEOUT_S) as connection:
        assert connection.recv(1) == b""
    delayed.end(relay)
