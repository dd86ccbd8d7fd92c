"""The processes that make up a running farm, and where they are reached."""

import os
import sys
from collections.abc import Iterator, Sequence

from farm.basedirs import LOOPBACK, claim_port, known_port, prepare_master, prepare_worker
from farm.cli.context import Context
from farm.cli.processes import Component
from farm.settings import CHECKOUT


def prepare(context: Context) -> list[Component]:
    """Make every component's folder and claim its port; raises basedirs.CannotPrepare with one line."""
    settings = context.settings
    programs = [prepare_master(settings), *(prepare_worker(settings, cluster) for cluster in context.inventory)]
    port = claim_port(settings, "site_port")
    settings.site_dir.parent.mkdir(parents=True, exist_ok=True)
    components = [
        # a worker that is told to end lets its session sweep first
        Component(one.name, _bound(one.command), one.folder, one.environment, stop_timeout_s=75.0)
        for one in programs
    ]
    farm = [sys.executable, "-m", "farm.cli"]
    chosen = ["--settings", str(settings.file)] if settings.file else []
    environment = {**os.environ, "FARM_HOME": str(settings.home), "PYTHONPATH": str(CHECKOUT)}
    # it shares the machine with what is measured
    publish = ["nice", "-n", "10", *farm, *chosen, "publish", "--watch"]
    components.append(Component("publisher", _bound(publish), CHECKOUT, environment))
    serve = [sys.executable, "-m", "http.server", "--bind", LOOPBACK, "--directory", str(settings.site_dir), str(port)]
    components.append(Component("site", _bound(serve), CHECKOUT, environment))
    return components


def ports(context: Context) -> Iterator[int]:
    for name in ("site_port", "buildbot_port", "worker_port"):
        yield known_port(context.settings, name)


def addresses(context: Context) -> list[str]:
    """Lines that say where the running farm is reached."""
    settings = context.settings
    watched = ", ".join(f"{one.name} ({one.url}, branch {one.branch})" for one in settings.farm.repository)
    return [
        f"site:      http://{LOOPBACK}:{known_port(settings, 'site_port')}/",
        f"builds:    http://{LOOPBACK}:{known_port(settings, 'buildbot_port')}/  (for operators; read only)",
        f"watched:   {watched or 'no repository'}",
    ]


def _bound(command: Sequence[str]) -> list[str]:
    """The command, told to end when the supervisor dies, even by kill -9."""
    return ["setpriv", "--pdeathsig", "TERM", *command]
