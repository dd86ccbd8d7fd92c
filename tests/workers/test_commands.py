"""`python -m workers`, run as a person or Buildbot runs it."""

import contextlib
import fcntl
import json
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.local_clusters import CHECKOUT, planned_cluster, wait_for


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "workers", *arguments]


def workers(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=CHECKOUT, capture_output=True, text=True, timeout=100)


@pytest.mark.machine
def test_hosts_go_up_and_down_and_tell_their_status(local_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps(asdict(planned_cluster("pine", hosts=1))))
    where = ("--home", str(local_home), "--cluster", str(file))
    try:
        up = workers("hosts", "up", *where)
        assert (up.returncode, up.stdout) == (0, "h1: up\n")
        status = json.loads(workers("hosts", "status", *where, "--json").stdout)
        assert [(host["name"], host["answers"], host["guests"]) for host in status["hosts"]] == [("h1", True, [])]
        swept = workers("sweep", *where, "--json")
        assert (swept.returncode, json.loads(swept.stdout)["failures"]) == (0, [])
    finally:
        down = workers("hosts", "down", *where)
    assert (down.returncode, down.stdout) == (0, "h1: down\n")
    assert workers("hosts", "status", *where).returncode == 1


def changed(**changes: Any) -> str:
    return json.dumps({**asdict(planned_cluster("pine", hosts=1)), **changes})


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("{", "--cluster: not valid JSON"),
        ("/nowhere/cluster.json", "--cluster: .*No such file or directory"),
        (changed(colour="red"), "--cluster: colour is unknown"),
        (changed(hosts="h1"), "--cluster: hosts must be a list"),
        (changed(hosts=[{"name": "h1", "uri": "ssh://h1", "zone": "z"}]), "host h1: uri 'ssh://h1' is neither"),
    ],
)
def test_bad_input_gets_one_clear_line(tmp_path: Path, text: str, refusal: str) -> None:
    done = workers("hosts", "status", "--home", str(tmp_path), "--cluster", text)
    assert done.returncode in (2, 5)
    assert len(done.stderr.splitlines()) == 1
    assert re.search(refusal, done.stderr)


def test_sigterm_ends_a_command_by_the_way_of_its_cleaning_up(tmp_path: Path) -> None:
    folder = tmp_path / "clusters" / "pine"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            command("hosts", "up", "--home", str(tmp_path), "--cluster", changed()), cwd=CHECKOUT
        )
        assert wait_for(lambda: str(folder / "lock") in _open_files(waiting.pid))
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(30) == 128 + signal.SIGTERM


def _open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while it is looked at
            found.append(str(link.readlink()))
    return found
