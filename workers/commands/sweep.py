"""`python -m workers sweep`: clear away what ended sessions left on a cluster."""

import argparse
import json
from dataclasses import fields
from typing import Any

from workers.commands import add_cluster_arguments, cluster_of, home_of
from workers.places import place_of
from workers.sweep import sweep


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("sweep", help="clear away what ended sessions left on a cluster")
    add_cluster_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ends with 5 when something could not be cleared."""
    swept = sweep(place_of(home_of(arguments), cluster_of(arguments)).up())
    told = {field.name: list(getattr(swept, field.name)) for field in fields(swept)}
    told["failures"] = [f"{failure.fault}: {failure}" for failure in swept.failures]
    if arguments.json:
        print(json.dumps(told))
    else:
        for kind, items in told.items():
            for item in items:
                print(f"{kind}: {item}")
    return 5 if swept.failures else 0
