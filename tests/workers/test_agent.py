"""The agent's contract, over its real pipes: answers, errors, deadlines, death."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from workers.agent import AgentLink, CallTimedOut, LinkDead, OperationFailed

CHECKOUT = Path(__file__).resolve().parents[2]


def start_link() -> AgentLink:
    command = [sys.executable, "-m", "workers.agent"]
    return AgentLink("here", command, {"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"]})


@pytest.fixture
def link() -> Iterator[AgentLink]:
    with start_link() as link:
        yield link


def agent_pid(link: AgentLink) -> int:
    return int(link.run(["sh", "-c", "echo $PPID"], timeout_s=10))


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_the_clock_of_the_same_machine_is_ours_within_the_bound(link: AgentLink) -> None:
    offset_s, bound_s = link.clock_offset_s()
    assert abs(offset_s) <= bound_s


@pytest.mark.parametrize("name", ["basics.nothing", "nowhere.clock_ns", "basics", "os.system", "basics.end_children"])
def test_only_marked_functions_can_be_called(link: AgentLink, name: str) -> None:
    with pytest.raises(OperationFailed, match="UnknownOperation.*no operation") as caught:
        link.call(name, timeout_s=10)
    assert caught.value.fault == "farm"


def test_an_exception_of_an_operation_is_told_with_its_kind(link: AgentLink) -> None:
    with pytest.raises(OperationFailed, match="agent on here: basics.read_text: FileNotFoundError"):
        link.call("basics.read_text", timeout_s=10, path="/nowhere/at/all")


def test_a_wrong_argument_is_an_error_and_not_the_end(link: AgentLink) -> None:
    with pytest.raises(OperationFailed, match="TypeError"):
        link.call("basics.clock_ns", timeout_s=10, colour="red")
    assert link.call("basics.clock_ns", timeout_s=10) > 0


def test_errors_of_the_contract_arrive_as_themselves(link: AgentLink) -> None:
    with pytest.raises(Failed, match="no live VMM process of guest ghost") as caught:
        link.call("basics.guest_cpu_s", timeout_s=10, guest="ghost")
    assert caught.value.fault == "hypervisor"
    assert not isinstance(caught.value, OperationFailed)


def test_requests_do_not_wait_for_each_other(link: AgentLink) -> None:
    slow = threading.Thread(target=lambda: link.run(["sleep", "1.5"], timeout_s=10))
    slow.start()
    link.call("basics.clock_ns", timeout_s=10)
    assert slow.is_alive()
    slow.join()


def test_a_call_ends_at_its_deadline_and_the_link_goes_on(link: AgentLink) -> None:
    with pytest.raises(CallTimedOut, match="no answer to basics.run within 0.2 s") as caught:
        link.call("basics.run", timeout_s=0.2, argv=["sleep", "2"], limit_s=5)
    assert caught.value.fault == "donor"
    assert link.call("basics.clock_ns", timeout_s=10) > 0


def test_a_program_that_takes_too_long_is_ended_with_its_children(link: AgentLink, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="sh did not end within 0.5 s"):
        link.run(["sh", "-c", f"sleep 100 & echo $! > {tmp_path}/pid; wait"], timeout_s=0.5)
    assert wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_failing_program_is_told_with_its_last_words(link: AgentLink) -> None:
    with pytest.raises(OperationFailed, match="ended with 3: no such luck"):
        link.run(["sh", "-c", "echo no such luck >&2; exit 3"], timeout_s=10)


def test_a_waiting_call_learns_of_the_agents_death(link: AgentLink) -> None:
    killer = threading.Timer(0.3, os.kill, (agent_pid(link), signal.SIGKILL))
    killer.start()
    with pytest.raises(LinkDead) as caught:
        link.run(["sleep", "30"], timeout_s=60)
    assert caught.value.fault == "donor"
    with pytest.raises(LinkDead, match="agent on here is gone"):
        link.call("basics.clock_ns", timeout_s=10)


def test_an_agent_that_cannot_start_says_why() -> None:
    with AgentLink("there", ["sh", "-c", "echo no python here >&2; exit 1"], {"PATH": os.environ["PATH"]}) as link:
        for _ in range(200):
            with pytest.raises(LinkDead) as caught:
                link.call("basics.clock_ns", timeout_s=10)
            if "no python here" in str(caught.value):
                break
            time.sleep(0.01)
        assert "no python here" in str(caught.value)


def test_the_agent_and_what_it_runs_end_with_the_link(tmp_path: Path) -> None:
    link = start_link()
    pid = agent_pid(link)
    with pytest.raises(CallTimedOut):
        link.call(
            "basics.run", timeout_s=0.5, argv=["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 100"], limit_s=99
        )
    link.close()
    assert wait_until_gone(pid)
    assert wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_file_is_sent_whole_and_only_when_it_differs(link: AgentLink, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there" / "target"
    source.write_bytes(os.urandom(3_000_000))
    link.send_file(source, target, timeout_s=30, mode=0o600)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert target.stat().st_mode & 0o777 == 0o600
    sent = target.stat().st_ino
    link.send_file(source, target, timeout_s=30)
    assert target.stat().st_ino == sent
    source.write_bytes(b"")
    link.send_file(source, target, timeout_s=30)
    assert target.read_bytes() == b""
    assert list(target.parent.iterdir()) == [target]


def test_an_agent_that_stands_still_holds_nobody_up(link: AgentLink) -> None:
    pid = agent_pid(link)
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):  # more than a pipe takes
            with pytest.raises(CallTimedOut):
                link.call("basics.read_text", timeout_s=0.2, path="x" * 100_000)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert link.call("basics.clock_ns", timeout_s=10) > 0
