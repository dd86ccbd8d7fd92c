"""The master, its workers and our queue as real processes: from a commit to ingested samples, through crashes."""

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session as Transaction

from farm.basedirs import CannotPrepare, Program, known_port, prepare_master, prepare_worker, worker_password
from farm.results.database import open_database, reading, transact
from farm.results.tables import Bundle, CheckIn, Reservation, SampleRow, Session
from farm.sessions import cancel
from farm.settings import CHECKOUT, Settings, load_settings
from tests.helpers.bundles import make_key
from tests.helpers.repositories import Repository

_PATIENCE_S = 150.0  # for a machine that is busy with other things
_SETTINGS = """\
inventory = "{inventory}"
clusters = {clusters}
poll_interval_s = 0.5

[[repository]]
name = "tiny"
url = "tiny"

[[scenario]]
name = "probe"

[campaign]
blocks = [1]

[addresses]
site_port = 0
buildbot_port = 0
worker_port = 0
"""
_CONFIG = """\
import sys
from farm.master import build_config
from farm.settings import load_settings
from scenarios.registry import SCENARIOS
from tests.helpers.probe import PROBE

SCENARIOS[PROBE.name] = PROBE
c = BuildmasterConfig = build_config(load_settings(), ("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "tests.helpers.session_program", {orders!r}))
"""


