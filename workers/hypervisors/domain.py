"""The libvirt domain XML of a guest. Pure: settings in, text out."""

import hashlib
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Workload
from scenarios.recipe import DiskSettings, GuestSettings
from workers.hosts.base import Accelerator

# What makes a boot quick under emulation, and no slower on hardware: no probing of devices that guests do not
# have, no calibrating against clocks, no self-tests, no clearing of memory that is about to be overwritten.
BOOT_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on tsc=reliable"
    " init_on_alloc=0 8250.nr_uarts=1 cryptomgr.notests nokaslr audit=0 apparmor=0 lsm= i8042.noaux i8042.nokbd"
    " noautogroup rcupdate.rcu_expedited=1 ipv6.disable=1"
)


DISK_TARGET = "vda"


@dataclass(frozen=True)
class DiskImage:
    """A file on the host as a guest's disk."""

    path: Path
    format: str  # raw or qcow2
    logical_sector: int = 512
    physical_sector: int = 512


@dataclass(frozen=True)
class KernelBoot:
    """The hypervisor is given the kernel, which is told its command line; its root is on `disk` where it has one."""

    kernel: Path
    initrd: Path
    disk: DiskImage | None = None


@dataclass(frozen=True)
class FirmwareBoot:
    """Firmware boots a disk; `firmware` None is the machine's own BIOS. The command line is its serial number."""

    disk: DiskImage
    firmware: Path | None = None


@dataclass(frozen=True)
class Machine:
    """All that a guest's domain XML is made of."""

    name: str
    emulator: str
    boot: KernelBoot | FirmwareBoot
    command_line: str
    bridge: str
    console: Path
    settings: GuestSettings
    disk_settings: DiskSettings
    disk: DiskImage | None = None
    accelerator: Accelerator = "qemu"
    reserved: bool = False  # its memory is a file of the host's, allocated before it runs


def command_line(
    *,
    nonce: str,
    address: str,
    observer: str,
    workload: Workload,
    has_disk: bool,
    extra: str = "",
    ours: str = BOOT_ARGUMENTS,
    counter_khz: int | None = None,
) -> str:
    """The kernel's command line: ours, the recipe's, and what `guest/init.c` is told.

    `address` is the guest's with its prefix (10.0.0.9/24), `observer` a host and UDP port (10.0.0.1:5000);
    `counter_khz` how fast its processor counts, which it else has to find out (`workers/counter.py`).
    """
    clock = [] if counter_khz is None else [f"tsc_early_khz={counter_khz}"]
    told = [f"farm.nonce={nonce}", f"farm.address={address}", f"farm.observer={observer}"]
    if workload.memory_mib:
        told += [f"farm.memory_mib={workload.memory_mib}", f"farm.pages_per_s={workload.pages_per_s}"]
    if has_disk and workload.disk:
        told.append("farm.disk=1")
    if has_disk and workload.disk_times:
        told.append("farm.disk_times=1")
    if has_disk and workload.write_test_blocks:
        told.append(f"farm.write_blocks={workload.write_test_blocks}")
        told += [f"farm.write_offset={workload.write_test_offset}"] if workload.write_test_offset else []
    return " ".join([*ours.split(), *clock, *extra.split(), *told])


def uuid_of(name: str) -> str:
    """A guest's UUID: another name, another UUID."""
    return str(uuid.UUID(bytes=hashlib.sha256(f"farm guest {name}".encode()).digest()[:16], version=4))


def mac_of(name: str) -> str:
    """A guest's network address, from QEMU's own range."""
    tail = hashlib.sha256(f"farm guest {name}".encode()).digest()[16:19]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def domain_xml(machine: Machine) -> str:
    """A transient domain, with nothing in it that a guest does not need."""
    settings = machine.settings
    domain = ET.Element("domain", type=machine.accelerator)
    _text(domain, "name", machine.name)
    _text(domain, "uuid", uuid_of(machine.name))
    _text(domain, "memory", str(settings.memory_mib), unit="MiB")
    if machine.reserved:
        backing = ET.SubElement(domain, "memoryBacking")
        ET.SubElement(backing, "source", type="file")
        ET.SubElement(backing, "allocation", mode="immediate")
    _text(domain, "vcpu", str(settings.vcpus))
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=settings.machine)
    if isinstance(machine.boot, KernelBoot):
        _text(system, "kernel", str(machine.boot.kernel))
        _text(system, "initrd", str(machine.boot.initrd))
        _text(system, "cmdline", machine.command_line)
    else:
        if machine.boot.firmware is not None:
            _text(system, "loader", str(machine.boot.firmware), readonly="yes", type="rom")
        ET.SubElement(system, "boot", dev="hd")
        ET.SubElement(system, "smbios", mode="sysinfo")
        told = ET.SubElement(ET.SubElement(domain, "sysinfo", type="smbios"), "system")
        _text(told, "entry", machine.command_line, name="serial")
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    _cpu(domain, settings)
    ET.SubElement(domain, "clock", offset="utc")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, event, "destroy")
    _devices(domain, machine)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def as_taken_over(migratable_xml: str, console: Path, emulator: str, disk: Path | None) -> str:
    """The XML of a running guest as another host is to take it over: there its console lies elsewhere.

    So does its disk where it is copied to `disk`.
    """
    domain = ET.fromstring(migratable_xml)
    for tag in ("serial", "console"):
        for source in domain.iterfind(f"devices/{tag}[@type='file']/source"):
            source.set("path", str(console))
    for element in domain.iterfind("devices/emulator"):
        element.text = emulator
    for source in domain.iterfind("devices/disk/source"):
        if disk is not None:
            source.set("file", str(disk))
    return ET.tostring(domain, encoding="unicode")


def _cpu(domain: ET.Element, settings: GuestSettings) -> None:
    if settings.cpu == "maximum":
        ET.SubElement(domain, "cpu", mode="maximum")
    else:
        cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", settings.cpu, fallback="forbid")


def _devices(domain: ET.Element, machine: Machine) -> None:
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", machine.emulator)
    disk = machine.boot.disk or machine.disk
    if disk is not None:
        _disk(devices, disk, machine.disk_settings)
    interface = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(interface, "mac", address=mac_of(machine.name))
    ET.SubElement(interface, "source", bridge=machine.bridge)
    ET.SubElement(interface, "model", type="virtio")
    ET.SubElement(interface, "rom", enabled="no")
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(machine.console))
    ET.SubElement(serial, "target", port="0")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")


def _disk(devices: ET.Element, image: DiskImage, settings: DiskSettings) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=image.format, cache=settings.cache, io=settings.io)
    ET.SubElement(disk, "source", file=str(image.path))
    ET.SubElement(disk, "target", dev=DISK_TARGET, bus="virtio")
    if (image.logical_sector, image.physical_sector) != (512, 512):
        sectors = {"logical_block_size": image.logical_sector, "physical_block_size": image.physical_sector}
        ET.SubElement(disk, "blockio", {name: str(size) for name, size in sectors.items()})


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
