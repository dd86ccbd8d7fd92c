"""What is asked of an OpenStack, and what its wrong answers are called; asked over a real agent of a small server."""

from collections.abc import Iterator

import pytest

from scenarios.contract import Failed, Refused
from tests.helpers.small_cloud import SmallCloud, small_cloud
from tests.workers.test_agent import start_link
from workers.agent import AgentLink
from workers.stacks.openstack_client import Client, Login


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def observer() -> Iterator[AgentLink]:
    with start_link() as link:
        yield link


@pytest.fixture
def client(cloud: SmallCloud, observer: AgentLink) -> Client:
    login = Login(f"{cloud.url}/v3", "someone", "secret", "a project", "here")
    return Client(observer, login, lambda component: f"last words of {component}")


def test_a_service_is_where_the_catalogue_says_for_users_of_the_region(cloud: SmallCloud, client: Client) -> None:
    cloud.answer("GET /v2.1/servers/1", (200, {"server": {"id": "1"}}))
    assert client.compute("GET", "/servers/1").body == {"server": {"id": "1"}}
    assert cloud.asked == [("GET /v2.1/servers/1", "the-token")]
    assert client.token() == "the-token"


def test_a_service_that_is_in_no_catalogue_is_the_stacks_fault(client: Client) -> None:
    with pytest.raises(Failed, match=r"component 'keystone' \(at: use\): the catalogue has no service of type 'image'"):
        client.image("GET", "/images")


def test_a_wrong_answer_names_the_component_with_its_log(cloud: SmallCloud, client: Client) -> None:
    cloud.answer("GET /v2.1/servers", (500, {"computeFault": {"message": "no such luck"}}))
    with pytest.raises(Failed) as caught:
        client.compute("GET", "/servers")
    assert caught.value.fault == "stack"
    assert str(caught.value) == (
        "component 'nova' (at: use): GET /servers answers 500: "
        '{"computeFault": {"message": "no such luck"}}; '
        "its log: last words of nova"
    )


def test_what_something_else_is_in_the_way_of_is_refused_by_the_stack(cloud: SmallCloud, client: Client) -> None:
    cloud.answer("POST /v2.1/servers/1/action", (409, {"conflictingRequest": {"message": "it is on its way"}}))
    with pytest.raises(Refused, match=r"component 'nova': .* answers 409: .*it is on its way") as caught:
        client.compute("POST", "/servers/1/action", {})
    assert caught.value.fault == "stack"


def test_what_may_be_gone_may_be_gone(client: Client) -> None:
    assert client.compute("GET", "/servers/2", may_miss=True).status == 404
    assert client.computes_up() == set()


def test_computes_that_are_up_and_enabled_are_told(cloud: SmallCloud, client: Client) -> None:
    seen = [("h1", "up", "enabled"), ("h2", "down", "enabled"), ("h3", "up", "disabled")]
    told = [{"service": {"host": host}, "state": state, "status": status} for host, state, status in seen]
    cloud.answer("GET /v2.1/os-hypervisors/detail", (200, {"hypervisors": told}))
    assert client.computes_up() == {"h1"}


def test_no_answer_at_all_names_the_component(observer: AgentLink) -> None:
    silent = Client(observer, Login("http://127.0.0.1:9/v3", "someone", "secret", "a project"))
    with pytest.raises(
        Failed, match=r"component 'keystone' \(at: use\): POST http://127.0.0.1:9/v3/auth/tokens: no answer"
    ):
        silent.token()


def test_a_password_is_not_told() -> None:
    assert "secret" not in repr(Login("http://10.0.0.1/v3", "someone", "secret", "a project"))


def test_a_token_that_is_forgotten_is_asked_for_anew(cloud: SmallCloud, client: Client) -> None:
    cloud.answer("GET /v2.1/servers", (200, {"servers": []}))
    client.compute("GET", "/servers")
    cloud.token = "another-token"
    client.compute("GET", "/servers")
    client.forget_token()
    client.compute("GET", "/servers")
    assert [token for _, token in cloud.asked] == ["the-token", "the-token", "another-token"]
