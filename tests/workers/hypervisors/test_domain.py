"""The domain XML that libvirt is given: golden files, and what differs with each setting."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scenarios.contract import Workload
from scenarios.recipe import DiskSettings, GuestSettings
from workers.hypervisors.domain import (
    BOOT_ARGUMENTS,
    DiskImage,
    FirmwareBoot,
    KernelBoot,
    Machine,
    as_taken_over,
    command_line,
    domain_xml,
    mac_of,
    uuid_of,
)

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "domains"
PLAIN = Machine(
    name="farm-0123456789ab-1",
    emulator="/usr/bin/qemu-system-x86_64",
    boot=KernelBoot(Path("/srv/shared/images/d/vmlinux"), Path("/srv/shared/images/d/initrd")),
    command_line="console=ttyS0 farm.nonce=abc",
    bridge="br0",
    console=Path("/srv/console/farm-0123456789ab-1.log"),
    settings=GuestSettings(),
    disk_settings=DiskSettings(),
)
SYSTEM_DISK = DiskImage(Path("/srv/work/sessions/s/farm-0123456789ab-1.qcow2"), "qcow2")
MACHINES = {
    "plain": PLAIN,
    "on-the-processor": replace(PLAIN, accelerator="kvm"),
    "bios": replace(PLAIN, boot=FirmwareBoot(SYSTEM_DISK)),
    "uefi": replace(PLAIN, boot=FirmwareBoot(SYSTEM_DISK, Path("/usr/share/ovmf/OVMF.fd"))),
    "overlay-writethrough": replace(
        PLAIN,
        disk=DiskImage(Path("/srv/work/sessions/s/disk.qcow2"), "qcow2"),
        disk_settings=DiskSettings(cache="writethrough"),
    ),
    "larger-older": replace(
        PLAIN,
        settings=GuestSettings(memory_mib=256, vcpus=2, machine="pc", cpu="qemu64"),
        disk=DiskImage(Path("/srv/work/sessions/s/disk.raw"), "raw"),
        disk_settings=DiskSettings(io="native"),
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_xml_is_the_golden_one(name: str) -> None:
    assert domain_xml(MACHINES[name]) == (GOLDEN / f"{name}.xml").read_text()


def test_sectors_of_a_disk_are_told_where_they_are_not_the_usual_ones() -> None:
    image = DiskImage(Path("/srv/work/sessions/s/disk.raw"), "raw", logical_sector=4096, physical_sector=4096)
    told = ET.fromstring(domain_xml(replace(PLAIN, disk=image))).find("devices/disk/blockio")
    assert told is not None
    assert told.attrib == {"logical_block_size": "4096", "physical_block_size": "4096"}


def test_what_a_recipe_says_cannot_become_markup() -> None:
    hostile = replace(PLAIN, command_line="</cmdline><kernel>/etc/shadow</kernel> & \"'")
    domain = ET.fromstring(domain_xml(hostile))
    assert domain.findtext("os/cmdline") == hostile.command_line
    assert [kernel.text for kernel in domain.iter("kernel")] == ["/srv/shared/images/d/vmlinux"]


@pytest.mark.parametrize(
    ("workload", "has_disk", "told"),
    [
        (Workload(), False, []),
        (Workload(memory_mib=32, pages_per_s=1000), False, ["farm.memory_mib=32", "farm.pages_per_s=1000"]),
        (Workload(disk=True), True, ["farm.disk=1"]),
        (Workload(disk=True, write_test_blocks=8), False, []),
        (Workload(disk_times=True), True, ["farm.disk_times=1"]),
        (Workload(write_test_blocks=8), True, ["farm.write_blocks=8"]),
        (Workload(write_test_blocks=8, write_test_offset=512), True, ["farm.write_blocks=8", "farm.write_offset=512"]),
    ],
)
def test_the_guest_is_told_its_workload(workload: Workload, has_disk: bool, told: list[str]) -> None:
    line = command_line(
        nonce="n1", address="10.0.0.9/24", observer="10.0.0.1:7", workload=workload, has_disk=has_disk, extra="debug"
    )
    known = ["farm.nonce=n1", "farm.address=10.0.0.9/24", "farm.observer=10.0.0.1:7"]
    assert line.split() == [*BOOT_ARGUMENTS.split(), "debug", *known, *told]


def test_the_guest_is_told_how_fast_its_processor_counts() -> None:
    told: dict[str, Any] = {"nonce": "n1", "address": "10.0.0.9/24", "observer": "10.0.0.1:7"}
    line = command_line(**told, workload=Workload(), has_disk=False, ours="", counter_khz=2_300_000)
    assert line.split()[0] == "tsc_early_khz=2300000"


def test_names_make_identities_of_their_own() -> None:
    names = [f"farm-0123456789ab-{number}" for number in range(200)]
    assert len({uuid_of(name) for name in names}) == len({mac_of(name) for name in names}) == len(names)
    assert all(mac_of(name).startswith("52:54:00:") for name in names)
    assert uuid_of(names[0]) == uuid_of(names[0])


def test_the_target_host_keeps_the_console_where_it_keeps_consoles() -> None:
    moved = ET.fromstring(as_taken_over(domain_xml(PLAIN), Path("/elsewhere/g.log"), "/opt/qemu", None))
    source = moved.find("devices/serial/source")
    assert source is not None
    assert source.get("path") == "/elsewhere/g.log"
    assert moved.findtext("devices/emulator") == "/opt/qemu"
    assert moved.findtext("uuid") == uuid_of(PLAIN.name)


def test_the_target_host_has_the_disk_where_it_was_copied_to() -> None:
    machine = replace(PLAIN, disk=DiskImage(Path("/here/g.raw"), "raw"))
    for there, wanted in ((None, "/here/g.raw"), (Path("/there/g.raw"), "/there/g.raw")):
        moved = ET.fromstring(as_taken_over(domain_xml(machine), Path("/elsewhere/g.log"), "/opt/qemu", there))
        assert [source.get("file") for source in moved.iterfind("devices/disk/source")] == [wanted]


def test_memory_that_is_set_aside_is_allocated_at_once() -> None:
    backing = ET.fromstring(domain_xml(replace(PLAIN, reserved=True))).find("memoryBacking")
    assert backing is not None
    assert [(element.tag, element.attrib) for element in backing] == [
        ("source", {"type": "file"}),
        ("allocation", {"mode": "immediate"}),
    ]
