"""Disks on a real XFS: what each method makes, and that each proof fails when it should."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from scenarios.contract import DiskShape, Unsupported, WorkNotProven
from workers.agent import AgentLink
from workers.hosts.base import Host
from workers.hosts.namespaces import LocalCluster
from workers.volumes import base as volumes
from workers.volumes.disks import AgentDisk, Base, make_disk, make_file_system

pytestmark = pytest.mark.machine

MIB = 16
BLOCKS = 6
NONCE = "n0nce"
PLAIN = DiskShape(cluster_size_kib=64)


@dataclass(frozen=True)
class Workshop:
    """A host's agent, and a base image of its own on the host's XFS."""

    host: Host
    agent: AgentLink
    folder: Path
    base: Base
    numbers: Iterator[int]

    def make(self, method: str, shape: DiskShape = PLAIN) -> AgentDisk:
        path = self.folder / f"disk-{next(self.numbers)}"
        disk, took_s = make_disk(self.agent, method, path, self.base, uid=self.host.guest_uid, shape=shape)
        assert took_s > 0
        return disk

    def run(self, *argv: str | Path) -> str:
        return self.agent.run([str(word) for word in argv], timeout_s=60)


@pytest.fixture(scope="module")
def workshop(make_cluster: Callable[..., LocalCluster]) -> Iterator[Workshop]:
    host = make_cluster("volumes", hosts=1).up().hosts[0]
    with host.agent(uuid.uuid4().hex) as agent:
        folder = host.work_dir / "volumes-test"
        made = agent.call("volumes.base.make_base", timeout_s=60, folder=str(folder), mib=MIB)
        yield Workshop(host, agent, folder, Base(Path(made["path"]), made["digest"]), itertools.count())
        agent.run(["rm", "-r", str(folder)], timeout_s=30)


def write_as_a_guest_would(workshop: Workshop, disk: AgentDisk, *, last: int = BLOCKS) -> None:
    """Both passes of the write test, by QEMU's own tool; the second one ends before block `last`."""
    for write_pass, blocks in ((1, BLOCKS), (2, last)):
        for block in range(blocks):
            word = volumes.test_word(NONCE, write_pass, block).to_bytes(8, "little")
            pattern = "".join(f"\\{byte:03o}" for byte in word * (volumes.BLOCK_BYTES // 8))
            workshop.run("sh", "-c", f"printf '{pattern}' > {workshop.folder}/pattern")
            write = f"write -s {workshop.folder}/pattern {block * volumes.STRIDE_BYTES} {volumes.BLOCK_BYTES}"
            workshop.run("qemu-io", "-f", disk.format, "-c", write, disk.path)


@pytest.mark.parametrize("method", ["overlay", "reflink", "copy"])
def test_a_disk_that_was_written_is_proven(workshop: Workshop, method: str) -> None:
    disk = workshop.make(method)
    write_as_a_guest_would(workshop, disk)
    assert method in disk.prove_sharing()
    assert "unchanged" in disk.prove_base_unchanged()
    assert f"{BLOCKS} blocks" in disk.prove_written(NONCE, BLOCKS)
    with pytest.raises(WorkNotProven, match="block 0 of"):
        disk.prove_written("another", BLOCKS)
    disk.remove()
    disk.remove()


@pytest.mark.parametrize("method", ["overlay", "reflink", "copy"])
def test_only_the_guests_user_may_open_a_disk(workshop: Workshop, method: str) -> None:
    disk = workshop.make(method)
    assert workshop.run("stat", "-c", "%u %a", disk.path).split() == [str(workshop.host.guest_uid), "600"]
    assert workshop.run("stat", "-c", "%u %a", workshop.base.path).split() == ["0", "444"]
    disk.remove()


@pytest.mark.parametrize("method", ["overlay", "copy"])
def test_a_second_pass_that_ended_early_is_caught(workshop: Workshop, method: str) -> None:
    disk = workshop.make(method)
    write_as_a_guest_would(workshop, disk, last=BLOCKS - 1)
    with pytest.raises(WorkNotProven, match=f"block {BLOCKS - 1} of"):
        disk.prove_written(NONCE, BLOCKS)
    disk.remove()


def test_a_copy_that_secretly_shares_blocks_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("copy")
    disk.remove()
    workshop.run("cp", "--reflink=always", workshop.base.path, disk.path)
    with pytest.raises(WorkNotProven, match="no full copy"):
        disk.prove_sharing()
    disk.remove()


def test_a_copy_with_holes_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("copy")
    workshop.run("fallocate", "--punch-hole", "--offset", "1MiB", "--length", "1MiB", disk.path)
    with pytest.raises(WorkNotProven, match="no full copy"):
        disk.prove_sharing()
    disk.remove()


def test_a_reflink_that_is_a_copy_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("reflink")
    disk.remove()
    workshop.run("cp", "--reflink=never", workshop.base.path, disk.path)
    with pytest.raises(WorkNotProven, match="no reflink"):
        disk.prove_sharing()
    disk.remove()


def test_a_reflink_of_something_else_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("reflink")
    disk.remove()
    workshop.run("cp", "--reflink=never", workshop.base.path, f"{disk.path}.other")
    workshop.run("cp", "--reflink=always", f"{disk.path}.other", disk.path)
    with pytest.raises(WorkNotProven, match="no reflink"):
        disk.prove_sharing()
    disk.remove()


def test_an_overlay_that_was_flattened_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("overlay")
    disk.remove()
    workshop.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", workshop.base.path, disk.path)
    with pytest.raises(WorkNotProven, match="no overlay"):
        disk.prove_sharing()
    disk.remove()


def test_an_overlay_that_holds_all_blocks_itself_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("overlay")
    workshop.run("qemu-io", "-f", "qcow2", "-c", f"write -P 7 0 {MIB}M", disk.path)
    with pytest.raises(WorkNotProven, match="no overlay"):
        disk.prove_sharing()
    disk.remove()


def test_a_changed_base_is_caught_and_made_anew(workshop: Workshop) -> None:
    disk = workshop.make("overlay")
    workshop.run("sh", "-c", f"printf x | dd of={workshop.base.path} bs=1 seek=4096 conv=notrunc status=none")
    with pytest.raises(WorkNotProven, match="base image has changed"):
        disk.prove_base_unchanged()
    made = workshop.agent.call("volumes.base.make_base", timeout_s=60, folder=str(workshop.folder), mib=MIB)
    assert made == {"path": str(workshop.base.path), "digest": workshop.base.digest}
    assert "unchanged" in disk.prove_base_unchanged()
    disk.remove()


def test_without_shared_blocks_a_reflink_is_unsupported(workshop: Workshop) -> None:
    elsewhere = workshop.host.console_dir / "disk"
    with pytest.raises(Unsupported, match="cannot share blocks"):
        make_disk(
            workshop.agent,
            "reflink",
            elsewhere,
            workshop.base,
            uid=workshop.host.guest_uid,
            shape=DiskShape(cluster_size_kib=64),
        )
    assert "disk" not in workshop.run("ls", workshop.host.console_dir).split()


def test_an_unknown_method_is_unsupported(workshop: Workshop) -> None:
    with pytest.raises(Unsupported, match="no method 'snapshot'"):
        workshop.make("snapshot")


def test_a_disk_that_was_not_copied_whole_is_no_copy(workshop: Workshop) -> None:
    disk = workshop.make("blank")
    workshop.run("dd", f"if={workshop.base.path}", f"of={disk.path}", "bs=1M", "conv=notrunc")
    journal = MIB * 1024 - volumes.JOURNAL_BYTES // 1024
    workshop.run("dd", "if=/dev/zero", f"of={disk.path}", "bs=1K", f"seek={journal}", "count=4", "conv=notrunc")
    assert "were copied as they were" in disk.prove_sharing()
    workshop.run("fallocate", "--punch-hole", "--offset", "5M", "--length", "4096", disk.path)
    with pytest.raises(WorkNotProven, match="differs in the MiB at 5 MiB"):
        disk.prove_sharing()
    workshop.run("cp", "--reflink=always", workshop.base.path, disk.path)
    with pytest.raises(WorkNotProven, match="nothing was copied"):
        disk.prove_sharing()


def test_layers_are_proven_and_go_with_their_disk(workshop: Workshop) -> None:
    disk = workshop.make("overlay", replace(PLAIN, layers=3))
    write_as_a_guest_would(workshop, disk)
    assert "through 3 layers" in disk.prove_sharing()
    assert f"{BLOCKS} blocks" in disk.prove_written(NONCE, BLOCKS)
    disk.remove()
    assert disk.path.name not in workshop.run("ls", workshop.folder)


def test_a_chain_that_is_shorter_than_told_is_caught(workshop: Workshop) -> None:
    disk = workshop.make("overlay", replace(PLAIN, layers=3))
    workshop.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", workshop.base.path, disk.path)
    with pytest.raises(WorkNotProven, match="no overlay of the base with 3 layers"):
        disk.prove_sharing()
    disk.remove()


def test_what_is_reserved_beforehand_is_proven(workshop: Workshop) -> None:
    shape = replace(PLAIN, extended_l2=True, preallocation="falloc")
    disk = workshop.make("overlay", shape)
    assert f"{MIB} MiB from the base" in disk.prove_sharing()
    disk.remove()
    pretended = workshop.make("overlay", replace(shape, preallocation="off"))
    pretended.shape = shape
    with pytest.raises(WorkNotProven, match="no overlay"):
        pretended.prove_sharing()
    pretended.remove()
    with pytest.raises(Unsupported, match="extended_l2"):  # in QEMU's own words
        workshop.make("overlay", replace(PLAIN, preallocation="falloc"))


def test_only_overlays_have_layers(workshop: Workshop) -> None:
    with pytest.raises(Unsupported, match="neither layers nor clusters"):
        workshop.make("copy", replace(PLAIN, layers=1))


def test_blocks_that_were_written_elsewhere_are_caught(workshop: Workshop) -> None:
    disk = workshop.make("overlay")
    write_as_a_guest_would(workshop, disk)
    with pytest.raises(WorkNotProven, match="block 0 of"):
        disk.prove_written(NONCE, BLOCKS, 512)
    disk.remove()


def test_a_file_system_on_a_file_goes_with_its_sessions_folder(workshop: Workshop) -> None:
    session = workshop.folder / "session"
    uid = workshop.host.guest_uid
    base = make_file_system(workshop.agent, session / "ext4", "ext4", uid=uid, base_mib=MIB)
    assert make_file_system(workshop.agent, session / "ext4", "ext4", uid=uid, base_mib=MIB) == base
    assert base.digest == workshop.base.digest
    with pytest.raises(Unsupported, match="cannot share blocks"):
        make_disk(workshop.agent, "reflink", session / "ext4/disk", base, uid=uid, shape=PLAIN)
    disk, _ = make_disk(workshop.agent, "copy", session / "ext4/disk", base, uid=uid, shape=PLAIN)
    write_as_a_guest_would(workshop, disk)
    assert "full copy" in disk.prove_sharing()
    held = {"ended": [], "own": None, "folders": [str(session)], "keep_folders": [], "named_after_guests": []}
    cleared = workshop.agent.call("leftovers.clear", timeout_s=30, **held)
    assert (cleared["mounts"], cleared["folders"], cleared["stuck"]) == ([str(session / "ext4")], [str(session)], [])
    assert "session" not in workshop.run("ls", workshop.folder).split()
    assert str(session) not in workshop.run("losetup", "--list")
