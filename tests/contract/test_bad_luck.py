"""What goes wrong on a lent host at night: each has a name, a deadline and an owner, and spoils nothing else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scenarios import boot, cow_start
from scenarios.contract import Failed, Workload
from tests.helpers.labs import Lab, lab_on, outcomes_of
from tests.helpers.local_clusters import planned_cluster
from workers.hypervisors import qemu_guest

pytestmark = pytest.mark.machine

STARVED_S = 12
LEFT_MIB = 24  # room for an overlay, for no copy of the base


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    planned = planned_cluster("badluck", "local:backports", hosts=1)
    with lab_on(planned, tmp_path_factory.mktemp("home")) as lab:
        yield lab


@contextmanager
def filled(lab: Lab, *, left_mib: int) -> Iterator[None]:
    """The host's disk has this much room left, or not a single block."""
    (link,) = lab.qemu.links
    path = link.host.work_dir / "somebody-elses"
    free = int(link.agent.run(["df", "--output=avail", "-BM", str(path.parent)], timeout_s=10).split()[-1].rstrip("M"))
    link.agent.run(["fallocate", "-l", f"{free - (left_mib or 8)}M", str(path)], timeout_s=30)
    if not left_mib:
        link.agent.run(["sh", "-c", f"dd if=/dev/zero bs=4k status=none >>{path} || true"], timeout_s=60)
    try:
        yield
    finally:
        link.agent.run(["rm", str(path)], timeout_s=10)


@contextmanager
def halted_libvirtd(lab: Lab) -> Iterator[None]:
    (link,) = lab.qemu.links
    link.agent.run(["sh", "-c", "kill -STOP $(cat /run/libvirtd.pid)"], timeout_s=10)
    try:
        yield
    finally:
        link.agent.run(["sh", "-c", "kill -CONT $(cat /run/libvirtd.pid)"], timeout_s=10)


def halt_vmms(lab: Lab) -> None:
    """What runs the guests of the host does nothing any more, its monitor neither."""
    (link,) = lab.qemu.links
    pids = [pid for one in link.agent.call("basics.guests", timeout_s=10).values() for pid in one]
    link.agent.run(["kill", "-STOP", *map(str, pids)], timeout_s=10)


def test_a_full_disk_is_its_owners_fault_and_voids_what_it_touches(lab: Lab) -> None:
    with filled(lab, left_mib=LEFT_MIB):
        (copied,) = outcomes_of(lab.measure(cow_start.SCENARIO, lab.bench(), methods=["copy"]))
        (booted,) = outcomes_of(lab.measure(boot.SCENARIO, lab.bench()))
    assert (copied.outcome, copied.fault) == ("failed", "donor")
    assert "something else has left" in (copied.reason or "")
    assert booted.outcome == "measured"
    assert lab.guests_left() == []
    (again,) = outcomes_of(lab.measure(cow_start.SCENARIO, lab.bench(), methods=["copy"]))
    assert again.outcome == "measured", "the disk has room again"


def test_a_tool_that_finds_no_room_is_not_to_blame(lab: Lab) -> None:
    with filled(lab, left_mib=0):
        (made,) = outcomes_of(lab.measure(cow_start.SCENARIO, lab.bench(), methods=["overlay"]))
    assert (made.outcome, made.fault) == ("failed", "donor")
    assert "No space left on device" in (made.reason or "")


def test_a_guest_whose_host_has_no_room_for_what_it_writes_is_not_the_stacks_fault(lab: Lab) -> None:
    host = lab.bench().hosts[0]
    disk, _ = host.make_disk("overlay")
    workload = Workload(write_test_blocks=512)
    with filled(lab, left_mib=4), host.guest(nonce="full", disk=disk, workload=workload) as guest:
        guest.start()
        guest.first_answer(timeout_s=60)
        guest.begin_writes()
        with pytest.raises(Failed, match="could not write its disk") as failed:
            guest.write_times(timeout_s=60)
    assert failed.value.fault == "donor"
    disk.remove()
    assert lab.guests_left() == []


def test_a_libvirtd_that_hangs_is_told_in_time_and_the_next_guest_starts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = pytest.raises(Failed, match="start guest .* no answer within 3 s")
    with monkeypatch.context() as hurried, lab.bench().hosts[0].guest(nonce="hangs") as guest:
        hurried.setattr(qemu_guest, "_START_TIMEOUT_S", 3.0)
        with halted_libvirtd(lab), told as failed:
            guest.start()
    assert failed.value.fault == "donor"
    assert lab.guests_left() == []
    (booted,) = outcomes_of(lab.measure(boot.SCENARIO, lab.bench()))
    assert booted.outcome == "measured"


def test_a_vmm_that_hangs_is_the_hypervisors_fault_and_goes_with_its_guest(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_guest, "_MONITOR_TIMEOUT_S", 3.0)
    disk, _ = lab.bench().hosts[0].make_disk("overlay")
    workload = Workload(write_test_blocks=512)
    told = pytest.raises(Failed, match="did not end its write test: no answer within 3 s; libvirtd answers")
    with lab.bench().hosts[0].guest(nonce="halts", disk=disk, workload=workload) as guest:
        guest.start()
        guest.first_answer(timeout_s=60)
        halt_vmms(lab)
        guest.begin_writes()
        with told as failed:
            guest.write_times(timeout_s=2)
    assert failed.value.fault == "hypervisor"
    disk.remove()
    assert lab.guests_left() == []
    (booted,) = outcomes_of(lab.measure(boot.SCENARIO, lab.bench()))
    assert booted.outcome == "measured"


def test_a_guest_that_is_silent_while_its_vmm_answers_is_the_stacks_fault(lab: Lab) -> None:
    with lab.bench().hosts[0].guest(nonce="dumb", workload=Workload(write_test_blocks=512)) as guest:
        guest.start()
        guest.first_answer(timeout_s=60)
        with pytest.raises(Failed, match="did not end its write test within 1 s") as failed:
            guest.write_times(timeout_s=1)
    assert failed.value.fault == "stack"


def test_a_guest_that_is_given_no_processor_is_its_hosts_fault(lab: Lab) -> None:
    (link,) = lab.qemu.links
    with lab.bench().hosts[0].guest(nonce="starves", workload=Workload(write_test_blocks=512)) as guest:
        guest.start()
        ((pid,),) = link.agent.call("basics.guests", timeout_s=10).values()
        core = str(min(os.sched_getaffinity(0)))
        link.agent.run(["taskset", "--all-tasks", "--cpu-list", "--pid", core, str(pid)], timeout_s=10)
        # ahead of everything ordinary, whichever group it is in; the kernel leaves a twentieth of the core to that
        busy = f"taskset --cpu-list {core} chrt --rr 1 timeout {2 * STARVED_S} sh -c 'while :; do :; done' &"
        link.agent.run(["sh", "-c", f"({busy}) </dev/null >/dev/null 2>&1"], timeout_s=10)
        with pytest.raises(Failed, match="had no processor for it for") as failed:
            guest.first_answer(timeout_s=STARVED_S)
    assert failed.value.fault == "donor"
    assert lab.guests_left() == []