class Farm:
    """A whole farm in a folder; `orders` steers its session program."""

    def __init__(self, home: Path, clusters: Sequence[str]) -> None:
        self.clusters = list(clusters)
        self.home = home / "home"
        self.orders = home / "orders"
        self.orders.mkdir()
        self.repository = Repository(home / "tiny")
        self.repository.commit("Begin")
        self.repository.commit("Go on")
        file = home / "farm.toml"
        file.write_text(_SETTINGS.format(inventory=CHECKOUT / "inventory", clusters=self.clusters))
        self.settings: Settings = load_settings(file, self.home)
        self.config = home / "master.cfg"
        self.config.write_text(_CONFIG.format(orders=str(self.orders)))
        for cluster in self.clusters:
            make_key(self.home / "keys" / cluster)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_master(self) -> None:
        self._start(prepare_master(self.settings, self.config))

    def start_worker(self, cluster: str) -> None:
        self._start(prepare_worker(self.settings, cluster))

    def start(self) -> None:
        self.start_master()
        for cluster in self.clusters:
            self.start_worker(cluster)

    def _start(self, program: Program) -> None:
        self.processes[program.name] = subprocess.Popen(
            program.command,
            cwd=program.folder,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait(timeout=10)

    def stop(self) -> None:
        (self.orders / "hold").unlink(missing_ok=True)
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            process.wait(timeout=10)

    def sessions(self) -> list[Session]:
        with reading(open_database(self.settings.database_url)) as transaction:
            return list(transaction.scalars(select(Session).order_by(Session.created_at, Session.id)))

    def starts(self) -> list[tuple[str, int, int, int]]:
        """(session, attempt, token, pid) of every session program so far."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.orders / "starts").read_text().splitlines()
            return [(s, int(a), int(t), int(p)) for s, a, t, p in (line.split() for line in lines)]
        return []

    def running(self) -> bool:
        """Whether any session program is alive."""
        return any(_alive(pid) for _, _, _, pid in self.starts())

    def ask(self, work: Callable[[Transaction], object]) -> None:
        transact(open_database(self.settings.database_url), work)

    def wait_until(self, happened: Callable[[], object], what: str) -> None:
        give_up_at = time.monotonic() + _PATIENCE_S
        while not happened():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < give_up_at, f"not in {_PATIENCE_S} s: {what}\n{self.log('master')}"
            time.sleep(0.1)

    def wait_until_done(self, count: int) -> None:
        def all_done() -> bool:
            found = self.sessions()
            return len(found) == count and all(session.state == "done" for session in found)

        self.wait_until(all_done, f"{count} sessions done")

    def log(self, name: str) -> str:
        file = self.home / "buildbot" / name / "twistd.log"
        return file.read_text()[-6000:] if file.exists() else "no log"


FarmMaker = Callable[[Sequence[str]], Farm]


@pytest.fixture
def make_farm(tmp_path: Path) -> Iterator[FarmMaker]:
    """Builds one farm with the named clusters, and ends all its processes after the test."""
    built: list[Farm] = []

    def make(clusters: Sequence[str]) -> Farm:
        built.append(Farm(tmp_path, clusters))
        return built[0]

    try:
        yield make
    finally:
        for farm in built:
            farm.stop()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _count(farm: Farm, query: Select[Any]) -> int:
    with reading(open_database(farm.settings.database_url)) as transaction:
        return transaction.scalar(select(func.count()).select_from(query.subquery())) or 0


def test_commits_are_measured_and_ingested_once_on_every_cluster(make_farm: FarmMaker) -> None:
    farm = make_farm(("acorn", "birch"))
    farm.start()
    farm.wait_until_done(2)  # the history
    farm.repository.commit("Another one")
    farm.wait_until_done(4)

    tokens = [token for _, _, token, _ in farm.starts()]
    assert tokens == sorted(set(tokens)), "clusters on one machine take turns, each with a higher token"
    assert len(tokens) == 4
    assert _count(farm, select(CheckIn)) == 3
    assert _count(farm, select(Bundle).where(Bundle.accepted)) == 4
    # one block each: the two builds of the history; the new check-in, its parent and the canary
    assert _count(farm, select(SampleRow)) == 2 * 2 + 3 * 2
    assert {session.progress["what"] for session in farm.sessions() if session.progress} == {"measuring"}
    held = select(Reservation).where(Reservation.released_at.is_(None))
    farm.wait_until(lambda: _count(farm, held) == 0, "all reservations released")
    assert list((farm.home / "incoming").iterdir()) == []
    for cluster in farm.clusters:
        assert worker_password(farm.settings, cluster) not in farm.log("master")
        assert ((farm.home / "keys" / f"worker-{cluster}").stat().st_mode & 0o777) == 0o600
    _assert_pages_control_nothing(farm)


def _assert_pages_control_nothing(farm: Farm) -> None:
    base = f"http://127.0.0.1:{known_port(farm.settings, 'buildbot_port')}/api/v2"
    with urllib.request.urlopen(f"{base}/builders", timeout=10) as answer:
        assert {builder["name"] for builder in json.load(answer)["builders"]} == set(farm.clusters)
    for path, method in (
        ("builds/1", "stop"),
        ("builds/1", "rebuild"),
        ("buildrequests/1", "cancel"),
        ("workers/1", "kill"),
    ):
        request = urllib.request.Request(
            f"{base}/{path}",
            data=json.dumps({"id": 1, "jsonrpc": "2.0", "method": method, "params": {"reason": "no"}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403, path
        refused.value.close()


def test_killed_workers_and_masters_lose_and_double_nothing(make_farm: FarmMaker) -> None:
    farm = make_farm(("acorn",))
    (farm.orders / "hold").touch()
    farm.start()
    farm.wait_until(farm.starts, "a session to run")
    farm.kill("worker-acorn")
    farm.wait_until(lambda: not farm.running(), "the session program to end with its worker")
    farm.start_worker("acorn")
    farm.wait_until(lambda: len(farm.starts()) == 2, "the session to run again")
    farm.kill("master")
    farm.wait_until(lambda: not farm.running(), "the worker to end the session program without its master")
    (farm.orders / "hold").unlink()
    farm.start_master()
    farm.wait_until_done(1)

    starts = farm.starts()
    assert [attempt for _, attempt, _, _ in starts] == [1, 2, 3]
    tokens = [token for _, _, token, _ in starts]
    assert tokens == sorted(set(tokens))
    assert [session.failures for session in farm.sessions()] == [1], "our own restart is nobody's failure"
    assert _count(farm, select(Bundle)) == 1
    assert _count(farm, select(SampleRow)) == 2


def test_failures_are_counted_and_cancelled_sessions_are_ended(make_farm: FarmMaker) -> None:
    farm = make_farm(("birch",))
    (farm.orders / "refuse").write_text("4")
    farm.start()
    farm.wait_until(lambda: [one.state for one in farm.sessions()] == ["failed"], "the session failed")
    (failed,) = farm.sessions()
    assert (failed.attempt, failed.fault, failed.message) == (3, "donor", "the host has no disk left")
    assert len(farm.starts()) == 3
    assert _count(farm, select(SampleRow)) == 0

    (farm.orders / "refuse").unlink()
    (farm.orders / "hold").touch()
    farm.repository.commit("Unwanted")
    farm.wait_until(lambda: len(farm.starts()) == 4, "the next session to run")
    farm.ask(lambda transaction: cancel(transaction, farm.starts()[3][0], datetime.datetime.now(datetime.UTC)))
    farm.wait_until(lambda: not farm.running(), "its program to be ended")
    (farm.orders / "hold").unlink()
    farm.repository.commit("Wanted")
    farm.wait_until(
        lambda: [one.state for one in farm.sessions()] == ["failed", "cancelled", "done"], "the next one to be done"
    )
    assert len(farm.starts()) == 5


def test_the_farms_own_configuration_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "farm.toml"
    file.write_text("[addresses]\nsite_port = 0\nbuildbot_port = 0\nworker_port = 0\n")
    prepare_master(load_settings(file, tmp_path))
    checked = subprocess.run(
        (str(Path(sys.executable).parent / "buildbot"), "checkconfig", str(CHECKOUT / "master.cfg")),
        env={**os.environ, "FARM_HOME": str(tmp_path), "SETTINGS": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout.strip()) == (0, "Config file is good!"), checked.stderr


def test_a_port_that_is_taken_says_so_before_anything_is_changed(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        file = tmp_path / "farm.toml"
        file.write_text(f"[addresses]\nbuildbot_port = 0\nworker_port = {port}\n")
        home = tmp_path / "home"
        with pytest.raises(CannotPrepare, match=rf"port {port} is taken: .*addresses\.worker_port"):
            prepare_master(load_settings(file, home))
        assert not home.exists()
