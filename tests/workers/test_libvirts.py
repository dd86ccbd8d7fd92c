"""libvirt as a component: guests run on the libvirtd that the session deploys, beside the host's own."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from scenarios.contract import DiskShape, Failed
from scenarios.crossing import PlannedBuild, PlannedScenario
from scenarios.recipe import DiskSettings, GuestSettings, Recipe
from scenarios.registry import SCENARIOS
from scenarios.strict import BadData, parse_toml
from tests.helpers.check_ins import FARM_HOME, example_lock, recipe
from tests.helpers.labs import Lab, lab_on
from tests.helpers.local_clusters import libvirt_of, planned_cluster
from tests.workers.test_session import TIMEOUT_S, Worker, read_bundle, until_measuring
from workers import blame, libvirts, processes
from workers.blame import DaemonFailed
from workers.deadline import Late
from workers.debian import Apt
from workers.libvirts import Libvirt

PACKAGE = "libvirt-daemon"
SETTINGS = GuestSettings(memory_mib=256, machine="pc", cpu="qemu64")
GUEST = '[guest]\nmemory_mib = 256\nmachine = "pc"\ncpu = "qemu64"\n'


def component(source: str) -> str:
    return f'[[component]]\nname = "libvirt"\nsource = {{ {source} }}\n'


@pytest.mark.parametrize("source", ['pypi = "libvirt==9.0.0"', 'path = "libvirt"'])
def test_a_libvirt_from_elsewhere_is_refused(source: str) -> None:
    with pytest.raises(BadData, match="component 'libvirt' must have 'debian', not"):
        parse_toml(recipe(rest=component(source)), Recipe, source="stack.toml")


@pytest.mark.parametrize(
    ("components", "error", "told"),
    [
        (["libvirt"], Failed("hypervisor", "broke"), ("stack", "component libvirt: broke")),
        (["qemu", "libvirt"], Failed("hypervisor", "broke"), ("stack", "component qemu and libvirt: broke")),
        (["qemu", "libvirt"], DaemonFailed("hangs"), ("stack", "component libvirt: hangs")),
        (["libvirt"], Late("donor", "hangs"), ("stack", "component libvirt: hangs")),
        (["qemu"], DaemonFailed("hangs"), ("donor", "hangs")),
        (["libvirt"], Failed("donor", "disk full"), ("donor", "disk full")),
        ([], Failed("hypervisor", "broke"), ("hypervisor", "broke")),
    ],
)
def test_whose_fault_it_is(components: list[str], error: Failed, told: tuple[str, str]) -> None:
    blamed = blame.of(components)(error)
    assert (blamed.fault, str(blamed)) == told


def pins() -> tuple[str, str]:
    """Of Debian 12's libvirt and of backports'."""
    known = [package.version for package in Apt(FARM_HOME / "cache" / "apt").known(PACKAGE)]
    return tuple(f"{PACKAGE}={next(one for one in known if one.startswith(major))}" for major in ("9.0.", "11."))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Libvirt]:
    both = []
    for pin in pins():
        folder = tmp_path_factory.mktemp("libvirt")
        libvirts.of_package(pin, Apt(FARM_HOME / "cache" / "apt"), folder)
        both.append(libvirts.read(folder, pin))
    return both


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_on(planned_cluster("libvirts"), tmp_path_factory.mktemp("home")) as made:
        yield made


def daemons_of(session: str) -> list[str]:
    """The programs of the session's own libvirtds."""
    found = processes.marked(processes.LEASE_VARIABLE, [session])
    return sorted(processes.command_line(pid)[0] for pid in found if processes.program_of(pid) == "libvirtd")


