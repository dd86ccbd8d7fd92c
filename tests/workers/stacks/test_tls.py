"""Services that speak https are trusted by certificates, and never without."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scenarios.contract import Failed
from workers.objectstores.wire import Endpoint, Request, ask, connected
from workers.stacks.api import request


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """pytest need not hear of it."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "own.pem", folder / "own.key"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *made, *names, *files], check=True, capture_output=True, timeout=30)
    return certificate, key


@pytest.fixture(scope="module")
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(*certificate)
        server.socket = own.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def test_a_services_certificate_is_checked(port: int, certificate: tuple[Path, Path]) -> None:
    url = f"https://localhost:{port}/"
    assert request("GET", url, {}, 10.0, ca_file=str(certificate[0]))["text"] == "hello"
    with pytest.raises(Failed, match="CERTIFICATE_VERIFY_FAILED"):
        request("GET", url, {}, 10.0)
    with pytest.raises(Failed, match="no certificates can be read from /nowhere") as unread:
        request("GET", url, {}, 10.0, ca_file="/nowhere")
    assert unread.value.fault == "farm"


def test_an_object_stores_certificate_is_checked(port: int, certificate: tuple[Path, Path]) -> None:
    at = Endpoint("localhost", port, "/v1/account", "a token", tls=True, ca_file=str(certificate[0]))
    with connected(at, port) as connection:
        assert ask(connection, Request("GET", "/")).body == b"hello"
    with (
        pytest.raises(Failed, match="CERTIFICATE_VERIFY_FAILED"),
        connected(Endpoint("localhost", port, "/v1/account", "a token", tls=True), port),
    ):
        pytest.fail("it was trusted")
