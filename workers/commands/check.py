"""`python -m workers check`: look at a cluster of lent machines before anything is made on them; reads only."""

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import libvirt

from workers.commands import add_cluster_arguments, cluster_of, home_of
from workers.hosts.ssh import Login, SshCluster
from workers.lending import check
from workers.marks import known_prefixes


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("check", help="look at lent machines before a session; changes nothing")
    add_cluster_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ends with 1 where something is not in order."""
    cluster = SshCluster(home_of(arguments), cluster_of(arguments))
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors come as exceptions; no second copy on stderr
    folder = Path(tempfile.mkdtemp(prefix="farm-check-"))  # not the cluster's: a session may be using that
    try:
        hosts = cluster.hosts(Login(folder))
        worker = cluster.lacking()
        found = check(hosts, known_prefixes(cluster.folder))
    finally:
        shutil.rmtree(folder)
    told = {"worker": worker, "hosts": [{**asdict(one), "ok": one.ok} for one in found]}
    if arguments.json:
        print(json.dumps(told))
    else:
        for one in found:
            for answer in one.answers:
                print(f"{one.host}: {answer.question}: {answer.found}" + ("" if answer.ok else f" → {answer.remedy}"))
    return int(worker is not None or not all(one.ok for one in found))
