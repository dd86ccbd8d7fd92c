"""`farm up`, `down` and `status`: the farm on this machine."""

import argparse
import datetime
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from farm.cli import components, local_clusters
from farm.cli.context import Context, print_json
from farm.cli.errors import UsageError
from farm.cli.example import make_example_repository
from farm.cli.processes import ProcessTable
from farm.cli.progress import UNFINISHED, SessionView, progress_line, time_left
from farm.cli.supervisor import Supervisor, supervisor_pid
from farm.reservations import Held, held_between
from farm.results import queries
from farm.results.database import reading
from farm.results.queries import EVERYTHING
from farm.results.tables import Session
from farm.sessions import planned_scenarios
from farm.settings import CHECKOUT
from scenarios.crossing import canonical_json, to_data

_READY_TIMEOUT_S = 60.0
_TICK_S = 1.0
_TELL_EVERY_S = 30.0  # where no terminal shows a line that changes in place


def register(commands: Any) -> None:
    up = commands.add_parser(
        "up",
        help="start the farm on this machine",
        description="Start the farm: the Buildbot master, a worker for each cluster, publication and the site. "
        "Without an option it goes on in the background; 'farm down' ends it.",
    )
    how = up.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="measure what is new, publish, tell what was found, and end")
    how.add_argument("--attach", action="store_true", help="stay here and tell what happens, until Ctrl-C")
    up.set_defaults(handler=run_up)

    down = commands.add_parser(
        "down",
        help="end the farm and take its local clusters down",
        description="End the farm's processes and take local clusters down. What was measured stays; "
        "what is not the farm's is not touched.",
    )
    down.set_defaults(handler=run_down)

    status = commands.add_parser("status", help="what runs, how far it is, and where the site is")
    status.add_argument("--json", action="store_true", help="print as JSON")
    status.set_defaults(handler=run_status)


def run_up(arguments: argparse.Namespace, context: Context) -> int:
    _require_what_it_needs(context)
    if not (arguments.once or arguments.attach):
        return _up_in_background(context)
    supervisor = _start(context)
    try:
        return _measure_once(context, supervisor) if arguments.once else _serve(context, supervisor)
    except KeyboardInterrupt:
        print("\nending; run it again and it goes on where it stood", flush=True)
        return 130 if arguments.once else 0  # this is how an attached farm is meant to be ended
    finally:
        _stop(context, supervisor)


def run_down(arguments: argparse.Namespace, context: Context) -> int:
    home = context.settings.home
    pid = supervisor_pid(home / "run" / "supervisor.lock")
    if pid is not None and not _end_process(pid):
        raise UsageError(f"the farm's supervisor (pid {pid}) did not end within {_READY_TIMEOUT_S:.0f} s")
    Supervisor(home, []).stop()
    refusals = local_clusters.take_down(context)
    for refusal in refusals:
        print(refusal, file=sys.stderr)
    print("the farm is down" + (", but for the clusters named above" if refusals else ""))
    return 2 if refusals else 0


def run_status(arguments: argparse.Namespace, context: Context) -> int:
    state = _status(context)
    if arguments.json:
        print_json(state)
        return 0
    up = state["processes"]
    print("processes: " + (", ".join(f"{name} {'runs' if pid else 'is down'}" for name, pid in up.items()) or "none"))
    print(f"work:      {state['progress']}")
    for reservation in state["reservations"]:
        print(f"reserved:  {reservation['resource']} by {reservation['holder']} until {reservation['until']}")
    there = Path(state["site"]).is_file()
    print(f"site:      {state['site']}" + ("" if there else " (not written yet: the first session's end writes it)"))
    return 0


def _require_what_it_needs(context: Context) -> None:
    """Raises UsageError before anything is made or started."""
    home = context.settings.home
    if not context.settings.farm.repository:
        raise UsageError(f"{context.settings.file} watches no repository: add a [[repository]] with name and url")
    context.require_clusters()
    if not (home / "venv" / "bin" / "python").exists():
        raise UsageError(f"{home} is not set up: run FARM_HOME={shlex.quote(str(home))} ./setup.sh first")


def _start(context: Context) -> Supervisor:
    """Prepare and start everything; what a killed farm left running is ended first, since it would hold the ports."""
    from farm.scheduler import watch

    home = context.settings.home
    if (pid := supervisor_pid(home / "run" / "supervisor.lock")) is not None:
        raise UsageError(f"the farm runs already (pid {pid}): 'farm status' shows it, 'farm down' ends it")
    Supervisor(home, []).stop()
    prepared = components.prepare(context)
    if context.settings.file is None:
        make_example_repository(Path(context.settings.farm.repository[0].url))
    _ = context.engine  # made and migrated before several processes open it
    local_clusters.make_keys(context)
    # before the master does, so that an empty queue means that nothing is new
    for warning in watch(context.engine, context.settings, context.inventory, _now()):
        print(warning, file=sys.stderr)
    supervisor = Supervisor(home, prepared)
    supervisor.start()
    return supervisor


def _stop(context: Context, supervisor: Supervisor) -> None:
    supervisor.stop()
    for refusal in local_clusters.take_down(context):
        print(refusal, file=sys.stderr)


