"""One session, from the plan to the signed bundle. The way of the data, in the order it happens."""

import contextlib
import datetime
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from scenarios import parameters
from scenarios.contract import Failed, ScenarioError, Unsupported
from scenarios.crossing import (
    PROGRESS_MARK,
    SCHEMA,
    Facts,
    FidelityFact,
    Manifest,
    Outcome,
    Plan,
    PlannedBuild,
    PlannedScenario,
    Progress,
    ResolvedBuild,
    canonical_json,
    digest_of,
    harness_digest,
    to_data,
)
from scenarios.registry import SCENARIOS, identifying_params
from workers import blame, builds, facts, processes
from workers.bench import SessionBench
from workers.bundle import BundleWriter
from workers.clocks import told_jumps
from workers.fencing import Fence
from workers.limits import Limits
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.places import Hold, hold_on, place_of
from workers.sheet import Place, RoundSheet, Verification
from workers.stacks import deployers
from workers.sweep import sweep
from workers.volumes.base import BASE_MIB

_CHECKOUT = Path(__file__).resolve().parent.parent
_ALIVE_TIMEOUT_S = 10.0
_PREVIOUS_ATTEMPT_S = 90.0  # an earlier attempt that is being ended sweeps first


def run_session(plan: Plan, home: Path, out: Path) -> None:
    """Carry out `plan` and write the signed bundle to `out`.

    Raises Failed (farm or donor) or fencing.LeaseLost when there can be no bundle; what goes wrong with one
    revision or scenario is an outcome in the bundle instead.
    """
    harness = harness_digest(_CHECKOUT)
    if plan.harness != harness:
        raise Failed(
            "farm", f"this worker's code ({harness[:12]}) is not what the plan was made for ({plan.harness[:12]})"
        )
    started = _now()
    hosts = {resource.rpartition("/")[2] for resource in plan.lease.resources if resource.startswith("host:")}
    place = place_of(home, plan.cluster)
    fence = Fence(place.folder)
    with _deadline(plan.deadline_s), _mark(place.folder, plan.session) as mark:
        fence.enter(plan.lease, _now())
        cluster = place.up()
        _sweep(cluster, plan.session, hosts)
        _empty(mark.folder)  # of what an earlier attempt left
        bundle = BundleWriter(mark.folder / "bundle")
        with (
            _swept_afterwards(cluster, plan.session, hosts),
            hold_on(place.part(cluster, hosts), plan, home, mark.folder) as hypervisors,
        ):
            run = _Run(plan, home, mark.folder, fence, hypervisors, bundle)
            run.measure()
            bundle.add_facts(run.facts())
        manifest = Manifest(
            schema=SCHEMA,
            session=plan.session,
            attempt=plan.attempt,
            plan=digest_of(plan),
            harness=harness,
            cluster=plan.cluster.name,
            started=started.isoformat(),
            finished=_now().isoformat(),
            fidelity=run.fidelity.concluded,
            builds=tuple(run.resolved),
            outcomes=tuple(run.outcomes),
            files=bundle.digests(),
        )
        bundle.seal(manifest, home / "keys" / plan.cluster.name, out)
        _empty(mark.folder)


class _DeadlineOver(BaseException):
    """No Exception, so that nothing on the way takes it for a scenario's failure and goes on."""


