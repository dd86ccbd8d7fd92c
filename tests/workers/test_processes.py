"""Processes as /proc shows them: found by mark or guest's name, and ended whatever they do."""

import os
import subprocess
import time
import uuid

import pytest

from tests.helpers.local_clusters import wait_for
from workers import processes


@pytest.mark.parametrize(
    ("argv", "guest"),
    [
        (["/usr/bin/qemu-system-x86_64", "-name", "guest=farm-a-1,debug-threads=on", "-S"], "farm-a-1"),
        (["/usr/bin/qemu-system-x86_64", "-S", "-name", "plain,process=x"], "plain"),
        (["/usr/libexec/qemu-kvm", "-name", "guest=db"], "db"),
        (["/usr/bin/qemu-system-x86_64", "-S", "-M", "none"], None),  # libvirt asking what it can do
        (["/usr/bin/qemu-system-x86_64", "-name"], None),
        (["grep", "-name", "guest=farm-a-1"], None),
        ([""], None),
        ([], None),
    ],
)
def test_a_guests_name_is_read_from_its_vmms_command_line(argv: list[str], guest: str | None) -> None:
    assert processes.guest_of(argv) == guest


def test_what_multiplies_and_heeds_no_term_is_ended_and_nothing_else() -> None:
    mark, other = uuid.uuid4().hex, uuid.uuid4().hex
    script = (
        "trap '' TERM; n=0; while [ $n -lt 30 ]; do (while :; do sleep 0.1; done) & n=$((n+1)); sleep 0.05; done; wait"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    wild = subprocess.Popen(["sh", "-c", script], env={**environment, "FARM_TEST": mark})
    tame = subprocess.Popen(["sleep", "600"], env={**environment, "FARM_TEST": other})
    try:
        assert wait_for(lambda: len(processes.marked("FARM_TEST", [mark])) > 5)
        ended, left = processes.end_all(lambda: processes.marked("FARM_TEST", [mark]), timeout_s=20)
        assert wild.pid in ended
        assert left == set()
        assert processes.marked("FARM_TEST", [mark, other]) == {tame.pid: other}
    finally:
        for process in (wild, tame):
            process.kill()
            process.wait()


def test_what_cannot_be_ended_is_told_at_the_deadline() -> None:
    ended, left = processes.end_all(lambda: [1 << 22], timeout_s=0.2)  # beyond any process id
    assert (ended, left) == (set(), {1 << 22})


def test_cpu_seconds_are_those_of_the_process() -> None:
    before_s, started = processes.cpu_s(os.getpid()), time.process_time()
    while time.process_time() - started < 0.3:
        pass
    assert processes.cpu_s(os.getpid()) - before_s >= 0.2
    assert processes.cpu_s(1 << 22) == 0.0


def test_ancestry_goes_up_to_the_first_process() -> None:
    assert {os.getpid(), os.getppid()} <= processes.ancestry(os.getpid())
