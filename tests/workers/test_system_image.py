"""Guests' systems as disks: what they are made of, and that they are kept as they are."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.local_clusters import CHECKOUT, FARM_HOME, wait_for
from workers import system_image
from workers.guest_image import GuestImage, build_guest_image
from workers.system_image import SystemImage, debian_system, small_system

pytestmark = pytest.mark.machine


def make_home(folder: Path) -> Path:
    (folder / "cache").mkdir()
    (folder / "cache" / "software").symlink_to(FARM_HOME / "cache" / "software")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def image(home: Path) -> GuestImage:
    return build_guest_image(home)


@pytest.fixture(scope="module")
def system(home: Path, image: GuestImage) -> SystemImage:
    return small_system(home, image)


def test_the_disk_has_a_sound_root_file_system_with_the_kernel(system: SystemImage, tmp_path: Path) -> None:
    root = tmp_path / "root.ext4"
    subprocess.run(["dd", f"if={system.disk}", f"of={root}", "bs=1M", "skip=17", "status=none"], check=True)
    subprocess.run(["e2fsck", "-fn", root], check=True, capture_output=True)
    shown = subprocess.run(["debugfs", "-R", "ls /boot", root], check=True, capture_output=True, text=True).stdout
    assert all(name in shown for name in ("vmlinuz", "initrd", "grub"))


def test_two_homes_make_the_same_disk(system: SystemImage, image: GuestImage, tmp_path: Path) -> None:
    assert small_system(make_home(tmp_path), image).digest == system.digest


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who builds the Debian anew, in this folder."""
    program = (
        "import sys, pathlib; from workers import system_image; system_image.debian_system(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(make_home(tmp_path))]
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.DEVNULL) as builder:
        yield builder
        builder.kill()


def test_a_killed_bootstrap_leaves_no_process_and_none_of_this_machines_folders(
    bootstrap: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Whoever clears its folder away would delete what lies in /sys otherwise."""

    def processes_at_work() -> dict[int, str]:
        """Those that have mounted something below the folder, with what they see mounted."""
        seen = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                seen[int(process.name)] = (process / "mountinfo").read_text()
            except OSError:
                continue  # it has ended
        return {pid: mounts for pid, mounts in seen.items() if str(tmp_path) in mounts}

    assert wait_for(lambda: bool(processes_at_work()), timeout_s=300)
    assert os.getpid() not in processes_at_work()
    os.kill(bootstrap.pid, signal.SIGKILL)
    assert wait_for(lambda: processes_at_work() == {})
    assert list(tmp_path.glob("cache/systems/part-*/root/sys/*")) == []


def test_the_same_packages_make_the_same_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that other tests boot may be older than what the mirror has now: then it takes two."""
    monkeypatch.setattr(system_image, "_DATA_MIB", 16)
    homes = [tmp_path / "one", tmp_path / "other"]
    for folder in homes:
        folder.mkdir()
    made, kept = debian_system(make_home(homes[0])), debian_system(FARM_HOME)
    if kept.packages != made.packages:
        kept = debian_system(make_home(homes[1]))
    assert any(package.startswith("linux-image-cloud-amd64 ") for package in made.packages)
    assert (kept.packages, kept.digest) == (made.packages, made.digest)
    assert kept.kernel.read_bytes() == made.kernel.read_bytes()


def test_a_damaged_disk_is_made_anew(system: SystemImage, image: GuestImage, home: Path) -> None:
    with system.disk.open("r+b") as disk:
        disk.write(b"damage")
    assert small_system(home, image).disk.read_bytes()[:6] != b"damage"


def test_an_undamaged_disk_stays(system: SystemImage, image: GuestImage, home: Path) -> None:
    before = small_system(home, image).disk.stat()
    assert small_system(home, image).disk.stat().st_ino == before.st_ino


def test_what_a_killed_build_left_is_removed(system: SystemImage, image: GuestImage, home: Path) -> None:
    left_over = system.disk.parents[1] / "part-small-killed"
    left_over.mkdir()
    system.disk.unlink()
    small_system(home, image)
    assert not left_over.exists()
