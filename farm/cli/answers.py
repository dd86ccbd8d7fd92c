"""`farm results`, `compare` and `regressions`: what was measured and what it means, as a table or as JSON."""

import argparse
from collections.abc import Sequence
from typing import Any

from farm import answers, verdicts
from farm.cli.context import Context, print_json
from farm.cli.errors import UsageError
from farm.names import did_you_mean, there_are
from farm.results import queries
from farm.results.queries import EVERYTHING
from farm.sessions import planned_scenarios
from farm.settings import ScenarioSettings
from scenarios.registry import SCENARIOS

_RESULT_COLUMNS = (
    *("cluster", "revision", "scenario", "metric", "params", "value", "unit", "share", "block", "valid", "fidelity"),
)
_COMPARE_COLUMNS = ("cluster", "scenario", "metric", "ratio", "low", "high", "n", "replication", "delta", "verdict")
_REGRESSION_COLUMNS = (
    "cluster",
    "index",
    "revision",
    "scenario",
    "metric",
    "direction",
    "ratio",
    "low",
    "high",
    "state",
)


def register(commands: Any) -> None:
    results = commands.add_parser(
        "results",
        help="samples with their cluster, void ones included",
        description="Every sample: value, unit, its share of what is possible there, where it was taken, and why it is "
        "void where it is.",
        epilog="example: farm results --cluster birch --scenario boot --metric answer_ms --json",
    )
    for name in ("repository", "cluster", "scenario", "metric", "session", "revision"):
        results.add_argument(f"--{name}", help=f"only this {name}")
    results.add_argument(
        "--json", action="store_true", help="print as JSON, with everything that is known of each sample"
    )
    results.set_defaults(handler=show_results)

    compare = commands.add_parser(
        "compare",
        help="one cluster against another, or every check-in against its parent",
        description="With two clusters: one against the other, the ratio is first ÷ second, the unit is the session. "
        "Without: every check-in against its parent, the unit is the block. The verdict is 'different', "
        "'no difference beyond δ', 'inconclusive', or why there is none: 'not judged' where there is not enough yet, "
        "'declared not judged' where the scenario lets nobody be judged by a metric.",
        epilog="examples:\n  farm compare acorn birch\n  farm compare --revision 4f2a1b9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("clusters", nargs="*", metavar="CLUSTER", help="none, or two clusters")
    compare.add_argument("--revision", metavar="REV", help="only this revision or commit (the beginning is enough)")
    compare.add_argument("--json", action="store_true", help="print as JSON")
    compare.set_defaults(handler=show_comparisons)

    regressions = commands.add_parser(
        "regressions",
        help="the check-ins that made something slower or faster",
        description="Findings: a check-in, what it changed, by how much, and how sure that is.",
    )
    regressions.add_argument("--json", action="store_true", help="print as JSON")
    regressions.set_defaults(handler=show_regressions)


def show_results(arguments: argparse.Namespace, context: Context) -> int:
    from farm.limits import held_samples

    wanted = {name: getattr(arguments, name) for name in ("repository", "cluster", "scenario", "metric", "session")}
    if arguments.repository is not None:
        _check_repository(context, arguments.repository)
    if arguments.cluster is not None:
        context.cluster(arguments.cluster)
    if arguments.scenario is not None:
        planned_scenarios((ScenarioSettings(arguments.scenario),))
    if arguments.session is not None and queries.session(context.engine, EVERYTHING, arguments.session) is None:
        raise UsageError(f"'{arguments.session}' is no session: see 'farm session list'")
    if arguments.revision is not None:
        wanted["revision"] = _revision(context, arguments.revision)
    samples = held_samples(context.engine, EVERYTHING, **wanted)
    if arguments.metric is not None and not len(samples):
        _check_metric(arguments.metric, arguments.scenario)
    _print(answers.results(samples), _RESULT_COLUMNS, arguments.json)
    return 0


def show_comparisons(arguments: argparse.Namespace, context: Context) -> int:
    if len(arguments.clusters) not in (0, 2):
        raise UsageError("name two clusters, or none to compare check-ins with their parents")
    names = [context.cluster(name).name for name in arguments.clusters]
    rows = queries.comparisons(context.engine, EVERYTHING)
    if names:
        rows = [row for row in rows if [row.cluster, row.other_cluster] in (names, names[::-1])]
        if not arguments.revision and rows:
            newest = _newest_of(context, {row.revision for row in rows})
            rows = [row for row in rows if row.revision == newest]
    else:
        rows = [row for row in rows if row.between == "revisions"]
    if arguments.revision:
        revision = _revision(context, arguments.revision)
        rows = [row for row in rows if row.revision == revision]
    compared = answers.compare(rows)
    if not arguments.json:
        compared = [{**one, "verdict": verdicts.told(row)} for one, row in zip(compared, rows, strict=True)]
    _print(compared, _COMPARE_COLUMNS, arguments.json)
    return 0


def show_regressions(arguments: argparse.Namespace, context: Context) -> int:
    found = queries.findings(context.engine, EVERYTHING)
    check_ins = queries.check_ins(context.engine, EVERYTHING)
    _print(answers.regressions(found, check_ins), _REGRESSION_COLUMNS, arguments.json)
    return 0


def _check_repository(context: Context, name: str) -> None:
    """Raises UsageError for one that is not watched and of which nothing is known."""
    known = {one.name for one in context.settings.farm.repository}
    known |= {row.repository for row in queries.check_ins(context.engine, EVERYTHING)}
    if name not in known:
        raise UsageError(f"no repository '{name}' {there_are(name, sorted(known))}")


def _check_metric(name: str, scenario: str | None) -> None:
    """Raises UsageError for a metric that no scenario has, or not the one that is asked of."""
    asked = SCENARIOS.values() if scenario is None else [SCENARIOS[scenario]]
    known = sorted({metric.name for one in asked for metric in one.metrics})
    if name not in known:
        where = f"scenario '{scenario}' has" if scenario else "there is"
        raise UsageError(f"{where} no metric '{name}': {did_you_mean(name, known)} scenarios/README.md tells them")


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json(list(rows))
    elif rows:
        short = [{**row, "revision": row["revision"][:10]} if "revision" in row else row for row in rows]
        print(answers.text_table(short, columns))
    else:
        print("nothing yet: 'farm status' shows what is at work")


def _revision(context: Context, prefix: str) -> str:
    """A revision by the beginning of its own or its commit's name."""
    rows = queries.check_ins(context.engine, EVERYTHING)
    found = {row.revision for row in rows if row.revision.startswith(prefix) or row.commit.startswith(prefix)}
    if len(found) != 1:
        raise UsageError(
            f"'{prefix}' is {'more than one' if found else 'no'} check-in; the site's 'Check-ins' page lists them"
        )
    return found.pop()


def _newest_of(context: Context, revisions: set[str]) -> str:
    numbered = {row.revision: row.number for row in queries.check_ins(context.engine, EVERYTHING)}
    return max(revisions, key=lambda revision: numbered.get(revision, -1))
