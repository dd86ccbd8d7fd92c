"""What stands in Neutron's place: ports are bound to the bridge, have addresses, and are found by what Nova asks for."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.local_clusters import wait_for
from workers.stacks import openstack_network

FIRST, LAST = "10.0.0.100", "10.0.0.102"


class Network:
    """The program itself, asked as Nova does."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/v2.0/{path}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def new_port(self, **asked: object) -> dict[str, Any]:
        status, answer = self.ask("POST", "ports", {"port": asked})
        assert status == 201
        return dict(answer["port"])

    def found(self, query: str) -> set[str]:
        return {port["id"] for port in self.ask("GET", f"ports?{query}")[1]["ports"]}

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "")[0] == 200
        except OSError:
            return False


@pytest.fixture
def network() -> Iterator[Network]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, openstack_network.__file__, "127.0.0.1", str(port), "br7", "10.0.0.0/24", FIRST, LAST]
    with subprocess.Popen(command) as running:
        try:
            network = Network(port)
            assert wait_for(network.is_up)
            yield network
        finally:
            running.kill()


def address_of(port: dict[str, Any]) -> str:
    (fixed,) = port["fixed_ips"]
    return str(fixed["ip_address"])


def test_a_port_is_bound_when_it_has_a_host(network: Network) -> None:
    port = network.new_port(device_id="server")
    assert (port["status"], port["binding:vif_type"]) == ("DOWN", "unbound")
    _, answer = network.ask("PUT", f"ports/{port['id']}", {"port": {"binding:host_id": "h1"}})
    bound = answer["port"]
    assert (bound["status"], bound["binding:vif_type"]) == ("ACTIVE", "bridge")
    assert bound["binding:vif_details"]["bridge_name"] == "br7"
    assert address_of(bound) == address_of(port)


def test_an_address_is_in_use_by_whoever_has_it_and_nobody_else(network: Network) -> None:
    """Nova refuses a server whose address somebody has: it asks for ports with that address."""
    one, other = (network.new_port(fixed_ips=[{"ip_address": address}]) for address in (FIRST, LAST))
    assert network.found(f"fixed_ips=ip_address%3D{FIRST}") == {one["id"]}
    assert network.found(f"fixed_ips=ip_address%3D{LAST}&network_id={openstack_network.NETWORK_ID}") == {other["id"]}
    assert network.found("fixed_ips=ip_address%3D10.0.0.101") == set()
    assert network.found("device_id=nobody") == set()
    assert network.found("fields=id") == {one["id"], other["id"]}


def test_who_asks_for_no_address_gets_the_first_that_is_free(network: Network) -> None:
    taken = network.new_port(fixed_ips=[{"ip_address": "10.0.0.101"}])
    assert [address_of(network.new_port()) for _ in range(2)] == [FIRST, LAST]
    assert network.ask("DELETE", f"ports/{taken['id']}") == (204, None)
    assert address_of(network.new_port()) == "10.0.0.101"


def test_what_is_not_there_is_not_there(network: Network) -> None:
    assert network.ask("GET", "ports/none")[0] == 404
    assert network.ask("DELETE", "ports/none")[0] == 404
    assert network.ask("GET", "routers") == (200, {"routers": []})
