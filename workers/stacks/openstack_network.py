"""What Nova needs of Neutron where guests are on one bridge that is there already; runs inside the walls by itself.

`python3 openstack_network.py address port bridge network first last`. One network and subnet; a port is what Nova asks
for, bound to the bridge as soon as it has a host. A port has the address that is asked for, or the first that is free
from `first` to `last`. Nothing is kept, and no agent, filter or DHCP exists. A token is not
looked at, since nothing here can be read or broken that others own.
"""

import ipaddress
import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

NETWORK_NAME = "guests"
NETWORK_ID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "network"))
SUBNET_ID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "subnet"))
_EMPTY = ("floatingips", "routers", "agents", "security_groups", "segments", "trunks", "qos_policies")


class Network:
    """One network with its ports."""

    def __init__(self, bridge: str, cidr: str, pool: tuple[str, str]) -> None:
        self.bridge = bridge
        self.pool = pool
        self.lock = threading.Lock()
        self.ports: dict[str, dict[str, Any]] = {}
        common = {"tenant_id": "", "project_id": "", "shared": True}
        self.networks = {
            NETWORK_ID: {
                **common, "id": NETWORK_ID, "name": NETWORK_NAME, "subnets": [SUBNET_ID], "mtu": 1500,
                "status": "ACTIVE", "admin_state_up": True, "router:external": False, "port_security_enabled": False,
                "provider:physical_network": None, "provider:network_type": None, "provider:segmentation_id": None,
            }
        }  # fmt: skip
        self.subnets = {
            SUBNET_ID: {
                **common, "id": SUBNET_ID, "network_id": NETWORK_ID, "cidr": cidr, "ip_version": 4, "gateway_ip": None,
                "dns_nameservers": [], "host_routes": [], "enable_dhcp": False, "name": "guests",
                "allocation_pools": [{"start": pool[0], "end": pool[1]}],
            }
        }  # fmt: skip

    def collection(self, kind: str) -> dict[str, dict[str, Any]] | None:
        return {"ports": self.ports, "networks": self.networks, "subnets": self.subnets}.get(kind)

    def new_port(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = str(uuid.uuid4())
        digits = number.replace("-", "")
        port: dict[str, Any] = {
            "id": number, "name": "", "network_id": NETWORK_ID, "status": "DOWN", "admin_state_up": True,
            "mac_address": asked.get("mac_address") or "52:54:00:" + ":".join(digits[at : at + 2] for at in (0, 2, 4)),
            "fixed_ips": [], "security_groups": [], "allowed_address_pairs": [], "extra_dhcp_opts": [],
            "device_id": "", "device_owner": "", "binding:vnic_type": "normal", "binding:profile": {},
            "binding:host_id": "", "port_security_enabled": False, "resource_request": None,
            "tenant_id": asked.get("project_id", ""), "project_id": asked.get("tenant_id", ""),
        }  # fmt: skip
        self.ports[number] = port
        return self.update(port, asked)

    def _free_address(self) -> str:
        taken = {one["ip_address"] for port in self.ports.values() for one in port["fixed_ips"]}
        first, last = (int(ipaddress.IPv4Address(end)) for end in self.pool)
        return next(
            address for number in range(first, last + 1) if (address := str(ipaddress.IPv4Address(number))) not in taken
        )

    def update(self, port: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        wanted = asked.get("fixed_ips") or port["fixed_ips"]
        given = [one["ip_address"] for one in wanted if one.get("ip_address")] or [self._free_address()]
        port.update(asked, fixed_ips=[{"subnet_id": SUBNET_ID, "ip_address": address} for address in given])
        bound = bool(port["binding:host_id"])
        details = {"bridge_name": self.bridge, "port_filter": True, "connectivity": "l2"}
        port["status"] = "ACTIVE" if bound else "DOWN"
        port["binding:vif_type"] = "bridge" if bound else "unbound"
        port["binding:vif_details"] = details if bound else {}
        return port


class Handler(BaseHTTPRequestHandler):
    """GET, POST, PUT and DELETE of `/v2.0/<kind>[/<id>]`."""

    protocol_version = "HTTP/1.1"
    network: Network

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_PUT(self) -> None:
        self._answer(self._body())

    def do_DELETE(self) -> None:
        self._answer(None)

    def _body(self) -> dict[str, Any]:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        return body if isinstance(body, dict) else {}

    def _answer(self, body: dict[str, Any] | None) -> None:
        url = urlsplit(self.path)
        parts = [part.removesuffix(".json") for part in url.path.split("/") if part][1:]
        with self.network.lock:
            status, answer = self._found(parts, body, parse_qsl(url.query))
        raw = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _found(
        self, parts: list[str], body: dict[str, Any] | None, query: list[tuple[str, str]]
    ) -> tuple[int, dict[str, Any] | None]:
        if not parts:
            return 200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": []}], "resources": []}
        kind, singular = parts[0].replace("-", "_"), parts[0].removesuffix("s")
        if kind == "quotas":
            return 200, {"quota": {"port": -1, "network": -1}}
        if kind == "extensions":
            return 200, {"extensions": []}
        if kind in _EMPTY and len(parts) == 1:
            return 200, {kind: []}
        things = self.network.collection(kind)
        if things is None or (len(parts) > 1 and parts[1] not in things):
            return 404, {"NeutronError": {"type": "NotFound", "message": self.path, "detail": ""}}
        if len(parts) == 1 and body is not None:
            return 201, {singular: self.network.new_port(body.get(singular, {}))}
        if len(parts) == 1:
            return 200, {kind: [thing for thing in things.values() if _fits(thing, query)]}
        if self.command == "DELETE":
            del things[parts[1]]
            return 204, None
        if body is not None:
            return 200, {singular: self.network.update(things[parts[1]], body.get(singular, {}))}
        return 200, {singular: things[parts[1]]}

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


def _fits(thing: dict[str, Any], query: list[tuple[str, str]]) -> bool:
    """Values of one key are alternatives, as in Neutron; what a thing does not have is not asked of it."""
    wanted: dict[str, set[str]] = {}
    for key, value in query:
        wanted.setdefault(key, set()).add(value)
    return all(values & has for key, values in wanted.items() if (has := _values(thing.get(key))))


def _values(value: object) -> set[str]:
    """As a query names them: of an address each part, `ip_address=10.0.0.1`; nothing where that cannot be asked for."""
    if isinstance(value, list):
        return {f"{name}={part}" for one in value if isinstance(one, dict) for name, part in one.items()}
    return {value} if isinstance(value, str) else set()


def main(address: str, port: str, bridge: str, cidr: str, first: str, last: str) -> None:
    Handler.network = Network(bridge, cidr, (first, last))
    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:7])
