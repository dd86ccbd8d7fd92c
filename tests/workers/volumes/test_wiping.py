"""Wiping on a real XFS, and that what was not wiped, or can be read again, is found."""

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scenarios.contract import Unsupported, WorkNotProven
from scenarios.wipe import METHODS
from workers.agent import AgentLink
from workers.hosts.namespaces import LocalCluster
from workers.volumes import wiping
from workers.volumes.marked import AgentVolume

pytestmark = pytest.mark.machine

MIB = 8
SECTORS = MIB * 2048


@dataclass(frozen=True)
class Workshop:
    """A host's agent and a folder on the host's XFS."""

    agent: AgentLink
    folder: Path

    def make(self) -> AgentVolume:
        return AgentVolume(self.agent, self.folder / uuid.uuid4().hex, MIB, uuid.uuid4().hex)

    def run(self, *argv: str | Path) -> str:
        return self.agent.run([str(word) for word in argv], timeout_s=60)


@pytest.fixture(scope="module")
def workshop(make_cluster: Callable[..., LocalCluster]) -> Iterator[Workshop]:
    host = make_cluster("wiping", hosts=1).up().hosts[0]
    with host.agent(uuid.uuid4().hex) as agent:
        folder = host.work_dir / "wiping-test"
        agent.run(["mkdir", str(folder)], timeout_s=10)
        yield Workshop(agent, folder)
        assert agent.run(["ls", str(folder)], timeout_s=10) == ""
        assert str(folder) not in agent.run(["losetup", "--list"], timeout_s=10)
        agent.run(["rmdir", str(folder)], timeout_s=10)


@pytest.mark.parametrize("method", METHODS)
def test_a_wiped_volume_shows_nothing_and_dd_alone_erases(workshop: Workshop, method: str) -> None:
    volume = workshop.make()
    assert volume.left_percent() == 100
    assert all(seconds > 0 for seconds in volume.wipe(method))
    assert "no marker" in volume.prove_unreadable()
    assert volume.left_percent() == (0 if method == "dd" else 100)
    assert "show nothing" in volume.prove_next_tenant()
    volume.remove()


def test_a_wipe_that_does_nothing_is_caught(workshop: Workshop) -> None:
    volume = workshop.make()
    with pytest.raises(WorkNotProven, match=f"^{SECTORS} of {SECTORS} sectors"):
        volume.prove_unreadable()
    volume.remove()


def test_one_sector_that_was_forgotten_is_found(workshop: Workshop) -> None:
    volume = workshop.make()
    workshop.run("cp", volume.path, f"{volume.path}.kept")
    volume.wipe("dd")
    sector = ["bs=512", "skip=777", "seek=777", "count=1", "conv=notrunc"]
    workshop.run("dd", f"if={volume.path}.kept", f"of={volume.path}", *sector)
    with pytest.raises(WorkNotProven, match=f"^1 of {SECTORS} sectors"):
        volume.prove_unreadable()
    volume.remove()


def test_a_volume_that_lost_its_size_is_not_wiped(workshop: Workshop) -> None:
    volume = workshop.make()
    workshop.run("truncate", "-s", "0", volume.path)
    with pytest.raises(WorkNotProven, match="has 0 KiB after the wipe"):
        volume.prove_unreadable()
    volume.remove()


def test_zeros_that_went_elsewhere_are_no_erasure(workshop: Workshop) -> None:
    volume = workshop.make()
    workshop.run("sh", "-c", f"rm {volume.path} && dd if=/dev/zero of={volume.path} bs=1M count={MIB} conv=fsync")
    assert "no marker" in volume.prove_unreadable()
    left = volume.left_percent()
    assert left is not None
    assert left > 0
    volume.remove()


def test_a_way_that_is_not_there_is_unsupported(workshop: Workshop) -> None:
    volume = workshop.make()
    with pytest.raises(Unsupported, match="no method 'magic'"):
        volume.wipe("magic")
    volume.remove()


def test_a_file_system_that_shows_what_was_there_before_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    extents = wiping.make(str(volume), 1, "tenant")
    former = volume.read_bytes()
    wiping.wipe(str(volume), 1, "punch_hole")
    monkeypatch.setattr("os.posix_fallocate", lambda file, offset, length: os.pwrite(file, former[:length], offset))
    with pytest.raises(WorkNotProven, match="shows 2048 sectors of the former tenant"):
        wiping.prove_next_tenant(str(volume), 1, "tenant", extents)
