"""The master, its workers and our queue as real processes: from a commit to ingested samples, through crashes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from farm.basedirs import Program, known_port, prepare_master, prepare_worker, worker_password
from farm.results.database import open_database, reading
from farm.results.tables import Bundle, CheckIn, Reservation, SampleRow, Session
from farm.settings import CHECKOUT, Settings, load_settings
from tests.helpers.bundles import make_key
from tests.helpers.repositories import Repository

_PATIENCE_S = 60.0
_SETTINGS = """\
inventory = "{inventory}"
poll_interval_s = 0.5

[[repository]]
name = "tiny"
url = "tiny"

[[scenario]]
name = "probe"

[campaign]
blocks = [1, 2]

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
c = BuildmasterConfig = build_config(load_settings(), (sys.executable, "-m", "tests.helpers.session_program", {orders!r}))
"""


class Farm:
    """A whole farm in a folder; `orders` steers its session program."""

    def __init__(self, home: Path) -> None:
        self.home = home / "home"
        self.orders = home / "orders"
        self.orders.mkdir()
        self.repository = Repository(home / "tiny")
        self.repository.commit("Begin")
        self.repository.commit("Go on")
        file = home / "farm.toml"
        file.write_text(_SETTINGS.format(inventory=CHECKOUT / "inventory"))
        self.settings: Settings = load_settings(file, self.home)
        self.config = home / "master.cfg"
        self.config.write_text(_CONFIG.format(orders=str(self.orders)))
        for cluster in ("acorn", "birch"):
            make_key(self.home / "keys" / cluster)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_master(self) -> None:
        self._start(prepare_master(self.settings, self.config))

    def start_worker(self, cluster: str) -> None:
        self._start(prepare_worker(self.settings, cluster))

    def start(self) -> None:
        self.start_master()
        for cluster in ("acorn", "birch"):
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


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    built = Farm(tmp_path)
    try:
        yield built
    finally:
        built.stop()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_commits_are_measured_and_ingested_once_on_every_cluster(farm: Farm) -> None:
    farm.start()
    farm.wait_until_done(4)  # the history: two ordinals on two clusters
    farm.repository.commit("Another one")
    farm.wait_until_done(8)

    starts = farm.starts()
    assert len(starts) == 8
    tokens = [token for _, _, token, _ in starts]
    assert tokens == sorted(set(tokens)), "clusters on one machine take turns, each with a higher token"
    with reading(open_database(farm.settings.database_url)) as transaction:
        assert transaction.scalar(select(func.count()).select_from(CheckIn)) == 3
        assert transaction.scalar(select(func.count()).select_from(Bundle).where(Bundle.accepted)) == 8
        # history: 2 builds × 3 blocks × 2 clusters; the new check-in, its parent and the canary: 3 × 3 × 2
        assert transaction.scalar(select(func.count()).select_from(SampleRow)) == 2 * 3 * 2 + 3 * 3 * 2
    assert {session.progress["what"] for session in farm.sessions() if session.progress} == {"measuring"}

    def all_freed() -> bool:
        with reading(open_database(farm.settings.database_url)) as transaction:
            return not transaction.scalars(select(Reservation).where(Reservation.released_at.is_(None))).all()

    farm.wait_until(all_freed, "all reservations released")
    assert list((farm.home / "incoming").iterdir()) == []
    for cluster in ("acorn", "birch"):
        assert worker_password(farm.settings, cluster) not in farm.log("master")
        assert ((farm.home / "keys" / f"worker-{cluster}").stat().st_mode & 0o777) == 0o600


def test_pages_of_buildbot_control_nothing(farm: Farm) -> None:
    (farm.orders / "hold").touch()
    farm.start()
    farm.wait_until(farm.starts, "a session to run")
    base = f"http://127.0.0.1:{known_port(farm.settings, 'buildbot_port')}/api/v2"
    with urllib.request.urlopen(f"{base}/builders", timeout=10) as answer:
        assert {builder["name"] for builder in json.load(answer)["builders"]} == {"acorn", "birch"}
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


def test_a_killed_master_loses_and_doubles_nothing(farm: Farm) -> None:
    (farm.orders / "hold").touch()
    farm.start()
    farm.wait_until(farm.starts, "a session to run")
    first_session, _, first_token, pid = farm.starts()[0]
    farm.kill("master")
    farm.wait_until(lambda: not _alive(pid), "the worker to end its session")
    (farm.orders / "hold").unlink()
    farm.start_master()
    farm.wait_until_done(4)

    again = [(attempt, token) for session, attempt, token, _ in farm.starts() if session == first_session]
    assert [attempt for attempt, _ in again] == [1, 2]
    assert again[1][1] > first_token
    assert len(farm.starts()) == 5
    assert {session.failures for session in farm.sessions()} == {0}, "our own restart is nobody's failure"
    with reading(open_database(farm.settings.database_url)) as transaction:
        assert transaction.scalar(select(func.count()).select_from(Bundle)) == 4


def test_a_killed_worker_ends_its_session_program_and_the_session_is_tried_again(farm: Farm) -> None:
    (farm.orders / "hold").touch()
    farm.start()
    farm.wait_until(farm.starts, "a session to run")
    session, _, _, pid = farm.starts()[0]
    cluster = next(one.cluster for one in farm.sessions() if one.id == session)
    farm.kill(f"worker-{cluster}")
    (farm.orders / "hold").unlink()
    farm.start_worker(cluster)
    farm.wait_until_done(4)

    assert len(farm.starts()) == 5
    assert {one.id: (one.attempt, one.failures) for one in farm.sessions()}[session] == (2, 1)
    assert not _alive(pid)


def test_a_session_that_fails_is_tried_three_times_and_says_whose_fault_it_was(farm: Farm) -> None:
    (farm.orders / "refuse").write_text("4")
    farm.start()
    farm.wait_until(lambda: [one.state for one in farm.sessions()] == ["failed"] * 4, "all sessions failed")
    assert {(one.attempt, one.fault, one.message) for one in farm.sessions()} == {
        (3, "donor", "the host has no disk left")
    }
    assert len(farm.starts()) == 12
    with reading(open_database(farm.settings.database_url)) as transaction:
        assert transaction.scalar(select(func.count()).select_from(SampleRow)) == 0


def test_the_farms_own_configuration_is_valid(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    prepare_master(settings)
    checked = subprocess.run(
        (str(Path(sys.executable).parent / "buildbot"), "checkconfig", str(CHECKOUT / "master.cfg")),
        env={**os.environ, "FARM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout.strip()) == (0, "Config file is good!"), checked.stderr
