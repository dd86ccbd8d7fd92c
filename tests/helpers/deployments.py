"""Stacks of `stacks/`, deployed as they stand there."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from farm import stacks
from scenarios.crossing import PlannedBuild, revision_of, to_data
from tests.helpers.visits import visited
from workers.agent import AgentLink
from workers.builds import Workshop, resolve
from workers.hosts.base import ClusterHosts
from workers.marks import SessionMark
from workers.stacks import openstack, swift
from workers.stacks.deployers import Deployment

ON_HOSTS = "-on-hosts"


def planned_stack(name: str) -> PlannedBuild:
    """A stack of `stacks/`, or `swift-on-hosts`: that of Swift with its storage servers on two hosts."""
    recipe, lock = stacks.load(name.removesuffix(ON_HOSTS))
    if name.endswith(ON_HOSTS):
        recipe = replace(recipe, swift=replace(recipe.swift, hosts=2))
    return PlannedBuild(revision_of({name: "0" * 40}), name, ("subject",), "", "", recipe=to_data(recipe), lock=lock)


def deployed(
    stack: str, cluster: ClusterHosts, mark: SessionMark, observer: AgentLink, home: Path
) -> AbstractContextManager[Deployment]:
    """To be entered. The stack "external" is the OpenStack that is up on the cluster already, and in `home`'s clouds."""
    build = resolve(planned_stack(stack), Workshop(home, mark.session, mark.folder))
    run_dir = mark.folder / f"deployment-{len(list(mark.folder.glob('deployment-*')))}"
    if stack == "external":
        return visited(build, cluster, mark, home)
    if build.recipe.stack.deployer == "swift":
        software = home / "cache" / "software"
        return swift.deploy(build, cluster, lease=mark.session, run_dir=run_dir, software=software)
    return openstack.deploy(build, cluster, observer, lease=mark.session, run_dir=run_dir, home=home)
