"""QEMU as a component: a session's guests run on what the session deploys, and what that breaks is its fault."""

import contextlib
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.contract import Failed
from scenarios.crossing import PlannedBuild, PlannedScenario
from scenarios.recipe import DiskSettings, GuestSettings, Recipe
from scenarios.registry import SCENARIOS
from scenarios.strict import BadData, parse_toml
from tests.helpers.check_ins import FARM_HOME, example_lock, recipe
from tests.helpers.labs import lab_on
from tests.helpers.local_clusters import planned_cluster
from tests.workers.test_session import TIMEOUT_S, Worker, read_bundle
from workers import emulators, processes
from workers.archives import Archive
from workers.debian import Apt

PACKAGE = "qemu-system-x86"
ATTEMPTS_TO_BREAK = 3
BREAKING_MIB_S = 16
GUEST = '[guest]\nmemory_mib = 256\nmachine = "pc"\ncpu = "qemu64"\n'


def component(source: str) -> str:
    return f'[[component]]\nname = "qemu"\nsource = {{ {source} }}\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (component('pypi = "qemu==1"'), "component 'qemu' must have 'debian' or 'git'"),
        (component('path = "qemu"'), "component 'qemu' must have 'debian' or 'git'"),
        (component('debian = "qemu-system-x86"'), "must be a pin 'package=version'"),
        (component('debian = "-o=1"'), "must be a pin 'package=version'"),
        (component('debian = "qemu-system-x86=1:7.2", pypi = "qemu==1"'), "must have either"),
    ],
)
def test_a_qemu_from_nowhere_is_refused(text: str, told: str) -> None:
    with pytest.raises(BadData, match=told):
        parse_toml(recipe(rest=text), Recipe, source="stack.toml")


def test_a_component_without_such_a_source_names_those_it_has() -> None:
    text = recipe().replace('pypi = "swift==2.38.3"', 'debian = "swift=2.30.1-0+deb12u1"')
    with pytest.raises(BadData, match="component 'swift' must have 'pypi' or 'git', not 'debian'"):
        parse_toml(text, Recipe, source="stack.toml")


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory) -> Apt:
    return Apt(tmp_path_factory.mktemp("apt"))


@pytest.mark.machine
def test_a_version_that_there_is_not_is_the_stacks_fault(apt: Apt, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=rf"no Debian package {PACKAGE}=1:99 \(known versions: .*1:7.2") as failed:
        apt.unpack(f"{PACKAGE}=1:99", (), tmp_path)
    assert failed.value.fault == "stack"


@pytest.mark.machine
def test_a_package_source_that_is_down_is_the_farms_fault(tmp_path: Path) -> None:
    folder = tmp_path / "apt"
    folder.mkdir()
    (folder / "sources.list").write_text("deb [trusted=yes] http://127.0.0.1:9/debian bookworm main\n")
    with pytest.raises(Failed, match="package source does not answer: .*127.0.0.1:9") as failed:
        Apt(folder).unpack(f"{PACKAGE}=1:99", (), tmp_path)
    assert failed.value.fault == "farm"


def archive_of(folder: Path, program: bytes) -> Archive:
    """As if a build had made this program."""
    with tarfile.open(folder / "emulator.tar", "w") as archive:
        entry = tarfile.TarInfo(emulators.PROGRAM)
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return emulators.read(folder)


@pytest.mark.machine
def test_a_qemu_that_does_not_start_is_its_own_fault(tmp_path: Path) -> None:
    broken = archive_of(tmp_path, b"#!/bin/sh\necho as broken as can be >&2\nexit 1\n")
    (tmp_path / "home").mkdir()
    with lab_on(planned_cluster("broken", hosts=1), tmp_path / "home") as lab:
        with pytest.raises(Failed, match="^component qemu: .*as broken as can be") as failed:
            lab.qemu.hosts(GuestSettings(), DiskSettings(), broken)
        assert failed.value.fault == "stack"
        assert lab.bench().hosts  # which is no other revision's concern


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("session"))
    yield made
    made.hosts("hosts down")


@pytest.mark.machine
def test_two_versions_of_qemu_are_compared_on_one_cluster(worker: Worker) -> None:
    """Debian 12's corrupts a busy guest when the transfer is slow, backports' does not: the check-in is to blame."""
    known = [package.version for package in Apt(FARM_HOME / "cache" / "apt").known(PACKAGE)]
    old = check_in(worker, next(version for version in known if version.startswith("1:7.2")))
    new = check_in(worker, next(version for version in known if version.startswith("1:10.")))
    migration = PlannedScenario(
        "live_migration", SCENARIOS["live_migration"].version, {"bandwidth_mib_s": BREAKING_MIB_S}
    )
    plan = worker.plan(old, new, blocks=ATTEMPTS_TO_BREAK, session="two-versions-of-qemu")
    newer_libvirt = replace(plan.cluster, hosts=planned_cluster("any", "local:backports").hosts)
    plan = replace(plan, cluster=newer_libvirt, scenarios=(*plan.scenarios, migration), deadline_s=3 * TIMEOUT_S)
    process = worker.start(plan)
    seen: dict[str, str] = {}
    while process.poll() is None:
        seen |= versions_run_for(plan.session)
        time.sleep(0.2)
    assert process.returncode == 0
    assert {version.split(".")[0] for version in seen.values()} == {"7", "10"}
    assert all(path.startswith("/srv/shared/emulators/") for path in seen)

    manifest, samples, _ = read_bundle(worker.bundle)
    booted = {(o.revision, o.outcome) for o in manifest.outcomes if o.scenario == "boot"}
    assert booted == {(old.revision, "measured"), (new.revision, "measured")}
    moved = [o for o in manifest.outcomes if o.scenario == "live_migration"]
    assert {o.outcome for o in moved if o.revision == new.revision} == {"measured"}
    broken = [o for o in moved if o.revision == old.revision and o.outcome == "failed"]
    assert broken
    assert {o.fault for o in broken} == {"stack"}
    assert all((o.reason or "").startswith("component qemu: ") for o in broken)


def check_in(worker: Worker, version: str) -> PlannedBuild:
    text = recipe(rest=component(f'debian = "{PACKAGE}={version}"') + GUEST)
    return worker.repository.check_in({"stack.toml": text, "lock.txt": example_lock()})


def versions_run_for(session: str) -> dict[str, str]:
    """The programs of the session's VMMs that run now, and which version each says it is."""
    found = {}
    for name, pids in processes.guests().items():
        if name.startswith(f"farm-{session[:12]}"):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                program = f"/proc/{pids[0]}/exe"
                said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
                found[os.readlink(program)] = said.stdout.partition("version ")[2].split()[0]
    return found
