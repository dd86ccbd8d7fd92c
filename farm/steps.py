"""What one build does: hand out the plan, run the session, bring its bundle back, admit it.

Buildbot's database sees a session's id, its attempt and a digest, never the plan or a patch. Each step settles
what it knows to have failed; what a lost worker or a stopped master leaves open, `farm.scheduler.settle` ends.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from buildbot.plugins import steps, util
from buildbot.process.buildstep import BuildStep, ShellMixin
from buildbot.process.logobserver import LogLineObserver
from buildbot.process.results import FAILURE, SUCCESS
from sqlalchemy import Engine
from sqlalchemy.orm import Session as Transaction
from twisted.internet import defer
from twisted.internet.threads import deferToThread
from twisted.python import log

from farm import campaigns, sessions
from farm.inventory import Cluster
from farm.results.database import transact
from farm.results.ingest import IngestResult, ingest
from farm.results.unpacking import MAX_UPLOAD_BYTES
from farm.sessions import Failure
from farm.settings import CHECKOUT, Settings
from scenarios.contract import Fault
from scenarios.crossing import PROGRESS_MARK, Progress
from scenarios.strict import BadData, parse_json

PLAN = "plan.json"
BUNDLE = "bundle.tar.gz"
_SIGTERM_TIME_S = 60  # for the session to sweep what it made
_MESSAGE_LENGTH = 500
_FAULT_OF_STATUS: Mapping[int, Fault] = {3: "farm", 4: "donor", 5: "farm"}


def incoming_dir(settings: Settings) -> Path:
    """Where bundles wait for their admission."""
    return settings.home / "incoming"


def session_steps(engine: Engine, settings: Settings, gate: "Gate", command: Sequence[str]) -> list[BuildStep]:
    """The steps of a session's build; `command` is run on the worker with the plan's name and where to write."""
    return [
        HandOutPlan(engine),
        RunSession(engine, [*command, PLAN, "--home", str(settings.home), "--out", BUNDLE]),
        steps.FileUpload(
            name="bring back the bundle",
            workersrc=BUNDLE,
            masterdest=util.Interpolate(f"{incoming_dir(settings)}/%(prop:session)s-%(prop:attempt)s.tar.gz"),
            maxsize=MAX_UPLOAD_BYTES,
            mode=0o600,
        ),
        AdmitBundle(gate),
        EndSession(engine),
    ]


def failure_of(status: int, last_line: str, *, timed_out: bool) -> Failure:
    """What a session program's exit status and last line on standard error say."""
    if timed_out:
        return Failure("farm", "took longer than its deadline and was ended")
    reason = last_line.strip()[:_MESSAGE_LENGTH] or f"the session program ended with status {status}"
    return Failure(_FAULT_OF_STATUS.get(status, "farm"), reason)


def read_progress(line: str) -> Progress | None:
    """The progress that a line of a session program's output tells, if it does."""
    if not line.startswith(PROGRESS_MARK):
        return None
    try:
        return parse_json(line.removeprefix(PROGRESS_MARK), Progress, source="progress")
    except BadData:
        return None


class HandOutPlan(steps.JSONStringDownload):
    """Begins the attempt, once only, and writes its plan on the worker."""

    def __init__(self, engine: Engine, **kwargs: Any) -> None:
        super().__init__({}, workerdest=PLAN, mode=0o600, name="hand out the plan", haltOnFailure=True, **kwargs)
        self._engine = engine

    @defer.inlineCallbacks
    def run(self) -> Any:
        identity, attempt = _attempt_of(self)
        request = self.build.requests[0].id
        try:
            session = yield deferToThread(
                transact, self._engine, lambda tx: sessions.begin(tx, identity, attempt, request, _now())
            )
        except sessions.SessionError as error:
            yield self.addCompleteLog("refused", f"{error}\n")
            return FAILURE
        self.setProperty("deadline_s", session.plan["deadline_s"], "plan")
        self.s = session.plan
        result = yield super().run()
        return result


