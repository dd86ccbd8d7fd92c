"""Stands in for `python -m workers session`: answers a plan of the scenario `probe` with a signed bundle.

It deploys and measures nothing. Each start is written to `<orders>/starts`. While `<orders>/hold` is there it
waits; `<orders>/refuse` makes it end with the exit status that the file holds.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from scenarios.crossing import PROGRESS_MARK, Plan, Progress, canonical_json, to_data
from scenarios.registry import SCENARIOS
from scenarios.strict import parse_json
from tests.helpers.bundles import Draft
from tests.helpers.probe import PROBE

SCENARIOS[PROBE.name] = PROBE
_HOLD_TIMEOUT_S = 60


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("orders", type=Path)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plan = parse_json(arguments.plan.read_text(), Plan, source=str(arguments.plan))
    with (arguments.orders / "starts").open("a") as starts:
        starts.write(f"{plan.session} {plan.attempt} {plan.lease.token} {os.getpid()}\n")
    print(PROGRESS_MARK + canonical_json(to_data(Progress(1, 2, "measuring"))), flush=True)
    give_up_at = time.monotonic() + _HOLD_TIMEOUT_S
    while (arguments.orders / "hold").exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    refusal = arguments.orders / "refuse"
    if refusal.exists():
        print("first this", file=sys.stderr)
        print("the host has no disk left", file=sys.stderr)
        return int(refusal.read_text())
    declared = {(PROBE.name, PROBE.version): {metric.name: metric for metric in PROBE.metrics}}
    Draft(plan, declared).pack(arguments.home / "keys" / plan.cluster.name, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
