"""A small HTTP server in an OpenStack's place: everybody gets a token, and the rest is answered as a test has it."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, object]


@dataclass
class SmallCloud:
    """`answers`: method and path → what is answered, one after the other; the last one stays."""

    url: str = ""
    token: str = "the-token"
    services: dict[str, str] = field(default_factory=lambda: {"compute": "/v2.1/", "network": "/network"})
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path, and the token they came with

    def answer(self, asked: str, *answers: Answer) -> None:
        self.answers[asked] = list(answers)

    def given(self, asked: str, token: str) -> Answer:
        self.asked.append((asked, token))
        waiting = self.answers.get(asked, [(404, {"itemNotFound": {}})])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def catalogue(self) -> list[dict[str, object]]:
        endpoints = [
            {"interface": "admin", "region_id": "here", "url": f"{self.url}/not/for/users"},
            {"interface": "public", "region_id": "elsewhere", "url": f"{self.url}/not/here"},
        ]
        return [
            {"type": kind, "endpoints": [*endpoints, {"interface": "public", "region_id": "here", "url": url}]}
            for kind, url in ((kind, self.url + path) for kind, path in self.services.items())
        ]


@contextlib.contextmanager
def small_cloud() -> Iterator[SmallCloud]:
    cloud = SmallCloud()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def do_DELETE(self) -> None:
            self.answer()

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked, token = f"{self.command} {self.path}", self.headers["X-Auth-Token"]
            if asked == "POST /v3/auth/tokens":
                self.give(201, {"token": {"catalog": cloud.catalogue()}})
            else:
                self.give(*cloud.given(asked, token))

        def give(self, status: int, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("X-Subject-Token", cloud.token)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """pytest need not hear of it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield cloud
        server.shutdown()
