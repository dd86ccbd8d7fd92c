"""How soon a new revision of Swift can be measured: ready with a warm environment, and up on the cluster's disks.

`python -m bench.builds` makes a deployment repository whose check-ins pin several releases under one lock. The first
one pays for the environment; each other is a new revision then. Times are of this machine: leave it alone for them.
"""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.pairs import Row
from farm.settings import CHECKOUT, load_settings
from scenarios.crossing import PlannedBuild, PlannedCluster, PlannedHost, revision_of
from workers.builds import Build, Workshop, resolve
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.stacks.swift import deploy

RELEASES = ("2.38.3", "2.35.5", "2.38.2", "2.38.1")
READY_S, UP_S = 5.0, 4.0
_LOCK = CHECKOUT / "examples" / "deployment" / "1-deploy-swift-and-guests" / "lock.txt"
_RECIPE = """lock = "lock.txt"
[stack]
name = "bench"
deployer = "swift"
[[component]]
name = "swift"
source = {{ pypi = "swift=={release}" }}
"""


def run(home: Path) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as folder:
        own = Path(folder)
        (own / "cache").mkdir()
        for name in ("venv", "cache/pip", "cache/software"):
            (own / name).symlink_to(home / name)
        planned = _check_ins(own / "repository")
        workshop = Workshop(own, "bench", own / "session")
        build = resolve(planned[0], workshop)
        ready_s = [_seconds_of(one, workshop) for one in planned[1:]]
        up_s = _up_s(own, build, len(ready_s))
    return [_row("Swift: a new revision ready", ready_s, READY_S), _row("Swift: up on 4 disks", up_s, UP_S)]


def _row(what: str, seconds: list[float], target_s: float) -> Row:
    middle_s = statistics.median(seconds)
    figure = f"{middle_s:.1f} s (median of {', '.join(f'{one:.1f}' for one in seconds)})"
    return Row(what, figure, f"within {target_s:g} s", middle_s <= target_s)


def _seconds_of(planned: PlannedBuild, workshop: Workshop) -> float:
    began = time.monotonic()
    resolve(planned, workshop)
    return time.monotonic() - began


def _up_s(home: Path, build: Build, times: int) -> list[float]:
    """Seconds until it answers, deployed afresh so many times."""
    hosts = (PlannedHost("h1", "local:debian12", "here"),)
    local = LocalCluster(home, PlannedCluster("bench-builds", "qemu", hosts, storage_disks=4, storage_disk_mib=3072))
    spent_s = []
    try:
        cluster = local.up()
        with SessionMark(local.folder, "bench-builds") as mark:
            for number in range(times):
                run_dir, software = mark.folder / f"deployment-{number}", home / "cache" / "software"
                began = time.monotonic()
                with deploy(build, cluster, lease=mark.session, run_dir=run_dir, software=software):
                    spent_s.append(time.monotonic() - began)
    finally:
        local.down()
    return spent_s


def _check_ins(repository: Path) -> list[PlannedBuild]:
    repository.mkdir()
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", str(repository)]
    subprocess.run([*git, "init", "--quiet"], check=True, timeout=30)
    (repository / "lock.txt").write_text(_LOCK.read_text())
    planned = []
    for release in RELEASES:
        (repository / "stack.toml").write_text(_RECIPE.format(release=release))
        subprocess.run([*git, "add", "--all"], check=True, timeout=30)
        subprocess.run([*git, "commit", "--quiet", "--message", release], check=True, timeout=30)
        told = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True, timeout=30)
        commit = told.stdout.strip()
        planned.append(PlannedBuild(revision_of({"bench": commit}), release, ("window",), str(repository), commit))
    return planned


if __name__ == "__main__":
    print(*run(load_settings().home), sep="\n")
