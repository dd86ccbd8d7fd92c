"""`farm session`: ask for one, list them, look at one, cancel one."""

import argparse
import datetime
import secrets
from dataclasses import replace
from typing import Any

from farm.campaigns import Question, aa_question, ask, on_demand_question, sweep_question
from farm.cli import no_effect
from farm.cli.context import Context, print_json
from farm.cli.errors import UsageError
from farm.cli.table import print_table
from farm.names import check_sweep, there_are
from farm.results.database import transact
from farm.results.queries import EVERYTHING, bundles, check_ins, outcomes
from farm.results.queries import session as find_session
from farm.results.queries import sessions as list_sessions
from farm.results.tables import CheckIn, Session
from farm.sessions import TRANSITIONS, SessionError, cancel, planned_scenarios, require_time
from farm.settings import RepositorySettings, ScenarioSettings, Settings
from scenarios import sweeps


def register(commands: Any) -> None:
    session = commands.add_parser(
        "session",
        help="ask for a session, list, show or cancel them",
        description="A session measures a list of revisions in randomised blocks on one cluster. "
        "The farm asks for its own; 'run' asks for one more.",
    )
    actions = session.add_subparsers(title="actions", metavar="ACTION", required=True)

    run = actions.add_parser(
        "run",
        help="queue a campaign for one commit",
        description="Queue a campaign for one commit; a running farm ('farm up') carries it out.",
        epilog="examples:\n"
        "  farm session run --revision 4f2a1b9 --base 1c0ffee --cluster birch\n"
        "  farm session run --quick --scenario boot     one block: shown, not judged\n"
        "  farm session run --sweep upload-parallel     every combination of a sweep\n"
        "  farm session run --aa                        the canary beside itself: noise",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--repository", metavar="NAME", help="a watched repository (default: the only one)")
    run.add_argument("--revision", metavar="COMMIT", help="what to measure (default: the newest check-in)")
    run.add_argument("--base", metavar="COMMIT", help="what to compare with (default: its parent)")
    run.add_argument("--cluster", metavar="NAME", action="append", help="may be repeated (default: all)")
    run.add_argument("--scenario", metavar="NAME", action="append", help="may be repeated (default: the settings')")
    run.add_argument("--quick", action="store_true", help="one block: a figure within minutes, shown as not judged")
    run.add_argument("--sweep", metavar="NAME", help="every combination of a sweep: the files of scenarios/sweeps/")
    run.add_argument("--aa", action="store_true", help="the canary beside itself: what differs is noise")
    run.add_argument("--json", action="store_true", help="print the queued sessions as JSON")
    run.set_defaults(handler=run_session)

    listing = actions.add_parser("list", help="all sessions, in the order they were asked for")
    listing.add_argument("--cluster", metavar="NAME")
    listing.add_argument("--state", metavar="STATE", help="queued, reserved, running, done, failed or cancelled")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    listing.set_defaults(handler=list_all)

    show = actions.add_parser("show", help="one session: its builds, outcomes and bundle")
    show.add_argument("id", help="a session's id, or the beginning of it")
    show.add_argument("--json", action="store_true", help="print as JSON")
    show.set_defaults(handler=show_one)

    no_effect.register(actions)

    stop = actions.add_parser("cancel", help="take a session off the queue, or end it where it runs")
    stop.add_argument("id", help="a session's id, or the beginning of it")
    stop.set_defaults(handler=cancel_one)


def run_session(arguments: argparse.Namespace, context: Context) -> int:
    from farm.scheduler import owner_of, watch

    context.require_clusters()
    repository = _repository(context, arguments.repository)
    clusters = [context.cluster(name).name for name in arguments.cluster or context.inventory]
    now = datetime.datetime.now(datetime.UTC)
    _check_asked(arguments)  # before the watch below queues what the farm asks by itself
    for warning in watch(context.engine, context.settings, context.inventory, now):
        raise UsageError(warning)
    seen = check_ins(context.engine, EVERYTHING, repository=repository.name)
    if not seen:
        raise UsageError(f"repository '{repository.name}' has no check-ins on branch {repository.branch}")
    canary = _check_in(seen, repository.canary or seen[0].commit).commit
    asked = seen[-1].commit if arguments.revision is None else arguments.revision
    subject = _check_in(seen, canary if arguments.aa else asked)
    base = _parent_commit(seen, subject) if arguments.base is None else _check_in(seen, arguments.base).commit
    question = _question(arguments, context.settings, repository, subject.commit, base, canary)
    owner = owner_of(context.settings)
    rows = transact(context.engine, lambda tx: ask(tx, context.settings, owner, clusters, question, now))
    queued = [_as_data(row) for row in rows]
    if arguments.json:
        print_json(queued)
    else:
        plural = "s" if len(queued) != 1 else ""
        print(
            f"queued {len(queued)} session{plural} for {subject.commit[:10]} on {', '.join(clusters)}: "
            "'farm session list' shows them, a running farm carries them out"
        )
    return 0


def _check_asked(arguments: argparse.Namespace) -> None:
    """Raises UsageError or BadData for scenarios and sweeps that do not exist or do not go together."""
    if arguments.aa and (arguments.revision or arguments.base or arguments.quick or arguments.sweep):
        raise UsageError("--aa deploys the canary beside itself: leave out --revision, --base, --quick and --sweep")
    planned_scenarios(tuple(ScenarioSettings(scenario) for scenario in arguments.scenario or ()))
    if arguments.sweep is None:
        return
    check_sweep(arguments.sweep)
    if arguments.scenario or arguments.quick or arguments.base:
        raise UsageError("--sweep says itself what is measured: leave out --scenario, --quick and --base")


def _question(
    arguments: argparse.Namespace,
    settings: Settings,
    repository: RepositorySettings,
    subject: str,
    base: str | None,
    canary: str,
) -> Question:
    """What the arguments ask for, under a campaign name of its own."""
    name = f"{repository.name}-{'aa' if arguments.aa else 'on-demand'}-{secrets.token_hex(4)}"
    if arguments.sweep is None:
        if arguments.aa:
            question = aa_question(repository, canary, name)
        else:
            question = on_demand_question(repository, subject, base, canary, name)
        chosen = tuple(ScenarioSettings(scenario) for scenario in arguments.scenario or ())
        return replace(
            question,
            scenarios=planned_scenarios(chosen) if chosen else None,
            blocks=(1,) if arguments.quick else None,
        )
    question = sweep_question(repository, subject, canary, sweeps.load(arguments.sweep), name)
    require_time(settings, question.builds, arguments.sweep)
    return question


def list_all(arguments: argparse.Namespace, context: Context) -> int:
    if arguments.state is not None and arguments.state not in TRANSITIONS:
        raise UsageError(f"no state '{arguments.state}' {there_are(arguments.state, TRANSITIONS)}")
    if arguments.cluster is not None:
        context.cluster(arguments.cluster)
    states = None if arguments.state is None else [arguments.state]
    rows = list_sessions(context.engine, EVERYTHING, cluster=arguments.cluster, states=states)
    if arguments.json:
        print_json([_as_data(row) for row in rows])
        return 0
    print_table(
        ("id", "state", "cluster", "purpose", "campaign", "ordinal", "blocks", "revisions", "message"),
        [
            (r.id, r.state, r.cluster, r.purpose, r.campaign, r.ordinal, r.blocks, len(r.builds), r.message or "")
            for r in rows
        ],
        empty="no sessions yet: 'farm up' asks for them"
        if states is None and arguments.cluster is None
        else "no such session",
    )
    return 0


def show_one(arguments: argparse.Namespace, context: Context) -> int:
    row = find_one(context, arguments.id)
    cells = outcomes(context.engine, EVERYTHING, session=row.id)
    brought = bundles(context.engine, EVERYTHING, session=row.id)
    if arguments.json:
        bundle_data = [{"sha256": b.sha256, "accepted": b.accepted, "reason": b.reason} for b in brought]
        print_json({**_as_data(row), "builds": row.builds, "outcomes": _counts(cells), "bundles": bundle_data})
        return 0
    print(
        f"session {row.id}: {row.state} on {row.cluster}, {row.purpose}, campaign {row.campaign}, ordinal {row.ordinal}"
    )
    if row.message:
        print(f"  {row.message}" + (f" (fault: {row.fault})" if row.fault else ""))
    for build in row.builds:
        print(f"  {build['label']}  as {', '.join(build['roles'])}")
    for line, count in sorted(_counts(cells).items()):
        print(f"  {count:4} × {line}")
    for bundle in brought:
        print(f"  bundle {bundle.sha256}: " + ("accepted" if bundle.accepted else f"rejected: {bundle.reason}"))
    return 0


def cancel_one(arguments: argparse.Namespace, context: Context) -> int:
    row = find_one(context, arguments.id)
    now = datetime.datetime.now(datetime.UTC)
    try:
        transact(context.engine, lambda tx: cancel(tx, row.id, now))
    except SessionError as error:
        raise UsageError(str(error)) from None
    print(f"session {row.id} is cancelled" + ("; what it runs is being ended" if row.state == "running" else ""))
    return 0


def _repository(context: Context, name: str | None) -> RepositorySettings:
    watched = {one.name: one for one in context.settings.farm.repository}
    if name is None and len(watched) == 1:
        return next(iter(watched.values()))
    if name not in watched:
        raise UsageError(f"name a watched repository with --repository: {', '.join(watched) or 'none is watched'}")
    return watched[name]


def _check_in(seen: list[CheckIn], prefix: str) -> CheckIn:
    found = [row for row in seen if row.commit.startswith(prefix) or row.revision.startswith(prefix)]
    if len(found) != 1:
        what = "matches more than one check-in" if found else "is no check-in the farm has seen"
        raise UsageError(f"'{prefix}' {what}; the newest is {seen[-1].commit[:10]}")
    return found[0]


def _parent_commit(seen: list[CheckIn], subject: CheckIn) -> str | None:
    return next((row.commit for row in seen if row.revision == subject.parent_revision), None)


def find_one(context: Context, prefix: str) -> Session:
    exact = find_session(context.engine, EVERYTHING, prefix)
    if exact is not None:
        return exact
    found = [row for row in list_sessions(context.engine, EVERYTHING) if row.id.startswith(prefix)]
    if len(found) != 1:
        raise UsageError(
            f"'{prefix}' is {'the beginning of several sessions' if found else 'no session'}: see 'farm session list'"
        )
    return found[0]


def _counts(cells: Any) -> dict[str, int]:
    """How often each (scenario, outcome, fault, reason) came about."""
    counts: dict[str, int] = {}
    for cell in cells:
        params = " ".join(f"{key}={value}" for key, value in sorted(cell.params.items()))
        told = f"{cell.scenario} {params}".strip() + f": {cell.outcome}"
        told += f", {cell.fault}" if cell.fault else ""
        told += f" ({cell.reason})" if cell.reason else ""
        counts[told] = counts.get(told, 0) + 1
    return counts


def _as_data(row: Session) -> dict[str, Any]:
    names = ("id", "state", "cluster", "purpose", "campaign", "ordinal", "repository", "revision", "base_revision")
    more = ("blocks", "rounds", "attempt", "progress", "message", "fault")
    times = {name: _iso(getattr(row, name)) for name in ("created_at", "started_at", "finished_at")}
    return {**{name: getattr(row, name) for name in (*names, *more)}, **times}


def _iso(time: datetime.datetime | None) -> str | None:
    return None if time is None else time.isoformat()
