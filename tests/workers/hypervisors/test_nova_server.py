"""A server of Nova's as its API tells of it: when it counts as running or moved, and when as refused or broken."""

from collections.abc import Iterator

import pytest

from scenarios.contract import Failed, Refused
from tests.helpers.small_cloud import SmallCloud, small_cloud
from tests.workers.test_agent import start_link
from workers.hypervisors.nova_server import Server
from workers.stacks.openstack_client import Client, Login

SERVER, ACTION = "GET /v2.1/servers/1", "POST /v2.1/servers/1/action"
RECORDS, UNDER_WAY = "GET /v2.1/os-migrations?instance_uuid=1", "GET /v2.1/servers/1/migrations"


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        yield cloud


@pytest.fixture
def server(cloud: SmallCloud) -> Iterator[Server]:
    with start_link() as observer:
        client = Client(observer, Login(f"{cloud.url}/v3", "someone", "secret", "a project", "here"))
        yield Server(client, "1", lambda what: client.failure("compute", what))


def told(status: str = "ACTIVE", host: str = "h1", task: str | None = None, **more: object) -> tuple[int, object]:
    where = {"OS-EXT-SRV-ATTR:host": host, "OS-EXT-STS:task_state": task}
    return 200, {"server": {"status": status, **where, **more}}


def moves(*states: str) -> tuple[int, object]:
    return 200, {"migrations": [{"id": number, "status": state} for number, state in enumerate(states, 7)]}


def test_a_server_runs_when_nova_says_so(cloud: SmallCloud, server: Server) -> None:
    cloud.answer(SERVER, told("BUILD"), told("BUILD"), told("ACTIVE"))
    server.wait_until_active("start it", timeout_s=30)
    assert [asked for asked, _ in cloud.asked] == [SERVER] * 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (told("ERROR", fault={"message": "No valid host"}), "start it: it sets the guest to ERROR: No valid host"),
        (told("ERROR"), "start it: it sets the guest to ERROR: it does not say why"),
        (told("BUILD", task="spawning"), "start it: not done within 0 s: it says BUILD, spawning"),
    ],
)
def test_a_server_that_does_not_run_is_the_stacks_failure(
    cloud: SmallCloud, server: Server, answer: tuple[int, object], reason: str
) -> None:
    cloud.answer(SERVER, answer)
    with pytest.raises(Failed) as caught:
        server.wait_until_active("start it", timeout_s=0)
    assert (caught.value.fault, str(caught.value)) == ("stack", f"component 'nova' (at: use): {reason}")


def test_a_server_has_moved_when_nothing_is_done_with_it_any_more(cloud: SmallCloud, server: Server) -> None:
    cloud.answer(SERVER, told("MIGRATING", task="migrating"), told(host="h2", task="migrating"), told(host="h2"))
    server.wait_until_moved("move it", "h2", timeout_s=30)
    assert RECORDS not in [asked for asked, _ in cloud.asked]


def test_a_move_while_another_is_under_way_is_refused(cloud: SmallCloud, server: Server) -> None:
    cloud.answer(ACTION, (202, {}), (409, {"conflictingRequest": {"message": "while it is in task_state migrating"}}))
    server.ask_to_move("h2")
    with pytest.raises(Refused, match="task_state migrating") as caught:
        server.ask_to_move("h2")
    assert caught.value.fault == "stack"


@pytest.mark.parametrize(("state", "refused"), [("error", False), ("failed", False), ("cancelled", True)])
def test_a_move_that_nova_gives_up_has_failed_and_one_that_was_cancelled_not(
    cloud: SmallCloud, server: Server, state: str, refused: bool
) -> None:
    cloud.answer(SERVER, told())
    cloud.answer(RECORDS, moves("running"), moves(state, "completed"))  # the newest comes first
    with pytest.raises(Failed, match=state) as caught:
        server.wait_until_moved("move it", "h2", timeout_s=30)
    assert (isinstance(caught.value, Refused), caught.value.fault) == (refused, "stack")


def test_what_is_under_way_is_aborted_and_what_has_just_ended_is_not_missed(cloud: SmallCloud, server: Server) -> None:
    cloud.answer(UNDER_WAY, moves("running"), moves("running"), moves())
    cloud.answer("DELETE /v2.1/servers/1/migrations/7", (202, {}), (400, {"badRequest": {"message": "completed"}}))
    for _ in range(3):
        server.abort_move()
    deleted = [asked for asked, _ in cloud.asked if asked.startswith("DELETE")]
    assert deleted == ["DELETE /v2.1/servers/1/migrations/7"] * 2
