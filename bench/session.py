"""What share of a session is spent measuring, and what the rest goes to: one block, as a worker runs it.

One session of three check-ins of Swift, and one of OpenStack, whose code and databases are in the cache.
"""

import datetime
import json
import secrets
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.pairs import Row
from farm import stacks
from farm.cli.example import make_example_repository
from farm.settings import CHECKOUT, CampaignSettings, load_settings
from scenarios.crossing import (
    SCHEMA,
    Lease,
    Plan,
    PlannedBuild,
    PlannedCluster,
    PlannedHost,
    PlannedScenario,
    harness_digest,
    revision_of,
    to_data,
)
from scenarios.registry import BY_DEFAULT, SCENARIOS

UP_S, ACTIVE_S = 60.0, 15.0
_TIMEOUT_S = 600
_MEASURING = ("measure", "verify")
_DEPLOYING = ("build", "deploy", "undeploy")


def run(home: Path) -> list[Row]:
    return [*_rows_of_swift(home), *_rows_of_openstack(home)]


def _rows_of_swift(home: Path) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as folder:
        builds = _check_ins(Path(folder) / "deployment")
        told = _measured(home, builds)
    return [
        _measuring(told),
        _deploying("Swift", told),
        _harness(told.load),
        *_observer(told.load["observer"]),
    ]


def _rows_of_openstack(home: Path) -> list[Row]:
    recipe, lock = stacks.load("openstack")
    one = PlannedBuild(revision_of({"bench": "0" * 40}), "openstack", ("window",), "", "", to_data(recipe), lock)
    _measured(home, [one], scenarios=("boot",))  # who comes first makes what is cached
    told = _measured(home, [one])
    up_s, active_s = told.load["spent_s"]["deploy"], statistics.median(told.values("boot", "vmm_ms")) / 1e3
    return [
        _deploying("OpenStack", told),
        Row("OpenStack: up on 2 hosts", f"{up_s:.1f} s", f"within {UP_S:g} s", up_s <= UP_S),
        Row("OpenStack: a server is ACTIVE", f"{active_s:.1f} s", f"within {ACTIVE_S:g} s", active_s <= ACTIVE_S),
    ]


@dataclass(frozen=True)
class _Told:
    """What a session told of itself, and the seconds that it took."""

    load: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    whole_s: float

    def values(self, scenario: str, metric: str) -> list[float]:
        mine = [one for one in self.samples if (one["scenario"], one["metric"]) == (scenario, metric)]
        return [float(one["value"]) for one in mine if one["valid"]]


def _measured(home: Path, builds: Sequence[PlannedBuild], scenarios: Sequence[str] = BY_DEFAULT) -> _Told:
    """Run a session in a home of its own, with the caches of `home`."""
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as folder:
        own = Path(folder)
        for name in ("venv", "cache"):
            (own / name).symlink_to(home / name)
        (own / "keys").mkdir()
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own / "keys" / "bench")]
        subprocess.run(key, check=True, timeout=30)
        plan = _plan(builds, scenarios)
        (own / "plan.json").write_text(json.dumps(to_data(plan)))
        cluster = json.dumps(to_data(plan.cluster))
        try:
            began = time.monotonic()
            _workers("session", str(own / "plan.json"), "--home", folder, "--out", str(own / "bundle.tar.gz"))
            whole_s = time.monotonic() - began
        finally:
            _workers("hosts", "down", "--home", folder, "--cluster", cluster)
        facts, samples = _texts(own / "bundle.tar.gz", "facts.json", "samples.jsonl")
    return _Told(json.loads(facts)["load"], [json.loads(line) for line in samples.splitlines()], whole_s)


def _measuring(told: _Told) -> Row:
    spent_s = told.load["spent_s"]
    share = sum(spent_s[phase] for phase in _MEASURING) / told.whole_s
    parts = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in spent_s.items())
    return Row("share of a session spent measuring", f"{share:.0%} of {told.whole_s:.0f} s ({parts})", "told", True)


def _deploying(stack: str, told: _Told) -> Row:
    spent = {phase: told.load["spent_s"].get(phase, 0.0) for phase in _DEPLOYING}
    parts = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in spent.items())
    share = sum(spent.values()) / told.whole_s
    figure = f"{share:.0%} of {told.whole_s:.0f} s ({parts})"
    return Row(f"{stack}: share of a session for deployment", figure, "told", True)


def _harness(load: Mapping[str, Mapping[str, float]]) -> Row:
    """The session's program and its agents, against all that the machine did meanwhile: leave it alone for this.

    A session of one block is stretched to the sessions of a campaign: what comes before blocks is had by each, probing
    by each once more than it has blocks. Probing is measuring, which the agents do themselves: told, not counted here.
    """
    before, probing = load["cpu_before_blocks_s"], load["cpu_probing_s"]
    sessions, blocks = len(CampaignSettings().blocks), sum(CampaignSettings().blocks)
    block = {name: whole - before[name] - probing[name] for name, whole in load["cpu_s"].items()}
    own = {name: sessions * before[name] + blocks * block[name] for name in block if name != "machine"}
    probed_s = (blocks + sessions) / 2 * probing["machine"]
    machine_s = sessions * before["machine"] + blocks * block["machine"] + probed_s
    share = sum(own.values()) / machine_s
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in own.items())
    return Row(
        f"CPU of the farm's own, of a campaign of {blocks} blocks",
        f"{share:.1%} of {machine_s:.0f} s ({parts}; probing took {probed_s:.0f} s)",
        "below 5 %",
        share < 0.05,
    )


def _observer(spent: Mapping[str, tuple[float, float]]) -> Iterator[Row]:
    for scenario, (cpu_s, took_s) in spent.items():
        share = cpu_s / took_s
        yield Row(f"observer's CPU during {scenario}", f"{share:.2%} of a core", "below 1 %", share < 0.01)


def _check_ins(repository: Path) -> list[PlannedBuild]:
    make_example_repository(repository)
    git = ["git", "-C", str(repository), "rev-list", "--reverse", "main"]
    commits = subprocess.run(git, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    return [
        PlannedBuild(revision_of({"bench": one}), one[:7], ("window",), str(repository), one) for one in commits[:3]
    ]


def _plan(builds: Sequence[PlannedBuild], scenarios: Sequence[str]) -> Plan:
    hosts = tuple(PlannedHost(name, "local:backports", "here") for name in ("h1", "h2"))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=_TIMEOUT_S)
    return Plan(
        schema=SCHEMA,
        harness=harness_digest(CHECKOUT),
        session=secrets.token_hex(8),
        attempt=1,
        cluster=PlannedCluster("bench", "qemu", hosts, storage_disks=4, storage_disk_mib=3072),
        lease=Lease("bench", 1, ("host:bench/h1", "host:bench/h2", "storage:bench"), later.isoformat()),
        builds=tuple(builds),
        scenarios=tuple(PlannedScenario(name, SCENARIOS[name].version) for name in scenarios),
        blocks=1,
        rounds=1,
        seed=secrets.randbits(32),
        deadline_s=_TIMEOUT_S,
    )


def _workers(*arguments: str) -> None:
    command = [sys.executable, "-m", "workers", *arguments]
    subprocess.run(command, check=True, cwd=CHECKOUT, timeout=_TIMEOUT_S + 60, stdout=subprocess.DEVNULL)


def _texts(bundle: Path, *names: str) -> list[str]:
    with tarfile.open(bundle) as packed:
        files = [packed.extractfile(name) for name in names]
        return [file.read().decode() for file in files if file is not None]


if __name__ == "__main__":
    print(*run(load_settings().home), sep="\n")