@pytest.mark.machine
def test_two_versions_lie_side_by_side_and_each_keeps_its_own_guests(lab: Lab, made: list[Libvirt]) -> None:
    old, new = made
    first, second = lab.qemu.hosts(SETTINGS, DiskSettings(), None, old)
    disk, _ = first.make_disk("shared")
    with first.guest(nonce="old", disk=disk) as guest:
        guest.start()
        guest.first_answer(timeout_s=60)
        assert first.link.connection.getLibVersion() == old.version
        newer = lab.qemu.hosts(SETTINGS, DiskSettings(), None, new)
        assert newer[0].link.connection.getLibVersion() == new.version != old.version
        assert len(daemons_of(lab.session)) == 4  # two of each
        nested, _ = newer[0].make_disk("copy", DiskShape(inside="ext4"))  # on what was mounted after it began
        with newer[0].guest(nonce="new", disk=nested) as other:
            other.start()
            other.first_answer(timeout_s=60)
            assert [d.name() for d in first.link.connection.listAllDomains()] == [guest.name]
            assert [d.name() for d in newer[0].link.connection.listAllDomains()] == [other.name]
            with libvirt_of(lab.hosts.hosts[0]) as host:
                assert not host.listAllDomains()
        guest.migrate(second, timeout_s=60)
        assert list(guest.known_on()) == ["h2"]
        nested.remove()
    disk.remove()
    lab.bench()
    assert daemons_of(lab.session) == []


@pytest.mark.machine
def test_a_libvirtd_that_is_not_what_was_deployed_measures_nothing(lab: Lab, made: list[Libvirt]) -> None:
    false = replace(made[0], pin=f"{PACKAGE}=9.0.1-1", version=9_000_001)
    with pytest.raises(Failed, match="libvirt-daemon=9.0.1-1: its libvirtd on h[12] says that it is 9.0.0") as failed:
        lab.qemu.hosts(SETTINGS, DiskSettings(), None, false)
    assert failed.value.fault == "stack"
    assert daemons_of(lab.session) == []


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("session"))
    yield made
    made.hosts("hosts down")


@pytest.mark.machine
def test_a_parent_and_its_child_are_compared_in_a_session(worker: Worker) -> None:
    old, new = (check_in(worker, pin) for pin in pins())
    plan = worker.plan(old, new, session="two-versions-of-libvirt")
    migration = PlannedScenario("live_migration", SCENARIOS["live_migration"].version)
    plan = replace(plan, scenarios=(*plan.scenarios, migration), deadline_s=2 * TIMEOUT_S)
    process = worker.start(plan)
    seen: set[str] = set()
    while process.poll() is None:
        seen |= set(daemons_of(plan.session))
        time.sleep(0.2)
    assert process.returncode == 0
    assert len(seen) == 2
    assert all(path.startswith("/srv/shared/libvirts/") for path in seen)
    assert daemons_of(plan.session) == []

    manifest, samples, _ = read_bundle(worker.bundle)
    outcomes = {(o.revision, o.scenario, o.outcome, o.reason) for o in manifest.outcomes}
    assert {(one.revision, "boot", "measured", None) for one in (old, new)} <= outcomes
    assert (new.revision, "live_migration", "measured", None) in outcomes
    assert {sample["revision"] for sample in samples if sample["valid"]} == {old.revision, new.revision}
    digests = {build.digest for build in manifest.builds}
    assert len(digests) == 2


@pytest.mark.machine
def test_nothing_stays_of_a_session_that_is_killed(worker: Worker) -> None:
    plan = worker.plan(check_in(worker, pins()[1]), session="killed-with-libvirt")
    process = worker.start(plan)
    try:
        until_measuring(process)
        folders = worker.home.glob(f"clusters/*/hosts/*/run/farm-{plan.session[:12]}-*")
        assert len(list(folders)) == 4  # on each host its own, and what it knows of QEMUs
        assert len(daemons_of(plan.session)) == 2
    finally:
        process.kill()
        process.communicate(timeout=30)
    worker.hosts("sweep")
    assert daemons_of(plan.session) == []
    assert list(worker.home.glob(f"clusters/*/hosts/*/run/farm-{plan.session[:12]}-*")) == []


def check_in(worker: Worker, pin: str) -> PlannedBuild:
    text = recipe(rest=component(f'debian = "{pin}"') + GUEST)
    return worker.repository.check_in({"stack.toml": text, "lock.txt": example_lock()})
