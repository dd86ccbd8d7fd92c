"""A session from its plan to its bundle, on real hosts; and what it leaves when it is ended before its time."""

import contextlib
import datetime
import json
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scenarios.crossing import (
    SCHEMA,
    Facts,
    Lease,
    Manifest,
    Plan,
    PlannedBuild,
    PlannedScenario,
    digest_of,
    harness_digest,
    to_data,
)
from scenarios.registry import SCENARIOS
from scenarios.strict import parse_json
from tests.helpers.check_ins import DeploymentRepository, example_lock, recipe
from tests.helpers.local_clusters import CHECKOUT, FARM_HOME, planned_cluster, wait_for
from workers import processes
from workers.commands.session import DONOR_FAULT
from workers.facts import read, signs_of_a_hypervisor
from workers.fencing import Fence

pytestmark = pytest.mark.machine

NAME = "session-test"
TIMEOUT_S = 300


class Worker:
    """`python -m workers` in a home of its own."""

    def __init__(self, home: Path, hypervisor: str = "local:debian12") -> None:
        self.home = home
        self.cluster = replace(planned_cluster(NAME, hypervisor), storage_disks=3)
        self.own = secrets.token_hex(4)
        (home / "cache").symlink_to(FARM_HOME / "cache")
        (home / "venv").symlink_to(FARM_HOME / "venv")
        (home / "keys").mkdir()
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "keys" / NAME)]
        subprocess.run(key, check=True, timeout=30)
        self.repository = DeploymentRepository(home / "repository")
        self.good = self.repository.check_in({"stack.toml": recipe(), "lock.txt": example_lock()})
        self.bundle = home / "bundle.tar.gz"

    def plan(self, *builds: PlannedBuild, blocks: int = 1, session: str = "plain") -> Plan:
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        return Plan(
            schema=SCHEMA,
            harness=harness_digest(CHECKOUT),
            session=f"{self.own}-{session}",  # another checkout may be testing on this machine, too
            attempt=1,
            cluster=self.cluster,
            lease=Lease("session:test", 7, (f"host:{NAME}/h1", f"host:{NAME}/h2"), later.isoformat()),
            builds=builds or (self.good,),
            scenarios=(PlannedScenario("boot", SCENARIOS["boot"].version),),
            blocks=blocks,
            rounds=1,
            seed=1,
            deadline_s=TIMEOUT_S,
        )

    def start(self, plan: Plan) -> subprocess.Popen[str]:
        file = self.home / "plan.json"
        file.write_text(json.dumps(to_data(plan)))
        command = ["session", str(file), "--home", str(self.home), "--out", str(self.bundle)]
        return subprocess.Popen(
            [sys.executable, "-m", "workers", *command],
            cwd=CHECKOUT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, plan: Plan, *, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
        """Exit status and the last line on standard error."""
        process = self.start(plan)
        _, errors = process.communicate(timeout=timeout_s)
        return process.returncode, (errors.strip().splitlines() or [""])[-1]

    def hosts(self, action: str) -> None:
        cluster = json.dumps(to_data(self.cluster))
        command = [sys.executable, "-m", "workers", *action.split(), "--home", str(self.home), "--cluster", cluster]
        subprocess.run(command, cwd=CHECKOUT, check=True, timeout=120, capture_output=True)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("session"))
    yield made
    made.hosts("hosts down")


def read_bundle(path: Path) -> tuple[Manifest, list[dict[str, Any]], set[str]]:
    with tarfile.open(path) as packed:
        texts = {member.name: packed.extractfile(member).read().decode() for member in packed}  # type: ignore[union-attr]
    samples = [json.loads(line) for line in texts["samples.jsonl"].splitlines()]
    return parse_json(texts["manifest.json"], Manifest, source="manifest"), samples, set(texts)


def read_facts(path: Path) -> Facts:
    with tarfile.open(path) as packed:
        text = packed.extractfile("facts.json").read().decode()  # type: ignore[union-attr]
    return parse_json(text, Facts, source="facts")


def blocks_of_probes(path: Path) -> set[int]:
    with tarfile.open(path) as packed:
        text = packed.extractfile("limits.jsonl")
        assert text is not None
        return {json.loads(line)["block"] for line in text.read().splitlines()}


def marked(session: str) -> bool:
    return bool(processes.marked(processes.LEASE_VARIABLE, [session]))


