"""The farm's processes are started once, recognised by identity, and ended for certain."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from farm.cli.errors import UsageError
from farm.cli.processes import Component, ProcessTable
from farm.cli.supervisor import Supervisor, supervisor_pid


def sleeper(tmp_path: Path, code: str = "import time; time.sleep(60)") -> Component:
    return Component("sleeper", [sys.executable, "-c", code], tmp_path, dict(os.environ), stop_timeout_s=2.0)


def test_starting_twice_starts_one_process(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    table.start(sleeper(tmp_path))
    first = table.pid_of("sleeper")
    table.start(sleeper(tmp_path))
    assert first is not None
    assert table.pid_of("sleeper") == first
    assert table.stop("sleeper", 5.0)
    assert table.pid_of("sleeper") is None


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    table.start(sleeper(tmp_path, code))
    wait_for_text(tmp_path / "log" / "sleeper.log", "deaf")
    table.stop("sleeper", 0.3)
    assert table.pid_of("sleeper") is None


def test_a_recycled_pid_is_not_taken_for_ours(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    table.start(sleeper(tmp_path))
    pid = table.pid_of("sleeper")
    assert pid is not None
    record = tmp_path / "run" / "sleeper.json"
    record.write_text(json.dumps({"pid": os.getpid(), "start_time": "1"}))
    assert table.pid_of("sleeper") is None
    assert not table.stop("sleeper", 1.0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_second_supervisor_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first, second = Supervisor(tmp_path, [sleeper(tmp_path)]), Supervisor(tmp_path, [sleeper(tmp_path)])
    first.start()
    with pytest.raises(UsageError, match=f"pid {os.getpid()}"):
        second.start()
    first.stop()


def test_a_dead_component_is_started_again_but_not_for_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = Supervisor(tmp_path, [sleeper(tmp_path)])
    supervisor.start()
    for _ in range(4):
        before = supervisor.table.pid_of("sleeper")
        assert before is not None
        os.kill(before, signal.SIGKILL)
        os.waitpid(before, 0)
        supervisor.watch()
        assert supervisor.table.pid_of("sleeper") not in (None, before)
    last = supervisor.table.pid_of("sleeper")
    assert last is not None
    os.kill(last, signal.SIGKILL)
    os.waitpid(last, 0)
    with pytest.raises(UsageError, match="sleeper ended 5 times"):
        supervisor.watch()
    assert "starting it again" in capsys.readouterr().err
    supervisor.stop()


def test_no_supervisor_is_no_pid(tmp_path: Path) -> None:
    assert supervisor_pid(tmp_path / "supervisor.lock") is None


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
