"""`farm session evidence`: what lets a scenario that changed keep its version."""

import argparse
import hashlib
import json
from typing import Any

from farm.cli.context import Context
from farm.cli.errors import UsageError
from farm.cli.table import print_table
from farm.names import there_are
from farm.results import queries
from farm.results.queries import EVERYTHING
from farm.settings import CHECKOUT
from scenarios import versions
from scenarios.crossing import to_data
from scenarios.registry import SCENARIOS


def register(actions: Any) -> None:
    told = actions.add_parser(
        "evidence",
        help="whether an A/A session shows that a change of the farm's own code changed no figure",
        description="Compare the canary's level in A/A sessions of this checkout's code with that in A/A sessions of "
        "other code, on the same cluster under the same facts. Writes docs/no-effect/SESSION-SCENARIO.json and tells "
        "what an entry [[no_effect]] of scenarios/versions.toml needs of it; exit status 1 where it is not shown.",
    )
    told.add_argument("id", help="an A/A session's id, whole")
    told.add_argument("scenario", help="the scenario that is to keep its version")
    told.set_defaults(handler=write_evidence)


def write_evidence(arguments: argparse.Namespace, context: Context) -> int:
    from farm.limits import held_samples
    from farm.no_effect import NoEvidence, evidence

    if arguments.scenario not in SCENARIOS:
        raise UsageError(f"no scenario '{arguments.scenario}' {there_are(arguments.scenario, SCENARIOS)}")
    rows = queries.sessions(context.engine, EVERYTHING), queries.bundles(context.engine, EVERYTHING)
    samples = held_samples(context.engine, EVERYTHING, scenario=arguments.scenario)
    try:
        found = evidence(arguments.id, SCENARIOS[arguments.scenario], *rows, samples, CHECKOUT)
    except NoEvidence as reason:
        raise UsageError(str(reason)) from None
    content = json.dumps(to_data(found), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    file = CHECKOUT / versions.evidence_file(arguments.id, found.scenario)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    cells = [
        (one.metric, one.params, f"{one.ratio:.3f}", f"{one.low:.3f} to {one.high:.3f}", one.delta, one.shown)
        for one in found.metrics
    ]
    print_table(("metric", "params", "ratio", "interval", "δ", "shown"), cells, empty="no judged metric")
    print(f'\n{file}\nnew = "{found.digest}"\nsession = "{arguments.id}"')
    print(f'evidence = "{hashlib.sha256(content).hexdigest()}"')
    return 0 if found.metrics and all(one.shown for one in found.metrics) else 1
