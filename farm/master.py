"""The Buildbot master: one worker and one builder per cluster, and the service that drives our own queue.

Buildbot carries and records; what runs, when, and how often, `farm.scheduler` decides. Nothing can be started,
stopped or forced through Buildbot's own pages.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from buildbot.plugins import schedulers, util, worker
from buildbot.util.service import BuildbotService
from sqlalchemy import Engine
from twisted.internet import defer
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.python import log

from farm import scheduler, sessions
from farm.basedirs import LOOPBACK, buildbot_database_url, known_port, worker_password
from farm.inventory import Cluster, load_inventory
from farm.results.database import open_database, transact
from farm.scheduler import OpenSession
from farm.settings import CHECKOUT, Settings
from farm.steps import Gate, session_steps
from scenarios.crossing import harness_digest

_TURN_S = 1.0
_KEEPALIVE_S = 30
_LOG_BYTES = 16 << 20


def session_command(settings: Settings) -> tuple[str, ...]:
    """The session program on this machine. It is told to end when its worker dies, even by kill -9."""
    python = str(settings.home / "venv" / "bin" / "python")
    return ("setpriv", "--pdeathsig", "TERM", python, "-m", "workers", "session")


def build_config(settings: Settings, command: Sequence[str] = ()) -> dict[str, Any]:
    """Buildbot's configuration for these settings; `command` is the session program, by default ours."""
    inventory = load_inventory(settings.farm.inventory, settings.farm.clusters)
    engine = open_database(settings.database_url)
    gate = Gate(engine, settings, inventory)
    chosen = tuple(command) or session_command(settings)
    buildbot_port = known_port(settings, "buildbot_port")
    return {
        "title": "Hypervisor farm",
        "titleURL": f"http://{LOOPBACK}:{buildbot_port}/",
        "buildbotURL": f"http://{LOOPBACK}:{buildbot_port}/",
        "buildbotNetUsageData": None,
        "db": {"db_url": buildbot_database_url(settings)},
        "protocols": {"pb": {"port": f"tcp:{known_port(settings, 'worker_port')}:interface={LOOPBACK}"}},
        "workers": [
            worker.Worker(name, worker_password(settings, name), max_builds=1, keepalive_interval=_KEEPALIVE_S)
            for name in inventory
        ],
        "builders": [
            util.BuilderConfig(
                name=name,
                workernames=[name],
                factory=util.BuildFactory(session_steps(engine, settings, gate, chosen)),
                collapseRequests=False,
            )
            for name in inventory
        ],
        # Buildbot wants every builder to have a scheduler; nothing triggers this one
        "schedulers": [schedulers.Triggerable("unused", builderNames=list(inventory))],
        "services": [FarmService(engine, settings, inventory, gate)],
        "www": {
            "port": f"tcp:{buildbot_port}:interface={LOOPBACK}",
            # a role that nobody has: everything but looking is refused
            "authz": util.Authz(allowRules=[util.AnyControlEndpointMatcher(role="nobody")], roleMatchers=[]),
        },
        "logMaxSize": _LOG_BYTES,
        "collapseRequests": False,
    }