def _measure_once(context: Context, supervisor: Supervisor) -> int:
    """Until every session asked for has ended and its figures are on the site."""
    from farm.judge import judge
    from farm.scheduler import watch
    from reports.site import is_current, publish

    teller = _Teller()
    first_page = not _has_figures(context)
    while True:
        supervisor.watch()
        sessions = views(context)
        if first_page and _has_figures(context) and is_current(context.engine, context.settings, context.inventory):
            first_page = False
            teller.say(f"a first, provisional page is there: {context.settings.site_dir / 'index.html'}")
        teller.progress(progress_line(sessions, turns(context), _now()))
        if not any(session.state in UNFINISHED for session in sessions) and not _reserved(context):
            # a build that has ended holds nothing any more, and has asked for what it lost
            judge(context.engine, context.settings, context.inventory, _now())
            watch(context.engine, context.settings, context.inventory, _now())  # a finding may ask for a culprit
            if not any(session.state in UNFINISHED for session in views(context)):
                break
        time.sleep(_TICK_S)
    publish(context.engine, context.settings, context.inventory, _now())
    _summary(context)
    return 0


def _serve(context: Context, supervisor: Supervisor) -> int:
    teller = _Teller()
    for line in components.addresses(context):
        teller.say(line)
    teller.say("a new check-in is measured by itself; Ctrl-C ends the farm")
    while True:
        supervisor.watch()
        teller.progress(progress_line(views(context), turns(context), _now()))
        time.sleep(_TICK_S)


def _up_in_background(context: Context) -> int:
    home = context.settings.home
    lock = home / "run" / "supervisor.lock"
    if (pid := supervisor_pid(lock)) is not None:
        print(f"the farm runs already (pid {pid})")
        return 0
    (home / "log").mkdir(parents=True, exist_ok=True)
    log = home / "log" / "farm.log"
    settings = ["--settings", str(context.settings.file)] if context.settings.file else []
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "farm.cli", *settings, "up", "--attach"],
            cwd=CHECKOUT,
            env={**os.environ, "FARM_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while supervisor_pid(lock) is None or not all(_listens(port) for port in components.ports(context)):
        if process.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise UsageError(f"the farm did not start: {last[0].removeprefix('farm: ')} (log: {log})")
        time.sleep(0.2)
    for line in components.addresses(context):
        print(line)
    return 0


class _Teller:
    """On a terminal one line that changes in place; elsewhere a line now and then, when it says something new."""

    def __init__(self) -> None:
        self._in_place = sys.stdout.isatty()
        self._began_s = time.monotonic()
        self._told = ""
        self._told_at_s = 0.0

    def say(self, line: str) -> None:
        print(("\r\x1b[K" if self._in_place else "") + line, flush=True)

    def progress(self, line: str) -> None:
        elapsed_s = int(time.monotonic() - self._began_s)
        stamped = f"[{elapsed_s // 60:02}:{elapsed_s % 60:02}] {line}"
        if self._in_place:
            print(f"\r\x1b[K{stamped}"[: os.get_terminal_size().columns + 4], end="", flush=True)
        elif line != self._told and time.monotonic() - self._told_at_s >= _TELL_EVERY_S:
            print(stamped, flush=True)
            self._told, self._told_at_s = line, time.monotonic()


def views(context: Context) -> list[SessionView]:
    """Every session as progress sees it."""
    by_default = [to_data(one) for one in planned_scenarios(context.settings.farm.scenario)]
    return [_view(row, by_default) for row in queries.sessions(context.engine, EVERYTHING)]


def _view(row: Session, by_default: Sequence[Mapping[str, Any]]) -> SessionView:
    asked = by_default if row.scenarios is None else row.scenarios
    return SessionView(
        row.id, row.cluster, row.purpose, row.campaign, row.ordinal, row.state,
        canonical_json(asked), row.blocks * row.rounds * len(row.builds) * len(asked),
        row.progress, row.started_at, row.finished_at,
    )  # fmt: skip


def turns(context: Context) -> Mapping[str, str]:
    return {name: cluster.machine or name for name, cluster in context.inventory.items()}


def _has_figures(context: Context) -> bool:
    return any(session.state == "done" for session in views(context))


def _reserved(context: Context) -> list[Held]:
    """What is promised to anybody now."""
    with reading(context.engine) as transaction:
        return held_between(transaction, _now(), _now())


def _summary(context: Context) -> None:
    from reports.headlines import finding_sentences

    print("\nwhat was found:")
    for sentence in finding_sentences(context.engine, context.inventory) or [
        "no check-in made anything slower or faster"
    ]:
        print(f"  {sentence}")
    for row in queries.sessions(context.engine, EVERYTHING, states=["failed"]):
        print(f"  session {row.id} on {row.cluster} failed: {row.message} (fault: {row.fault})")
    print(f"the site: {context.settings.site_dir / 'index.html'}")


def _status(context: Context) -> dict[str, Any]:
    table = ProcessTable(context.settings.home)
    sessions = views(context)
    counts: dict[str, int] = {}
    for session in sessions:
        counts[session.state] = counts.get(session.state, 0) + 1
    live = _reserved(context)
    return {
        "processes": {name: table.pid_of(name) for name in table.names()},
        "sessions": counts,
        "progress": progress_line(sessions, turns(context), _now()),
        "left_s": [round(seconds) for seconds in time_left(sessions, turns(context), _now())],
        "reservations": [
            {"resource": r.resource, "holder": r.holder, "until": r.until.isoformat(timespec="seconds")} for r in live
        ],
        "site": str(context.settings.site_dir / "index.html"),
    }


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_process(pid: int) -> bool:
    os.kill(pid, 15)
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
