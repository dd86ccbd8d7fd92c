"""`farm cluster check`: twenty machines behind a real sshd each, of which three are not well, each in its own way."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from scenarios.crossing import PlannedHost
from tests.helpers.local_clusters import CHECKOUT, start_bare_guest
from tests.helpers.ssh_hosts import LENT, SshHosts, make_key, ssh_hosts, standing_in

pytestmark = pytest.mark.machine

HOSTS = 20
SWITCH = "10.77.0.254"
REFUSED, ANOTHER, SILENT = "h5", "h11", "h17"


@dataclass(frozen=True)
class Twenty:
    lent: SshHosts
    planned: tuple[PlannedHost, ...]

    def inventory(self, file: Path, driver: str = "qemu", **lent: object) -> Path:
        values = {name: getattr(replace(LENT, **lent), name) for name in LENT.__dataclass_fields__}  # type: ignore[arg-type]
        lines = ['name = "twenty"', 'description = "x"', f'driver = "{driver}"', "publish = false"]
        donor = {
            "name": "Elm",
            "logo": "elm.svg",
            "url": "https://elm.example/",
            "statement": "x",
            "contact": "x@elm.example",
        }
        lines += _table("donor", donor) + _table("storage", {"disks": 3, "disk_mib": 512}) + _table("lent", values)
        lines += _table("[signing_key]", {"file": "keys/twenty.pub"})
        for host in self.planned:
            lines += _table(
                "[host]", {name: getattr(host, name) for name in ("name", "uri", "zone", "address", "host_key")}
            )
        file.write_text("\n".join(lines) + "\n")
        return file

    def check(self, file: Path, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "farm.cli", "cluster", "check", str(file), *arguments]
        environment = {**os.environ, "FARM_HOME": str(self.lent.home), "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twenty]:
    home = tmp_path_factory.mktemp("twenty")
    with ssh_hosts(home, name="twenty") as lent, standing_in(lent.switch), _one_that_says_nothing() as silent:
        user_key = (home / "secrets" / "ssh" / "twenty.pub").read_text()
        planned = []
        for number in range(1, HOSTS + 1):
            host = lent.hosts[number % len(lent.hosts)]
            name, address = f"h{number}", f"10.77.0.{10 + number}"
            _give(host.pid, address)
            users = make_key(home / "another-user") if name == REFUSED else user_key
            shown = lent.start_sshd(host, 2200 + number, users)
            shown = make_key(home / "another-machine") if name == ANOTHER else shown
            where = silent if name == SILENT else f"{host.address}:{2200 + number}"
            planned.append(PlannedHost(name, f"ssh://root@{where}", "here", address, shown))
        yield Twenty(lent, tuple(planned))


def test_three_of_twenty_are_named_with_what_to_do_and_nothing_is_changed(twenty: Twenty, tmp_path: Path) -> None:
    start_bare_guest(twenty.lent.hosts[0], "somebodys")
    before = _state(twenty)
    status, told = twenty.check(twenty.inventory(tmp_path / "twenty.toml"), "--json")
    assert status == 1, told
    found = json.loads(told)
    assert not found["ok"]
    assert found["worker"] is None
    answers = {host["host"]: {one["question"]: one for one in host["answers"]} for host in found["hosts"]}
    ill = {name: _told(host) for name, host in answers.items() if not all(one["ok"] for one in host.values())}
    assert set(ill) == {REFUSED, ANOTHER, SILENT}, ill
    assert "Permission denied" in ill[REFUSED]
    assert "authorized_keys" in ill[REFUSED]
    assert "Host key verification failed" in ill[ANOTHER]
    assert "before you change host_key" in ill[ANOTHER]
    assert "timed out" in ill[SILENT]
    assert set(answers["h1"]) >= {
        "reachable",
        "clock",
        "rights",
        "folders",
        "network",
        "load",
        "room",
        "libvirt",
        "pools",
    }
    assert {one["foreign guests"]["found"] for name, one in answers.items() if name in ("h2", "h4")} == {
        "somebodys: they stay as they are"
    }
    assert set(found["scenarios"]) >= {"boot", "live_migration"}
    assert _state(twenty) == before
    assert not (twenty.lent.home / "clusters" / "twenty").exists()
    assert "PRIVATE KEY" not in told


def test_what_is_not_there_is_told_in_words(twenty: Twenty, tmp_path: Path) -> None:
    only = replace(twenty.planned[0], address="10.77.0.99"), twenty.planned[1]
    file = Twenty(twenty.lent, only).inventory(
        tmp_path / "elsewhere.toml", "kvm", bridge="br7", folder="/srv/nothing", memory_mib=10**7, most_load=1e-9
    )
    status, told = twenty.check(file)
    assert status == 1, told
    assert "no bridge br7 into the network 10.77.0.0/24" in told
    assert told.count("there is no bridge br7") == 2
    assert told.count("there is no /srv/nothing/work, /srv/nothing/shared, /srv/nothing/console") == 2
    assert told.count("at most 0% is stated") == 2
    assert told.count("libvirt lists no kvm, driver kvm is asked for") == 2
    assert "10000000 and 2048 are lent" in told
    assert "0 of 2 hosts are in order" in told


def _told(host: dict[str, Any]) -> str:
    return "; ".join(f"{one['found']} → {one['remedy']}" for one in host.values() if not one["ok"])


def _state(twenty: Twenty) -> list[str]:
    """All files that the hosts have of what is lent, with their times, and the processes of both."""
    find = "find /srv /etc/libvirt /run/libvirt -printf '%p %T@ %u\\n' | sort; ls /proc | grep -c ."
    texts = []
    for host in twenty.lent.hosts:
        enter = ["nsenter", f"--target={host.pid}", "--mount", "--net", "--pid"]
        done = subprocess.run([*enter, "sh", "-c", find], capture_output=True, text=True, timeout=30, check=True)
        texts.append("\n".join(line for line in done.stdout.splitlines()[:-1]))
    return texts


def _give(pid: int, address: str) -> None:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "address", "add", f"{address}/32", "dev", "br0"]
    subprocess.run(command, check=True, timeout=10)


@contextlib.contextmanager
def _one_that_says_nothing() -> Iterator[str]:
    """A listener whose connections are accepted by the kernel, and by nobody else."""
    with socket.create_server((SWITCH, 0), backlog=64) as listening:
        yield f"{SWITCH}:{listening.getsockname()[1]}"


def _table(name: str, values: Mapping[str, object]) -> list[str]:
    return [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