class RunSession(ShellMixin, BuildStep):
    """Runs the session program, keeps its progress, and settles the attempt if it fails."""

    def __init__(self, engine: Engine, command: Sequence[str]) -> None:
        shell = self.setupShellMixin(
            {
                "command": list(command),
                "env": {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"},
                "logEnviron": False,
                "timeout": None,
                "maxTime": util.Property("deadline_s"),
                "sigtermTime": _SIGTERM_TIME_S,
            }
        )
        super().__init__(name="run the session", haltOnFailure=True, **shell)
        self._engine = engine

    @defer.inlineCallbacks
    def run(self) -> Any:
        identity, attempt = _attempt_of(self)
        output = _SessionOutput(self._engine, identity, attempt)
        self.addLogObserver("stdio", output)
        command = yield self.makeRemoteShellCommand()
        yield self.runCommand(command)
        status = command.rc
        if status is not None and not self.stopped and command.didFail():
            failure = failure_of(status, output.last_error_line, timed_out=self.timed_out)
            yield deferToThread(
                transact, self._engine, lambda tx: sessions.fail_attempt(tx, identity, attempt, failure, _now())
            )
        return command.results()


class _SessionOutput(LogLineObserver):
    """Writes the newest progress to the database, one write at a time; remembers the last error line."""

    def __init__(self, engine: Engine, identity: str, attempt: int) -> None:
        super().__init__()
        self._engine = engine
        self._identity, self._attempt = identity, attempt
        self._newest: Progress | None = None
        self._writing = False
        self.last_error_line = ""

    def outLineReceived(self, line: str) -> None:  # noqa: N802 - Buildbot's name
        progress = read_progress(line)
        if progress is not None:
            self._newest = progress
            self._write()

    def errLineReceived(self, line: str) -> None:  # noqa: N802 - Buildbot's name
        self.last_error_line = line if line.strip() else self.last_error_line

    def _write(self) -> None:
        if self._writing or self._newest is None:
            return
        progress, self._newest = self._newest, None
        self._writing = True
        writing = deferToThread(
            transact,
            self._engine,
            lambda tx: sessions.note_progress(tx, self._identity, self._attempt, progress),
        )
        writing.addErrback(log.err, f"session {self._identity}: progress is not kept")
        writing.addBoth(self._written)

    def _written(self, _result: Any) -> None:
        self._writing = False
        self._write()


class AdmitBundle(BuildStep):
    """Takes the bundle into the database, or rejects it whole and settles the attempt."""

    def __init__(self, gate: "Gate") -> None:
        super().__init__(name="admit the bundle", haltOnFailure=True)
        self._gate = gate

    @defer.inlineCallbacks
    def run(self) -> Any:
        result: IngestResult = yield deferToThread(self._gate.take_in, *_attempt_of(self))
        yield self.addCompleteLog("admission", f"{result.reason or 'accepted'}\n")
        return SUCCESS if result.accepted else FAILURE


class EndSession(BuildStep):
    """Whatever ended the build without a bundle and has not been settled is now; lost blocks are asked for again."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="end the session", alwaysRun=True, flunkOnFailure=False)
        self._engine = engine

    @defer.inlineCallbacks
    def run(self) -> Any:
        identity, attempt = _attempt_of(self)
        failure = Failure("farm", "its build ended without an admitted bundle")

        def settle(transaction: Transaction) -> None:
            sessions.fail_attempt(transaction, identity, attempt, failure, _now())
            campaigns.top_up(transaction, identity)

        yield deferToThread(transact, self._engine, settle)
        return SUCCESS


class Gate:
    """Where uploaded bundles are taken in. No dataclass: Buildbot logs what its steps are made of."""

    def __init__(self, engine: Engine, settings: Settings, inventory: Mapping[str, Cluster]) -> None:
        self._engine, self._settings, self._inventory = engine, settings, inventory

    def take_in(self, identity: str, attempt: int) -> IngestResult:
        """Ingest what was uploaded for the attempt and remove the upload; a rejected one fails the attempt."""
        file = incoming_dir(self._settings) / f"{identity}-{attempt}.tar.gz"
        result = ingest(self._engine, self._settings, self._inventory, file, _now())
        if result.accepted and (result.session, result.attempt) != (identity, attempt):
            # an earlier answer once more: known, stored once, and no answer to this plan
            reason = f"it is the answer of session {result.session}, attempt {result.attempt}"
            result = IngestResult(False, reason, result.session, result.attempt)
        if not result.accepted:
            failure = Failure("farm", f"bundle rejected: {result.reason}"[:_MESSAGE_LENGTH])
            transact(
                self._engine, lambda transaction: sessions.fail_attempt(transaction, identity, attempt, failure, _now())
            )
        file.unlink(missing_ok=True)
        return result

    def take_in_leftovers(self) -> None:
        """After a restart: what had arrived whole is taken in, what had not is removed."""
        incoming = incoming_dir(self._settings)
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for partial in incoming.glob("buildbot-transfer-*"):
            partial.unlink()
        for file in sorted(incoming.glob("*-*.tar.gz")):
            identity, _, attempt = file.name.removesuffix(".tar.gz").rpartition("-")
            try:
                self.take_in(identity, int(attempt))
            except ValueError:  # an attempt that is no number, or SessionError: an unknown session
                file.unlink(missing_ok=True)  # nobody asked for it


def _attempt_of(step: BuildStep) -> tuple[str, int]:
    return str(step.getProperty("session")), int(step.getProperty("attempt"))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
