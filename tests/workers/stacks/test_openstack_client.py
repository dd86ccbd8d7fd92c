"""What is asked of an OpenStack, and what its wrong answers are called; asked over a real agent of a small server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from scenarios.contract import Failed
from tests.workers.test_agent import start_link
from workers.agent import AgentLink
from workers.stacks.openstack_client import Client, Login


class Cloud(BaseHTTPRequestHandler):
    """Gives everybody a token and a catalogue, and answers the rest as the test has it in `answers`."""

    answers: ClassVar[dict[str, tuple[int, object]]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []
    token: ClassVar[str] = "the-token"

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["X-Auth-Token"]))
        self._answer(*self.answers.get(self.path, (404, {"itemNotFound": {}})))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        host = f"http://{self.headers['Host']}"
        endpoints = [
            {"interface": "admin", "region_id": "here", "url": f"{host}/not/for/users"},
            {"interface": "public", "region_id": "elsewhere", "url": f"{host}/not/here"},
            {"interface": "public", "region_id": "here", "url": f"{host}/v2.1/"},
        ]
        self._answer(201, {"token": {"catalog": [{"type": "compute", "endpoints": endpoints}]}})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Subject-Token", self.token)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """pytest need not hear of it."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Cloud) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v3"
        server.shutdown()


@pytest.fixture(scope="module")
def observer() -> Iterator[AgentLink]:
    with start_link() as link:
        yield link


@pytest.fixture
def client(url: str, observer: AgentLink) -> Client:
    Cloud.answers, Cloud.asked, Cloud.token = {}, [], "the-token"
    login = Login(url, "someone", "secret", "a project", "here")
    return Client(observer, login, lambda component: f"last words of {component}")


def test_a_service_is_where_the_catalogue_says_for_users_of_the_region(client: Client) -> None:
    Cloud.answers["/v2.1/servers/1"] = 200, {"server": {"id": "1"}}
    assert client.compute("GET", "/servers/1").body == {"server": {"id": "1"}}
    assert Cloud.asked == [("/v2.1/servers/1", "the-token")]
    assert client.token() == "the-token"


def test_a_service_that_is_in_no_catalogue_is_the_stacks_fault(client: Client) -> None:
    with pytest.raises(Failed, match=r"component 'keystone' \(at: use\): the catalogue has no service of type 'image'"):
        client.image("GET", "/images")


def test_a_wrong_answer_names_the_component_with_its_log(client: Client) -> None:
    Cloud.answers["/v2.1/servers"] = 500, {"computeFault": {"message": "no such luck"}}
    with pytest.raises(Failed) as caught:
        client.compute("GET", "/servers")
    assert caught.value.fault == "stack"
    assert str(caught.value) == (
        "component 'nova' (at: use): GET /servers answers 500: "
        '{"computeFault": {"message": "no such luck"}}; '
        "its log: last words of nova"
    )


def test_what_may_be_gone_may_be_gone(client: Client) -> None:
    assert client.compute("GET", "/servers/2", may_miss=True).status == 404
    assert client.computes_up() == set()


def test_computes_that_are_up_and_enabled_are_told(client: Client) -> None:
    seen = [("h1", "up", "enabled"), ("h2", "down", "enabled"), ("h3", "up", "disabled")]
    told = [{"service": {"host": host}, "state": state, "status": status} for host, state, status in seen]
    Cloud.answers["/v2.1/os-hypervisors/detail"] = 200, {"hypervisors": told}
    assert client.computes_up() == {"h1"}


def test_no_answer_at_all_names_the_component(observer: AgentLink) -> None:
    silent = Client(observer, Login("http://127.0.0.1:9/v3", "someone", "secret", "a project"))
    with pytest.raises(
        Failed, match=r"component 'keystone' \(at: use\): POST http://127.0.0.1:9/v3/auth/tokens: no answer"
    ):
        silent.token()


def test_a_password_is_not_told() -> None:
    assert "secret" not in repr(Login("http://10.0.0.1/v3", "someone", "secret", "a project"))


def test_a_token_that_is_forgotten_is_asked_for_anew(client: Client) -> None:
    Cloud.answers["/v2.1/servers"] = 200, {"servers": []}
    client.compute("GET", "/servers")
    Cloud.token = "another-token"
    client.compute("GET", "/servers")
    client.forget_token()
    client.compute("GET", "/servers")
    assert [token for _, token in Cloud.asked] == ["the-token", "the-token", "another-token"]
