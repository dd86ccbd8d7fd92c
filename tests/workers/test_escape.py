"""A check-in that tries to get out of the walls does not."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import escapee
from tests.helpers.check_ins import CHECKOUT, FARM_HOME, DeploymentRepository, example_lock, recipe
from tests.helpers.object_stores import Bed, storage_bed
from workers.builds import Workshop, resolve

pytestmark = pytest.mark.machine

FILTER = """
[[component]]
name = "helpful"
source = { path = "src" }
[[swift.filters]]
name = "helpful"
factory = "escapee:filter_factory"
"""
WORD = "a-word-of-the-victim"
VICTIM = f"""# {WORD}
import signal, time
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(300)
"""


@pytest.fixture(scope="module")
def bed(local_home: Path) -> Iterator[Bed]:
    with storage_bed(local_home, "escape", payload_mib=4) as bed:
        yield bed


@pytest.fixture
def targets(bed: Bed, local_home: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Real things to reach: files as a farm has them, a process, listeners on the machine's loopback."""
    keys = local_home / "keys"
    keys.mkdir(exist_ok=True)
    secrets = [keys / "acorn", local_home / "farm.sqlite", tmp_path / "open-to-all"]
    for secret in secrets:
        secret.write_text("secret")
    abstract, socket_file = f"farm-test-{os.getpid()}", tmp_path / "socket"
    with ExitStack() as stack:
        victim = stack.enter_context(subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE))
        stack.callback(victim.kill)
        assert victim.stdout is not None
        assert victim.stdout.readline()
        listener = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        for address in (f"\0{abstract}", str(socket_file)):
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(address)
            unix.listen()
        yield {
            "secrets": [
                *map(str, secrets),
                "/root",
                "/etc/shadow",
                str(CHECKOUT),
                str(FARM_HOME),
                str(bed.mark.folder),
            ],
            "writable": [
                *map(str, secrets),
                "/usr/bin/farm-test",
                "/etc/farm-test",
                "/code/swift/x",
                "/farm/supervisor.py",
            ],
            "pid": victim.pid,
            "word": WORD,
            "port": listener.getsockname()[1],
            "abstract": abstract,
            "socket": str(socket_file),
            # the machine's own address, if it has one, and one that leads nowhere, beyond the test network
            "addresses": [*_own_addresses(), "192.0.2.1"],
            "processes": 3000,
        }


def _own_addresses() -> list[str]:
    listing = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False, timeout=10)
    return [address for address in listing.stdout.split() if ":" not in address]


def test_the_attempts_work_where_there_are_no_walls(targets: dict[str, Any]) -> None:
    """Otherwise their failing inside would prove nothing."""
    harmless = ("read", "signal", "see", "look", "loopback", "abstract", "socket", "have")
    works = {name for name, attempt in escapee.attempts(targets) if name.startswith(harmless) and _holds(attempt)}
    expected = {f"read {path}" for path in targets["secrets"]} | {
        f"signal {targets['pid']}", "see a process", "look into a process", "loopback", "abstract socket", "socket file",
        "have capabilities",
    }  # fmt: skip
    assert expected <= works


def _holds(attempt: escapee.Attempt) -> bool:
    try:
        return attempt() is not False
    except OSError:
        return False


def test_nothing_gets_out(bed: Bed, targets: dict[str, Any], tmp_path: Path) -> None:
    repository = DeploymentRepository(tmp_path / "repository")
    planned = repository.check_in(
        {
            "stack.toml": recipe(rest=FILTER),
            "lock.txt": example_lock(),
            "src/escapee.py": Path(escapee.__file__).read_text(),
            "src/targets.json": json.dumps(targets),
        }
    )
    build = resolve(planned, Workshop(FARM_HOME, "test", repository.path.parent / "session"))
    with bed.deploy(build) as deployment:
        url = f"http://{deployment.address}:{deployment.port}/escape"
        fetch = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=60).read().decode())"
        found = json.loads(bed.observer.run(["/usr/bin/python3", "-c", fetch], timeout_s=90))
        log = deployment.logs()["proxy"]
    assert found["tried"] > 50
    assert (found["import"], found["request"]) == ([], [])
    assert "escaped at import: []" in log
    assert [Path(path).read_text() for path in targets["secrets"][:3]] == ["secret"] * 3
