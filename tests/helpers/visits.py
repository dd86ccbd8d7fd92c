"""An OpenStack on a cluster of ours as a cloud that somebody else runs, measured by who is let into it and no further."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenarios.crossing import PlannedCloud
from workers.builds import Build
from workers.hosts.base import Cloud, ClusterHosts
from workers.hosts.clouds import NOWHERE
from workers.hypervisors.cloud import CloudCluster
from workers.marks import SessionMark
from workers.stacks import deployers, external, openstack
from workers.stacks.clouds import login_of

ENTRY, NETWORK = "theirs", "guests"


def entry_of(stack: openstack.Deployment) -> dict[str, Any]:
    """Of a clouds.yaml."""
    login = stack.client.login
    auth = {
        "auth_url": login.auth_url.removesuffix("/v3"),
        "username": login.user,
        "password": login.password,
        "project_name": login.project,
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    return {"auth": auth, "region_name": login.region}


def let_in(home: Path, entry: Mapping[str, Any]) -> None:
    """Write the worker's clouds.yaml, as JSON, which is YAML."""
    file = home / "secrets" / "clouds.yaml"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps({"clouds": {ENTRY: dict(entry)}}))


def seen_as_a_cloud(cluster: ClusterHosts, home: Path) -> ClusterHosts:
    """What such a worker has of it: the observer's place, and how to log in."""
    planned = PlannedCloud(ENTRY, NETWORK, cluster.observer.address)
    return replace(cluster, hosts=(), storage=NOWHERE, cloud=Cloud(planned, login_of(home, ENTRY), ()))


@contextlib.contextmanager
def visited(build: Build, cluster: ClusterHosts, mark: SessionMark, home: Path) -> Iterator[external.Deployment]:
    """The stack "external" as a session has it on the OpenStack that is up on the cluster."""
    there = seen_as_a_cloud(cluster, home)
    assert there.cloud is not None
    with CloudCluster(there, there.cloud, home, mark.session, mark.folder) as hold:
        deployment = deployers.deploy(build, hold, lease=mark.session, run_dir=mark.folder / "deployment", home=home)
        assert isinstance(deployment, external.Deployment)
        with deployment:
            yield deployment
