"""The walls themselves: what is inside, what it may use up, and that nothing stays of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.local_clusters import wait_for
from workers import processes
from workers.loops import loops_of
from workers.sandbox import Sandbox, Walls, start

pytestmark = pytest.mark.machine
LEASE = "sandbox-test"


@pytest.fixture
def network() -> Iterator[Path]:
    """A network namespace with nothing in it."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True) as holder:
        path = Path(f"/proc/{holder.pid}/ns/net")
        assert wait_for(lambda: os.readlink(path) != os.readlink("/proc/self/ns/net"))
        yield path
        holder.kill()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    return image


@pytest.fixture
def walls(network: Path, disk: Path, tmp_path: Path) -> Walls:
    (tmp_path / "code").mkdir()
    return Walls(
        network_namespace=network,
        folders={"/code": tmp_path / "code"},
        texts={"/etc/given/text": "given\n"},
        disks={"/srv/d1": disk},
        writable=("/run",),
        environment={"GIVEN": "1"},
        processes=50,
        memory_mib=1024,
    )


def run(walls: Walls, program: str, run_dir: Path) -> list[str]:
    """What a Python program says inside the walls, with its last line `done`."""
    lines: list[str] = []
    run_dir.mkdir()
    command = ["/usr/bin/python3", "-c", f"{program}\nprint('done', flush=True)\nimport sys; sys.stdin.read()"]
    sandbox = start(
        walls, command, lease=LEASE, run_dir=run_dir, on_line=lambda line: lines.append(line.decode().strip())
    )
    try:
        assert wait_for(lambda: "done" in lines or not sandbox.alive()), lines
    finally:
        sandbox.end()
    assert lines[-1:] == ["done"], lines
    return lines[:-1]


def test_it_sees_what_it_was_given_and_no_more(walls: Walls, tmp_path: Path) -> None:
    program = """
import os
print(sorted(os.listdir('/')), sorted(os.listdir('/dev')), sorted(os.listdir('/etc')))
print(sorted(n for n in os.listdir('/proc') if n.isdigit()), os.getuid() > 100000, os.getgroups() == [])
print(open('/etc/given/text').read().strip(), sorted(os.environ), os.listdir('/proc/sys/net/ipv4/conf'))
"""
    lines = run(walls, program, tmp_path / "run")
    root = ["bin", "code", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "srv", "tmp", "usr"]
    devices = ["fd", "full", "null", "random", "urandom", "zero"]
    etc = ["given", "group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd"]
    assert lines[0] == f"{root} {devices} {etc}"
    assert lines[1] == "['1'] True True"
    assert lines[2].startswith("given ['FARM_LEASE', 'GIVEN', ")
    assert lines[2].endswith("['all', 'default', 'lo']")


def test_it_can_write_its_disk_and_memory_only(walls: Walls, tmp_path: Path) -> None:
    program = """
for path in ('/srv/d1/x', '/run/x', '/tmp/x', '/x', '/code/x', '/usr/bin/x', '/etc/x', '/etc/given/text', '/dev/x'):
    try:
        open(path, 'w').write('x')
        print(path)
    except OSError:
        pass
"""
    assert run(walls, program, tmp_path / "run") == ["/srv/d1/x", "/run/x", "/tmp/x"]


def test_processes_memory_and_scratch_are_limited(walls: Walls, tmp_path: Path) -> None:
    program = """
import os, time
children = 0
try:
    while children < 500:
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        children += 1
except OSError as error:
    print('processes', children < 50, error.errno == 11)
try:
    bytearray(2 << 30)
except MemoryError:
    print('memory')
try:
    with open('/tmp/x', 'wb') as file:
        for _ in range(1000):
            file.write(bytes(1 << 20))
except OSError as error:
    print('scratch', error.errno == 28)
"""
    assert run(walls, program, tmp_path / "run") == ["processes True True", "memory", "scratch True"]


def start_idle(walls: Walls, run_dir: Path) -> Sandbox:
    run_dir.mkdir()
    command = ["/bin/sh", "-c", "setsid sleep 300 & setsid env -u FARM_LEASE sleep 301 & wait"]
    return start(walls, command, lease=LEASE, run_dir=run_dir, on_line=lambda line: None)


def test_the_end_takes_all_of_it(walls: Walls, disk: Path, tmp_path: Path) -> None:
    sandbox = start_idle(walls, tmp_path / "run")
    assert wait_for(lambda: len(sandbox.processes()) == 3)
    inside = sandbox.processes()
    assert loops_of(disk)
    sandbox.end()
    assert not loops_of(disk)
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]


def test_a_disk_in_use_is_not_touched(walls: Walls, disk: Path, tmp_path: Path) -> None:
    sandbox = start_idle(walls, tmp_path / "run")
    try:
        with pytest.raises(Failed, match="in use") as caught:
            start_idle(walls, tmp_path / "other")
        assert caught.value.fault == "farm"
        assert wait_for(lambda: len(sandbox.processes()) == 3)
    finally:
        sandbox.end()


def test_walls_that_cannot_stand_say_why(walls: Walls, tmp_path: Path) -> None:
    missing = Walls(**{**walls.__dict__, "folders": {"/code": tmp_path / "missing"}})
    with pytest.raises(Failed, match="missing") as caught:
        start_idle(missing, tmp_path / "run")
    assert caught.value.fault == "farm"


@pytest.mark.parametrize("who", ["session", "launcher", "first"])
def test_nothing_stays_whoever_is_killed(walls: Walls, disk: Path, tmp_path: Path, who: str) -> None:
    """A session is killed -9; whatever is left of its sandbox ends with what carries its mark."""
    (tmp_path / "run").mkdir()
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in walls.__dict__.items()}
    plain |= {"folders": {"/code": str(tmp_path / "code")}, "disks": {"/srv/d1": str(disk)}}
    program = """
import json, sys, time
from pathlib import Path
from workers.sandbox import Walls, start
given = json.loads(sys.argv[1])
given['network_namespace'] = Path(given['network_namespace'])
for name in ('folders', 'disks'):
    given[name] = {inside: Path(outside) for inside, outside in given[name].items()}
command = ['/bin/sh', '-c', 'setsid env -u FARM_LEASE sleep 300 & exec sleep 301']
sandbox = start(Walls(**given), command, lease=sys.argv[3], run_dir=Path(sys.argv[2]), on_line=lambda line: None)
print(sandbox.pid, sandbox._launcher.pid, flush=True)
time.sleep(300)
"""
    session = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(plain), str(tmp_path / "run"), LEASE],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert session.stdout is not None
    first, launcher = map(int, session.stdout.readline().split())
    namespace = processes.pid_namespace(first)

    def inside() -> list[int]:
        return [pid for pid in processes.all_pids() if processes.pid_namespace(pid) == namespace]

    assert wait_for(lambda: len(inside()) == 2)
    os.kill({"session": session.pid, "launcher": launcher, "first": first}[who], signal.SIGKILL)
    session.kill()
    session.wait(10)
    session.stdout.close()
    processes.end_all(lambda: processes.marked(processes.LEASE_VARIABLE, [LEASE]), timeout_s=10)
    assert wait_for(lambda: not inside() and not loops_of(disk))
