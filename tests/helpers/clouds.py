"""An OpenStack of the farm's own as a cloud that somebody else runs, and a worker that is let into it."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scenarios.crossing import PlannedCloud, PlannedCluster, PlannedHost
from tests.helpers.deployments import deployed
from tests.helpers.local_clusters import CHECKOUT, FARM_HOME, planned_cluster
from tests.helpers.visits import ENTRY, NETWORK, entry_of
from workers.agent import AgentLink
from workers.hosts import links
from workers.hosts.ground import HeldObserver
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.stacks import openstack
from workers.stacks.openstack_client import Client

NAME = "somebodys"


@dataclass(frozen=True)
class SomebodysCloud:
    """It is up. `inside` begins commands that are to be run on a machine in its guests' network."""

    client: Client
    agent: AgentLink
    observer: str
    inside: tuple[str, ...]
    entry: Mapping[str, Any]  # of a clouds.yaml

    def identity(self, method: str, path: str, body: object = None) -> Any:
        """Ask the identity service, as its administrator."""
        headers = {"X-Auth-Token": self.client.token(), "Content-Type": "application/json"}
        url = f"{self.client.login.auth_url}{path}"
        content = None if body is None else json.dumps(body)
        asked: dict[str, Any] = {"method": method, "url": url, "headers": headers, "body": content, "limit_s": 60.0}
        told = self.agent.call("stacks.api.request", timeout_s=70.0, **asked)
        assert told["status"] < 300, told
        return json.loads(told["text"] or "null")

    def planned(self, *hosts: str, flavor: str = "") -> PlannedCluster:
        """As an inventory file tells of it."""
        places = tuple(PlannedHost(uri.replace("nova:", "at-") or uri, uri, "there/room-1") for uri in hosts)
        cloud = PlannedCloud(ENTRY, NETWORK, self.observer, flavor)
        return PlannedCluster(NAME, "openstack", places, storage_disks=0, storage_disk_mib=0, cloud=cloud)


@contextlib.contextmanager
def somebodys_cloud(home: Path) -> Iterator[SomebodysCloud]:
    """Up on hosts of its own, whose session is not the one that measures it."""
    for name in ("cache", "venv"):
        (home / name).symlink_to(FARM_HOME / name)
    local = LocalCluster(home, replace(planned_cluster("underneath", "local:backports"), storage_disks=4))
    try:
        cluster = local.up()
        with (
            SessionMark(cluster.folder, f"underneath-{secrets.token_hex(4)}") as mark,
            cluster.observer.agent(mark.session) as observer,
            deployed("openstack", cluster, mark, observer, home) as stack,
        ):
            assert isinstance(stack, openstack.Deployment)
            assert isinstance(cluster.observer, HeldObserver)
            yield SomebodysCloud(
                stack.client,
                observer,
                cluster.observer.address,
                ("nsenter", f"--net={links.namespace_path(cluster.observer.pid)}"),
                entry_of(stack),
            )
    finally:
        local.down()


def command(cloud: SomebodysCloud, *arguments: str) -> subprocess.Popen[str]:
    """`python -m workers …` on a machine in the guests' network."""
    return subprocess.Popen(
        [*cloud.inside, sys.executable, "-m", "workers", *arguments],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