class FarmService(BuildbotService):
    """Takes a turn every second: settle, schedule, start builds. Looks at the repositories meanwhile."""

    name = "farm"

    def reconfigService(  # noqa: N802 - Buildbot's name
        self, engine: Engine, settings: Settings, inventory: Mapping[str, Cluster], gate: Gate
    ) -> Any:
        self._engine, self._settings, self._inventory, self._gate = engine, settings, inventory, gate
        return defer.succeed(None)

    @defer.inlineCallbacks
    def startService(self) -> Any:  # noqa: N802 - Buildbot's name
        yield super().startService()
        self._warnings: list[str] = []
        # what had arrived is admitted first, so that it need not be measured again
        yield self._guarded(lambda: deferToThread(self._gate.take_in_leftovers))
        yield self._guarded(lambda: deferToThread(scheduler.interrupt_all, self._engine, _now()))
        self._loops = [LoopingCall(self._guarded, self._turn), LoopingCall(self._guarded, self._watch)]
        for loop, interval_s in zip(self._loops, (_TURN_S, self._settings.farm.poll_interval_s), strict=True):
            loop.start(interval_s).addErrback(log.err, "farm: a loop ended")

    @defer.inlineCallbacks
    def stopService(self) -> Any:  # noqa: N802 - Buildbot's name
        for loop in self._loops:
            if loop.running:
                loop.stop()
        yield super().stopService()

    @defer.inlineCallbacks
    def _guarded(self, work: Any) -> Any:
        """Trouble in one turn is logged; the next one tries again."""
        try:
            yield work()
        except Exception:  # noqa: BLE001 - a loop that ended would stop the whole farm
            log.err(None, "farm: a turn failed and is tried again")

    @defer.inlineCallbacks
    def _watch(self) -> Any:
        warnings = yield deferToThread(scheduler.watch, self._engine, self._settings, self._inventory, _now())
        for warning in warnings:
            if warning not in self._warnings:
                log.msg(f"farm: {warning}")
        self._warnings = warnings

    @defer.inlineCallbacks
    def _turn(self) -> Any:
        before = yield deferToThread(scheduler.open_sessions, self._engine)
        live = self._live_builds()  # after `before`: see `scheduler.settle`
        after = yield deferToThread(self._settle_and_schedule, before, set(live), self._ready_clusters())
        cancelled = yield deferToThread(scheduler.cancelled_among, self._engine, set(live))
        yield self._stop_builds_of(cancelled)
        for one in after:
            if one.state == "reserved" and one.build_request is None:
                yield self._start_build(one)

    def _settle_and_schedule(self, before: Sequence[OpenSession], live: set[str], ready: set[str]) -> list[OpenSession]:
        scheduler.settle(self._engine, before, live, _now())
        scheduler.schedule(
            self._engine, self._settings, self._inventory, lambda: harness_digest(CHECKOUT), ready, _now()
        )
        return scheduler.open_sessions(self._engine)

    def _live_builds(self) -> dict[str, Any]:
        """Sessions whose build has not ended, with that build."""
        return {
            str(build.getProperty("session")): build
            for builder in self.master.botmaster.builders.values()
            for build in builder.building
        }

    def _ready_clusters(self) -> set[str]:
        """Clusters whose worker is connected and has nothing to do."""
        builders = self.master.botmaster.builders
        return {
            name
            for name in self._inventory
            if name in builders and not builders[name].building and builders[name].getAvailableWorkers()
        }

    @defer.inlineCallbacks
    def _start_build(self, one: OpenSession) -> Any:
        builder = yield self.master.data.get(("builders", one.cluster))
        _, requests = yield self.master.data.updates.addBuildset(
            waited_for=False,
            scheduler=None,
            sourcestamps=[{"codebase": "", "repository": "", "project": "", "branch": None, "revision": one.revision}],
            reason=f"session {one.session}, attempt {one.attempt}",
            properties={"session": (one.session, self.name), "attempt": (one.attempt, self.name)},
            builderids=[builder["builderid"]],
        )
        (request,) = requests.values()
        yield deferToThread(
            transact,
            self._engine,
            lambda tx: sessions.record_request(tx, one.session, one.attempt, request),
        )

    @defer.inlineCallbacks
    def _stop_builds_of(self, cancelled: Collection[str]) -> Any:
        """Requests are left alone, those too that Buildbot makes anew for a lost worker.

        `HandOutPlan` begins no attempt that nobody waits for, while Buildbot 4 never ends a build whose request is
        cancelled just when it starts.
        """
        for session, build in self._live_builds().items():
            if session in cancelled and not build.stopped:
                yield build.stopBuild(reason="the session was cancelled")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
