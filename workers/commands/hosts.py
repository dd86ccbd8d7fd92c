"""`python -m workers hosts up|down|status`: a local cluster's hosts."""

import argparse
import json
import time
from dataclasses import asdict
from typing import Any

from workers.commands import add_cluster_arguments, cluster_of, home_of
from workers.marks import live_sessions
from workers.places import Place, place_of


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("hosts", help="bring a local cluster's hosts up or down, or say what is there")
    parser.add_argument("action", choices=("up", "down", "status"))
    add_cluster_arguments(parser)
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="S",
        help="for 'down': wait so long for a session to end (default 0)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`status` ends with 0 when all hosts answer, else 1."""
    cluster = place_of(home_of(arguments), cluster_of(arguments))
    if arguments.action == "up":
        cluster.up()
    if arguments.action == "down":
        _wait_for_sessions(cluster, arguments.patience)
        cluster.down()
    hosts = cluster.status()
    if arguments.json:
        print(json.dumps({"hosts": [asdict(host) for host in hosts]}))
    else:
        for host in hosts:
            state = "down" if host.pid is None else "up" if host.answers else "up, but its libvirtd does not answer"
            print(f"{host.name}: {state}" + (f", guests: {', '.join(host.guests)}" if host.guests else ""))
    return int(arguments.action == "status" and not all(host.answers for host in hosts))


def _wait_for_sessions(cluster: Place, patience_s: float) -> None:
    """One that was told to end sweeps first; `down` refuses if it has not ended by then."""
    give_up_s = time.monotonic() + patience_s
    while live_sessions(cluster.folder) and time.monotonic() < give_up_s:
        time.sleep(0.2)
