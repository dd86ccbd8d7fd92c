"""`python -m workers session PLAN`: carry out one plan; only a Buildbot step starts it."""

import argparse
import sys
from pathlib import Path
from typing import Any

from scenarios.contract import Failed
from scenarios.crossing import Plan
from scenarios.strict import BadData, parse_json
from workers.commands import add_home_argument, home_of
from workers.fencing import LeaseLost
from workers.session import run_session

FARM_FAULT, DONOR_FAULT, LEASE_LOST = 3, 4, 5


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("session", help="carry out one plan and write the signed bundle")
    parser.add_argument("plan", type=Path, help="the plan, a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="where the bundle goes (a .tar.gz)")
    add_home_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0: there is a bundle; 3, 4: there is none, by a fault of the farm or of the donor; 5: the lease is lost."""
    try:
        text = arguments.plan.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{arguments.plan}: {error}") from None
    plan = parse_json(text, Plan, source=str(arguments.plan))
    try:
        run_session(plan, home_of(arguments), arguments.out.resolve())
    except LeaseLost as error:
        print(error, file=sys.stderr)
        return LEASE_LOST
    except Failed as error:
        print(error, file=sys.stderr)
        return DONOR_FAULT if error.fault == "donor" else FARM_FAULT
    return 0
