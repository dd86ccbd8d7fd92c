"""`farm cluster`: a look at what somebody lends, before the farm uses it."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from farm.cli.context import Context, print_json
from farm.cli.errors import UsageError
from farm.cli.table import print_table
from farm.inventory import Cluster
from farm.settings import CHECKOUT
from scenarios.crossing import PlannedLent, to_data
from scenarios.occupation import OCCUPATION
from scenarios.strict import read_toml

_TIMEOUT_S = 180


def register(commands: Any) -> None:
    cluster = commands.add_parser(
        "cluster",
        help="look at a lent cluster before it is used",
        description="A cluster is what a donor lends: one file of the inventory (docs/how-to/lend-a-cluster.md).",
    )
    actions = cluster.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="ask each host what a session would need of it; reads only",
        description="Asks each host of an inventory file what a session would need of it, all at once, and changes "
        "nothing. Exit status 0: all is well; 1: something is not, with what to do.",
    )
    check.add_argument("file", type=Path, help="an inventory file; it need not be in the inventory yet")
    check.add_argument("--json", action="store_true", help="print all answers as JSON")
    check.set_defaults(handler=check_one)


def check_one(arguments: argparse.Namespace, context: Context) -> int:
    cluster = read_toml(arguments.file, Cluster)
    if cluster.lent is None:
        raise UsageError(f"{arguments.file}: only machines through ssh can be looked at beforehand (uri = 'ssh://…')")
    told = _ask(cluster, context.settings.home)
    well = told["worker"] is None and all(host["ok"] for host in told["hosts"])
    makes, stays = _makes(cluster.name, cluster.lent), _stays(cluster.lent)
    if arguments.json:
        occupied = {name: to_data(one) for name, one in OCCUPATION.items()}
        print_json({"cluster": cluster.name, "ok": well, **told, "made": makes, "stays": stays, "scenarios": occupied})
        return int(not well)
    _print_answers(told)
    print("\na session makes, and removes when it ends or by the next one's sweep:")
    print("".join(f"  {line}\n" for line in makes) + "and leaves, for the next:")
    print("".join(f"  {line}\n" for line in stays))
    rows = [(name, one.guests, one.disk_mib, one.shared_mib) for name, one in OCCUPATION.items()]
    print_table(("scenario", "guests at once on a host", "MiB of work", "MiB of shared"), rows, empty="")
    ill = sum(not host["ok"] for host in told["hosts"])
    print(f"\n{len(told['hosts']) - ill} of {len(told['hosts'])} hosts are in order")
    return int(not well)


def _ask(cluster: Cluster, home: Path) -> dict[str, Any]:
    """What the worker's program found; raises UsageError where it could not even ask."""
    command = [sys.executable, "-m", "workers", "check", "--json", "--home", str(home)]
    command += ["--cluster", json.dumps(to_data(cluster.planned))]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"cluster {cluster.name}: no answers within {_TIMEOUT_S} s") from None
    if done.returncode not in (0, 1) or not done.stdout:
        last = (done.stderr.strip().splitlines() or ["no reason was told"])[-1]
        raise UsageError(f"cluster {cluster.name}: {last.removeprefix('workers: ')}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _print_answers(told: dict[str, Any]) -> None:
    if told["worker"] is not None:
        print(f"no   {told['worker']}")
    for host in told["hosts"]:
        print(host["host"])
        for answer in host["answers"]:
            remedy = "" if answer["ok"] else f"\n       → {answer['remedy']}"
            print(f"  {'yes' if answer['ok'] else 'NO '}  {answer['question']}: {answer['found']}{remedy}")


def _makes(name: str, lent: PlannedLent) -> list[str]:
    folder = lent.folder
    return [
        f"guests named farm-…, of at most {lent.memory_mib} MiB together on a host",
        f"{folder}/work/sessions/ID and {folder}/shared/sessions/ID: at most {lent.disk_mib} MiB a host",
        f"{folder}/console/farm-…, /var/log/libvirt/qemu/farm-…: what guests say",
        "one process of Python on each host, with its code in memory, and what it starts (all with FARM_LEASE=ID)",
        f"addresses {lent.first_guest} to {lent.last_guest} on {lent.bridge}, for guests",
        f"addresses {lent.observer} and {lent.storage} on the worker's machine, which hears guests and holds the store",
    ]


def _stays(lent: PlannedLent) -> list[str]:
    return [
        f"{lent.folder}/work/base-….raw: what disks are copied from, 128 MiB",
        f"{lent.folder}/shared/images, {lent.folder}/shared/emulators: the last few kernels and images of guests",
    ]
