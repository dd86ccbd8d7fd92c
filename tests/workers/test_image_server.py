"""Images on their way to a host: whole, or not at all."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from workers import image_server

HERE = "127.0.0.1"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "image").write_bytes(os.urandom(3 << 20))
    port = image_server.start(HERE, [str(tmp_path / "image")])
    yield port
    image_server.stop(port)


def test_an_image_arrives_whole_and_read_only(port: int, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert image_server.fetch(HERE, port, 0, str(copy)) == 3 << 20
    assert copy.read_bytes() == (tmp_path / "image").read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o444


def test_nothing_else_is_served(port: int, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="404") as failed:
        image_server.fetch(HERE, port, 1, str(tmp_path / "copy"))
    assert failed.value.fault == "farm"


def test_a_server_that_has_ended_is_told(port: int, tmp_path: Path) -> None:
    image_server.stop(port)
    with pytest.raises(Failed, match="refused") as failed:
        image_server.fetch(HERE, port, 0, str(tmp_path / "copy"))
    assert failed.value.fault == "donor"


def test_an_image_that_breaks_off_is_told(tmp_path: Path) -> None:
    with socket.create_server((HERE, 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Failed, match="broke off after 10 bytes") as failed:
            image_server.fetch(HERE, server.getsockname()[1], 0, str(tmp_path / "copy"))
    assert failed.value.fault == "donor"
