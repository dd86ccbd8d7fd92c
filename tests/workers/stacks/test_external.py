"""Recipes and clusters that do not go together: an external stack is nowhere but in a cloud, and nothing else is there."""

from pathlib import Path

import pytest

from farm import stacks
from scenarios.contract import Unsupported
from scenarios.crossing import PlannedCloud, PlannedHost, ResolvedBuild
from scenarios.recipe import Recipe
from scenarios.strict import BadData, parse_toml
from workers.builds import Build
from workers.hosts.base import Cloud, ClusterHosts
from workers.hosts.clouds import NOWHERE, WorkerObserver
from workers.hypervisors.cloud import CloudCluster
from workers.hypervisors.qemu import QemuCluster
from workers.places import Hold
from workers.stacks import deployers
from workers.stacks.openstack_client import Login

CLOUD = Cloud(
    PlannedCloud("theirs", "guests", "10.0.0.9"),
    Login("https://cloud.example/v3", "measurer", "s3cret", "farm"),
    (PlannedHost("anywhere", "nova", "there"),),
)


def build_of(stack: str) -> Build:
    recipe, _ = stacks.load(stack)
    return Build(ResolvedBuild("0" * 64, "", "", {}), recipe, {}, Path("/nowhere"))


def hosts_of(folder: Path, cloud: Cloud | None) -> ClusterHosts:
    return ClusterHosts("theirs", folder, (), WorkerObserver("10.0.0.9"), NOWHERE, "", (), cloud)


def deploy(stack: str, hold: Hold, folder: Path) -> None:
    deployers.deploy(build_of(stack), hold, lease="a-session", run_dir=folder / "run", home=folder)


@pytest.mark.parametrize("stack", ["swift", "openstack"])
def test_nothing_is_deployed_on_a_cloud_that_is_there(tmp_path: Path, stack: str) -> None:
    hold = CloudCluster(hosts_of(tmp_path, CLOUD), CLOUD, tmp_path, "a-session", tmp_path)
    with pytest.raises(Unsupported, match="nothing is deployed on a cloud that is there already"):
        deploy(stack, hold, tmp_path)


def test_an_external_stack_is_in_a_cloud_and_nowhere_else(tmp_path: Path) -> None:
    hold = QemuCluster(hosts_of(tmp_path, None), tmp_path, "a-session")
    with pytest.raises(Unsupported, match="which this cluster is not"):
        deploy("external", hold, tmp_path)


def test_an_external_recipe_has_no_parts() -> None:
    head = '[stack]\nname = "theirs"\ndeployer = "external"\n'
    assert parse_toml(head, Recipe, source="stack.toml").component == ()
    for more in (
        'lock = "lock.txt"\n' + head,
        head + '[[component]]\nname = "nova"\nsource = { pypi = "nova==33.0.2" }\n',
    ):
        with pytest.raises(BadData, match="it has neither components nor a lock"):
            parse_toml(more, Recipe, source="stack.toml")
    with pytest.raises(BadData, match="needs a component named 'swift'"):
        parse_toml(head.replace("external", "swift"), Recipe, source="stack.toml")
