"""The main job from end to end, small but real: two clusters, a repository, Buildbot, guests, Swift, a site."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.cli.example import make_example_repository
from farm.settings import CHECKOUT
from workers import processes

HOME = Path(os.environ.get("FARM_HOME", CHECKOUT / "var"))
RUN_TIMEOUT_S = 600

pytestmark = pytest.mark.machine


class SmallFarm:
    """A farm of its own: one block a campaign, the two oldest check-ins of the example, two quick scenarios."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        for name in ("venv", "cache"):
            (self.home / name).symlink_to(HOME / name)
        self.repository = folder / "deployment"
        make_example_repository(self.repository)
        self.git("reset", "--quiet", "--hard", "main~2")
        self.settings = folder / "farm.toml"
        self.settings.write_text(
            f"""
inventory = "{CHECKOUT / "inventory"}"
[[repository]]
name = "small"
url = "deployment"
[campaign]
blocks = [1]
[[scenario]]
name = "boot"
[[scenario]]
name = "chunked_upload"
[addresses]
site_port = 0
buildbot_port = 0
worker_port = 0
"""
        )

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.invalid"]
        subprocess.run(["git", "-C", str(self.repository), *who, *arguments], check=True, timeout=30)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "farm.cli", "--settings", str(self.settings), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FARM_HOME": str(self.home), "PYTHONPATH": str(CHECKOUT)}

    def farm(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def data(self, *arguments: str) -> Any:
        return json.loads(self.farm(*arguments, "--json"))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / "run.log").open("ab") as log:
            return subprocess.Popen(self.command(*arguments), env=self.environment, stdout=log, stderr=log)

    def wait_for_session(self) -> int:
        """The pid of a session's program that has begun to measure."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            begun = [s for s in self.data("session", "list") if (s["progress"] or {}).get("done", 0) >= 1]
            found = processes_of(self.home)
            if begun and found.get("session"):
                return found["session"][0]
            time.sleep(0.5)
        raise AssertionError(f"no session began\n{self.logs()}")

    def logs(self) -> str:
        texts = [(path.name, path.read_text(errors="replace")[-2000:]) for path in (self.home / "log").glob("*.log")]
        return "\n".join(f"--- {name}\n{text}" for name, text in texts)


def processes_of(home: Path) -> dict[str, list[int]]:
    """Processes that know this farm's home, by what they are."""
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(home).encode() in told:
            kind = "session" if b"workers\0session" in told else "other"
            found.setdefault(kind, []).append(int(entry.name))
    return found


@pytest.fixture
def small_farm(tmp_path: Path) -> Iterator[SmallFarm]:
    farm = SmallFarm(tmp_path)
    yield farm
    subprocess.run(farm.command("down"), env=farm.environment, timeout=120, capture_output=True)
    assert processes_of(farm.home) == {}


def test_a_repository_is_measured_on_both_clusters_published_and_left_clean(small_farm: SmallFarm) -> None:
    told = small_farm.farm("up", "--once")

    sessions = small_farm.data("session", "list")
    assert {(s["cluster"], s["state"]) for s in sessions} == {("acorn", "done"), ("birch", "done")}
    samples = small_farm.data("results")
    assert {s["scenario"] for s in samples} == {"boot", "chunked_upload"}
    assert {s["cluster"] for s in samples} == {"acorn", "birch"}
    assert all(s["valid"] for s in samples)
    assert {s["fidelity"] for s in samples} == {"emulated"}
    revisions = {s["revision"] for s in samples}
    assert len(revisions) == 2
    assert small_farm.data("regressions") == []
    verdicts = {row["verdict"] for row in small_farm.data("compare")}
    assert verdicts == {"not judged"}  # one block is too little to accuse anybody

    site = small_farm.home / "site"
    assert str(site / "index.html") in told
    assert "Acorn Hosting" in (site / "index.html").read_text()
    assert (site / "data" / "samples.csv").read_text().count("\n") > len(samples)
    assert processes_of(small_farm.home) == {}
    assert not processes.marked("FARM_LEASE", [s["id"] for s in sessions])

    assert "what was found" in small_farm.farm("up", "--once")
    assert small_farm.data("session", "list") == sessions  # nothing new, nothing measured again


def test_killed_at_any_part_it_goes_on_and_loses_and_doubles_nothing(small_farm: SmallFarm) -> None:
    first = small_farm.start("up", "--once")
    session_pid = small_farm.wait_for_session()
    os.kill(session_pid, signal.SIGKILL)
    time.sleep(3.0)  # the worker tells the master
    first.kill()  # the supervisor too; its processes end by themselves
    first.wait(timeout=30)

    small_farm.farm("up", "--once")

    sessions = small_farm.data("session", "list")
    assert {(s["state"], s["message"]) for s in sessions} == {("done", None)}
    assert max(s["attempt"] for s in sessions) >= 2
    identities = [
        (s["session"], s["block"], s["round"], s["revision"], s["scenario"], s["metric"], json.dumps(s["params"]))
        for s in small_farm.data("results")
    ]
    assert len(identities) == len(set(identities))
    assert {(s["cluster"], s["scenario"]) for s in small_farm.data("results")} == {
        (cluster, scenario) for cluster in ("acorn", "birch") for scenario in ("boot", "chunked_upload")
    }
    assert processes_of(small_farm.home) == {}