@dataclass
class _Run:
    """The measuring part of a session."""

    plan: Plan
    home: Path
    folder: Path
    fence: Fence
    hypervisors: Hold
    bundle: BundleWriter
    resolved: list[ResolvedBuild] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    guest_images: dict[str, str] = field(default_factory=dict)
    fidelity: FidelityFact = FidelityFact("emulated", [])
    host_facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    clock_jumps_s: dict[str, list[float]] = field(default_factory=dict)
    spent_s: dict[str, float] = field(default_factory=dict)
    observer: dict[str, tuple[float, float]] = field(default_factory=dict)  # scenario → CPU seconds, seconds
    busy_before_s: float = field(default_factory=processes.busy_s)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)
    cpu_before_blocks_s: dict[str, float] = field(default_factory=dict)  # as `_cpu_s`
    cpu_probing_s: dict[str, float] = field(default_factory=dict)
    done: int = 0
    unfinished: tuple[SessionBench, Verification] | None = None

    def __post_init__(self) -> None:
        self.workshop = builds.Workshop(self.home, self.plan.session, self.folder)
        self.payload = Payload(self.folder / "payload")
        self.limits = Limits(
            self.hypervisors.links,
            self.hypervisors.observer,
            self.hypervisors.cluster.observer.address,
            self.hypervisors.cluster.storage,
            folder=self.folder,
            work_dir=self.hypervisors.work_dir,
            log=self._log,
        )

    def measure(self) -> None:
        """Blocks of (deploy ▸ rounds ▸ verify ▸ undeploy), every revision once in each, in random order.

        Limits are probed before, between and after them, when nothing is measured, checked or deployed.
        """
        self.host_facts = self.hypervisors.facts()
        facts.refuse_false_claim(self.plan.cluster.fidelity, self.host_facts)
        ready = {planned.revision: self._build(planned) for planned in self.plan.builds}
        for error in ready.values():
            if isinstance(error, Failed) and error.fault != "stack" and not self.resolved:
                raise error  # nothing could be built, and no revision is to blame: the session is tried again
        order = random.Random(self.plan.seed)
        self.cpu_before_blocks_s = self._cpu_s()
        for block in range(self.plan.blocks):
            self._probe(block)
            turn = list(self.plan.builds)
            order.shuffle(turn)
            for position, planned in enumerate(turn):
                self.fence.check(self.plan.lease)
                self._measure_revision(planned, ready[planned.revision], block, position)
        self._probe(self.plan.blocks)

    def facts(self) -> Facts:
        """What the cluster was during the session."""
        read = self.host_facts
        self.fidelity = self.hypervisors.fidelity(read)
        load: dict[str, Any] = {"before": self.load_before, "after": os.getloadavg()}
        load["cpu_s"] = self._cpu_s()
        load["cpu_before_blocks_s"] = self.cpu_before_blocks_s
        load["cpu_probing_s"] = {name: round(seconds, 2) for name, seconds in self.cpu_probing_s.items()}
        load["observer"] = {name: [round(one, 4) for one in both] for name, both in self.observer.items()}
        load["spent_s"] = {phase: round(seconds, 3) for phase, seconds in self.spent_s.items()}
        return Facts(
            declared=self.hypervisors.declared(read),
            hosts=read,
            clock_bounds_s={link.name: link.clock.bound_s for link in self.hypervisors.links},
            clock_jumps_s=self.clock_jumps_s,
            guest_images=self.guest_images,
            fidelity=self.fidelity,
            load=load,
            sizes_mib={"base image": BASE_MIB},
            store_disks=len(self.hypervisors.cluster.storage.disks),
            packages=self.hypervisors.packages(),
            operator_image=self.hypervisors.operator_image(),
        )

    def _probe(self, block: int) -> None:
        self._finish_round()
        self._tell("probe limits")
        before_s = self._cpu_s()
        with self._spending("probe"):
            self.bundle.add_probes(self.limits.probe(block))
        for name, seconds in self._cpu_s().items():
            self.cpu_probing_s[name] = self.cpu_probing_s.get(name, 0.0) + seconds - before_s[name]
        self._require_hosts()

    def _cpu_s(self) -> dict[str, float]:
        """CPU seconds so far: of the whole machine that the session runs on, of the session, and of its agents."""
        agents = {link.name: link.agent for link in self.hypervisors.links} | {"observer": self.hypervisors.observer}
        told = {name: agent.call("basics.own_cpu_s", timeout_s=_ALIVE_TIMEOUT_S) for name, agent in agents.items()}
        whole = {"machine": processes.busy_s() - self.busy_before_s, "session": time.process_time()}
        return {name: round(seconds, 2) for name, seconds in (whole | told).items()}

    @contextlib.contextmanager
    def _watching_the_observer(self, scenario: str) -> Iterator[None]:
        """What listening to guests costs while the scenario measures: CPU seconds and seconds."""
        before_s, began = self.hypervisors.observe("cpu_s"), time.monotonic()
        yield
        cpu_s, took_s = self.observer.get(scenario, (0.0, 0.0))
        spent_s = self.hypervisors.observe("cpu_s") - before_s
        self.observer[scenario] = cpu_s + spent_s, took_s + time.monotonic() - began

    def _build(self, planned: PlannedBuild) -> builds.Build | ScenarioError:
        """The revision's build, or why it has none."""
        self._tell(f"build {planned.label}")
        with self._spending("build"):
            try:
                build = builds.resolve(planned, self.workshop)
                self.guest_images[planned.revision] = self.hypervisors.guest_image_digest(build.recipe.guest)
            except Failed as error:
                self._log(f"{planned.label}: {error}")
                return error
        self.resolved.append(build.resolved)
        return build

    def _measure_revision(
        self, planned: PlannedBuild, build: builds.Build | ScenarioError, block: int, position: int
    ) -> None:
        """Deploy afresh, ask every scenario, undeploy. Whatever fails is this revision's outcome in this block."""
        if isinstance(build, ScenarioError):
            self._fail_all(planned, build, block, position)
            return
        self._tell(f"block {block + 1}/{self.plan.blocks} · {planned.label} · deploy")
        try:
            with self._deployed(build, f"{block}-{position}") as deployment:
                run_dir = self._run_dir(f"{block}-{position}")
                hosts = deployers.hosts_of(deployment, build, self.hypervisors, run_dir=run_dir, home=self.home)
                first = block % len(hosts)  # no host is always the first
                turned = [*hosts[first:], *hosts[:first]]
                store = deployers.store_of(deployment, self.hypervisors.observer, self.payload)
                for number in range(self.plan.rounds):
                    place = Place(self.plan.session, self.plan.attempt, block, number, position, planned.revision)
                    tests_dir = self.folder / f"tests-{block}-{position}-{number}"
                    suite = deployers.suite_of(deployment, build, self.hypervisors, run_dir=tests_dir)
                    bench = SessionBench(turned, store, self.hypervisors.now_s, suite)
                    self._measure_round(planned, build, bench, place)
        except Unsupported as error:
            self._fail_all(planned, error, block, position)
        except Failed as error:
            if error.fault != "stack":
                raise
            self._fail_all(planned, error, block, position)

    @contextlib.contextmanager
    def _deployed(self, build: builds.Build, name: str) -> Iterator[deployers.Deployment]:
        """The revision's stack while it is up."""
        with self._spending("deploy"):
            deployment = deployers.deploy(
                build,
                self.hypervisors,
                lease=self.plan.session,
                run_dir=self._run_dir(name),
                home=self.home,
                s3=any(scenario.params.get("style") == "s3" for scenario in self.plan.scenarios),
            )
        try:
            yield deployment
        finally:
            with self._spending("undeploy"):
                deployment.undeploy()
            for server, text in deployment.logs().items():
                self.bundle.add_log(f"{build.recipe.stack.deployer}-{name}-{server}.log", text)

    def _run_dir(self, name: str) -> Path:
        return self.folder / f"deployment-{name}"

    def _measure_round(self, planned: PlannedBuild, build: builds.Build, bench: SessionBench, place: Place) -> None:
        sheets: list[RoundSheet] = []
        self._finish_round()
        for scenario in self._in_turn(place):
            self._end_kept_guests(bench, sheets)
            self._tell(f"block {place.block + 1}/{self.plan.blocks} · {planned.label} · {_told(scenario)}")
            sheet = _sheet(scenario, place, build)
            with self._spending("measure"), self._watching_the_observer(scenario.name):
                self._ask(sheet, bench, scenario.params)
            sheets.append(sheet)
            self.done += 1
        self.unfinished = bench, Verification(sheets)
        with self._spending("verify"):
            self.unfinished[1].wait_for_deployed()

    def _end_kept_guests(self, bench: SessionBench, sheets: list[RoundSheet]) -> None:
        """What guests do that are kept for their checks must not disturb the next scenario: check them now."""
        if bench.keeps_guests:
            with self._spending("verify"):
                Verification(sheets).wait()
                bench.release()

    def _in_turn(self, place: Place) -> list[PlannedScenario]:
        """The scenarios in their order; a scenario's own cells in an order drawn anew for each deployment."""
        dice = random.Random(f"{self.plan.seed}/{place.block}/{place.round}/{place.order}")
        drawn = dice.sample(self.plan.scenarios, len(self.plan.scenarios))
        names = list(dict.fromkeys(scenario.name for scenario in self.plan.scenarios))
        return sorted(drawn, key=lambda scenario: names.index(scenario.name))

    def _finish_round(self) -> None:
        """Wait for the last round's checks and keep what it brought: before anything else is measured."""
        if self.unfinished is None:
            return
        bench, verification = self.unfinished
        self.unfinished = None
        with self._spending("verify"):
            verification.wait()
            bench.release()
        jumps_s = self.hypervisors.clock_jumps_s()
        for host, jump_s in jumps_s.items():
            self.clock_jumps_s.setdefault(host, []).append(round(jump_s, 6))
        for sheet in verification.sheets:
            sheet.distrust(told_jumps(jumps_s))
            self._keep(sheet)
        self._require_hosts()

    def _ask(self, sheet: RoundSheet, bench: SessionBench, params: dict[str, Any]) -> None:
        try:
            sheet.scenario.measure(bench, sheet, parameters.read(sheet.scenario.parameters, params))
        except ScenarioError as error:
            sheet.fail(error, {})
        except Exception as error:  # noqa: BLE001  our bug must not take the other scenarios with it
            self._log(traceback.format_exc())
            if not any(cell.error for cell in sheet.cells):
                sheet.fail(Failed("farm", f"the scenario broke: {error!r}"), {})

    def _fail_all(self, planned: PlannedBuild, error: ScenarioError, block: int, position: int) -> None:
        for number in range(self.plan.rounds):
            place = Place(self.plan.session, self.plan.attempt, block, number, position, planned.revision)
            for scenario in self.plan.scenarios:
                sheet = _sheet(scenario, place)
                sheet.fail(error, {})
                self._keep(sheet)
                self.done += 1

    def _keep(self, sheet: RoundSheet) -> None:
        self.bundle.add_samples(sheet.samples())
        self.outcomes += sheet.outcomes()
        place = sheet.place
        for outcome in sheet.outcomes():
            told = [f"{place.block}-{place.order} {outcome.scenario} {outcome.params or ''}: {outcome.outcome}"]
            told += [outcome.reason] if outcome.reason else []
            self._log(" · ".join([*told, *outcome.evidence]))

    def _require_hosts(self) -> None:
        """A host that is gone ends the session: whatever came after would be its absence, not a figure."""
        for link in self.hypervisors.links:
            link.agent.call("basics.clock_ns", timeout_s=_ALIVE_TIMEOUT_S)

    def _tell(self, what: str) -> None:
        plan = self.plan
        total = plan.blocks * plan.rounds * len(plan.builds) * len(plan.scenarios)
        print(PROGRESS_MARK + canonical_json(to_data(Progress(self.done, total, what))), flush=True)

    def _log(self, text: str) -> None:
        self.bundle.add_log("session.log", f"{_now().isoformat()} {text}")

    @contextlib.contextmanager
    def _spending(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent_s[phase] = self.spent_s.get(phase, 0.0) + time.monotonic() - began


def _sheet(planned: PlannedScenario, place: Place, build: builds.Build | None = None) -> RoundSheet:
    scenario, params = SCENARIOS[planned.name], identifying_params(planned)
    return RoundSheet(scenario, place, params, blame=blame.of([] if build is None else build.hypervisor))


def _told(planned: PlannedScenario) -> str:
    """As progress names it."""
    return " ".join([planned.name, *(f"{name}={value}" for name, value in sorted(planned.params.items()))])


@contextlib.contextmanager
def _mark(cluster_folder: Path, session: str) -> Iterator[SessionMark]:
    """The session's mark; waits for an earlier attempt that is being ended. Raises Failed (farm)."""
    give_up_s = time.monotonic() + _PREVIOUS_ATTEMPT_S
    with contextlib.ExitStack() as taken:
        while True:
            try:
                mark = taken.enter_context(SessionMark(cluster_folder, session))
                break
            except Failed:
                if time.monotonic() > give_up_s:
                    raise
            time.sleep(1.0)
        yield mark


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """Raises Failed (farm) in the main thread when the time is up."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise _DeadlineOver

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _DeadlineOver:
        raise Failed("farm", f"the session did not end within its deadline of {seconds} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _swept_afterwards(cluster: Any, session: str, hosts: set[str]) -> Iterator[None]:
    """What cannot be cleared now is told, and refuses the next session; what was measured before it stands."""
    try:
        yield
    finally:
        try:
            _sweep(cluster, session, hosts)
        except Failed as failure:
            print(f"could not be cleared: {failure}", file=sys.stderr)


def _empty(folder: Path) -> None:
    """Remove everything in the session's folder but its lock."""
    for path in folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sweep(cluster: Any, session: str, hosts: set[str]) -> None:
    """Raises the first thing that could not be cleared: on a host that is not clean nothing is measured."""
    swept = sweep(cluster, own=session, hosts=hosts)
    left_over = [*swept.guests, *swept.processes, *swept.mounts, *swept.loops, *swept.things]
    if left_over:
        print(f"swept: {', '.join(left_over)}", file=sys.stderr)
    if swept.failures:
        raise swept.failures[0]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