def until_measuring(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if "boot" in line:
            time.sleep(1.0)  # its guest is being started
            return
    pytest.fail(f"the session ended first: {process.stderr.read() if process.stderr else ''}")


def test_a_check_in_that_cannot_be_built_is_the_stacks_fault_and_costs_the_others_nothing(worker: Worker) -> None:
    bad = worker.repository.check_in({"stack.toml": recipe(rest="[guest]\nmemory_mb = 128\n")})
    plan = worker.plan(worker.good, bad, blocks=2)
    assert worker.run(plan) == (0, "")

    manifest, samples, names = read_bundle(worker.bundle)
    assert (manifest.session, manifest.plan, manifest.harness) == (plan.session, digest_of(plan), plan.harness)
    assert {(o.revision, o.outcome, o.fault) for o in manifest.outcomes} == {
        (worker.good.revision, "measured", None),
        (bad.revision, "failed", "stack"),
    }
    reasons = {o.reason for o in manifest.outcomes if o.reason}
    assert reasons == {"stack.toml: guest.memory_mb is unknown (did you mean 'memory_mib'?)"}
    assert {s["revision"] for s in samples} == {worker.good.revision}
    assert {s["block"] for s in samples} == {0, 1}
    assert all(s["valid"] and s["value"] > 0 for s in samples)
    assert {"facts.json", "limits.jsonl", "manifest.json.sig", "logs/session.log"} <= names
    assert blocks_of_probes(worker.bundle) == {0, 1, 2}  # before, between and after
    assert not marked(plan.session)

    load = read_facts(worker.bundle).load
    assert set(load["cpu_s"]) == {"machine", "session", "observer", "h1", "h2"}
    assert sum(load["cpu_s"].values()) - load["cpu_s"]["machine"] < load["cpu_s"]["machine"]
    assert set(load["observer"]) == {"boot"}


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_session_that_is_ended_leaves_nothing(worker: Worker, signal_number: signal.Signals) -> None:
    plan = worker.plan(blocks=3, session=f"ended-by-{signal_number.name.lower()}")
    process = worker.start(plan)
    until_measuring(process)
    os.kill(process.pid, signal_number)
    process.communicate(timeout=90)
    assert process.returncode != 0
    if signal_number is signal.SIGKILL:
        worker.hosts("sweep")
    assert wait_for(lambda: not marked(plan.session))
    guests = [command for command in command_lines() if f"guest=farm-{plan.session[:12]}" in command]
    assert guests == []
    mounts = Path("/proc/self/mountinfo").read_text()
    assert plan.session not in mounts


def test_code_that_the_plan_was_not_made_for_is_refused(worker: Worker) -> None:
    status, told = worker.run(replace(worker.plan(), harness="0" * 64))
    assert status == 3
    assert "is not what the plan was made for" in told


def test_an_attempt_after_a_failed_one_begins_anew(worker: Worker) -> None:
    over_s3 = {"style": "s3", "size_mib": 4, "segment_mib": 1}
    asked = PlannedScenario("chunked_upload", SCENARIOS["chunked_upload"].version, over_s3)
    plan = replace(worker.plan(session="second-attempt"), scenarios=(asked,))
    left = worker.home / "clusters" / NAME / "sessions" / plan.session / "bundle" / "logs"
    left.mkdir(parents=True)
    (left / "session.log").write_text("of the first attempt")
    assert worker.run(plan) == (0, "")
    with tarfile.open(worker.bundle) as packed:
        log = packed.extractfile("logs/session.log")
        assert log is not None
        assert "first attempt" not in log.read().decode()
    manifest, _, _ = read_bundle(worker.bundle)
    assert [(outcome.outcome, outcome.reason) for outcome in manifest.outcomes] == [("measured", None)] * 2
    assert [path.name for path in (worker.home / "clusters" / NAME / "sessions" / plan.session).iterdir()] == ["lock"]


def test_a_virtual_machine_that_is_lent_as_hardware_is_the_donors_fault(worker: Worker) -> None:
    plan = worker.plan(session="lent-as-hardware")
    claimed = replace(plan, cluster=replace(plan.cluster, fidelity="hardware"))
    found = signs_of_a_hypervisor(read("/usr/bin/qemu-system-x86_64"))  # of the machine that makes the hosts
    status, told = worker.run(claimed)
    assert status == (DONOR_FAULT if found else 0)
    assert told.startswith("host h1 is lent as hardware, but is a virtual machine: ") is bool(found)


def test_a_lease_that_was_lost_is_told(worker: Worker) -> None:
    plan = worker.plan(session="lost-its-lease")
    newer = replace(plan.lease, token=99, resources=("host:other/h1",))
    Fence(worker.home / "clusters" / NAME).enter(newer, datetime.datetime.now(datetime.UTC))
    lost = replace(plan, lease=replace(plan.lease, token=3, resources=newer.resources))
    assert worker.run(lost)[0] == 5


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}'])
def test_a_bad_plan_is_refused_in_one_line(worker: Worker, text: str) -> None:
    file = worker.home / "bad.json"
    file.write_text(text)
    command = [sys.executable, "-m", "workers", "session", str(file), "--home", str(worker.home), "--out", "x"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(file) in done.stderr


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
