"""A disk that firmware boots: GRUB for BIOS and for UEFI, and a folder as its root file system.

    sector 0         partition table and GRUB's first sector
    sectors 1…       GRUB for BIOS, in the gap before the first partition
    1 MiB            partition 1: FAT with GRUB for UEFI
    17 MiB           partition 2: ext4 with the folder's contents; GRUB reads /boot/grub/grub.cfg there

Nothing is mounted and no device is touched; all is written into one sparse file. The same folder makes the same bytes:
no file in it is younger than `EPOCH_S`, and no identity is drawn. GRUB hands the kernel what stands
in the machine's SMBIOS serial number: `grub.cfg` says where, as `$told`.
"""

import os
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scenarios.contract import Failed

LAYOUT = 2  # another number, another image: raise it with whatever makes other bytes
EPOCH_S = 1_732_233_600
REPRODUCIBLY = {"SOURCE_DATE_EPOCH": str(EPOCH_S), "E2FSPROGS_FAKE_TIME": str(EPOCH_S)}

_GRUB = Path("/usr/lib/grub")
_MODULES = ("part_msdos", "ext2", "normal", "linux", "search", "smbios")
_SECTOR = 512
_BOOT_CODE_BYTES = 440
_ESP_MIB, _ESP_AT_MIB, _ROOT_AT_MIB = 16, 1, 17
_ESP_TYPE, _LINUX_TYPE = 0xEF, 0x83
_LABEL = 0x4D524146  # the disk's signature in its partition table
_UUID = "4641524d-0000-4000-8000-000000000001"
_TOOL_TIMEOUT_S = 300.0
_CTIME = (f" @{EPOCH_S}", "_extra 0")
_EARLY = f"search --fs-uuid --set=root {_UUID}\nset prefix=($root)/boot/grub\n"


def grub_cfg(arguments: str) -> str:
    """GRUB's configuration: boot `/boot/vmlinuz` at once with these arguments and those of the SMBIOS."""
    return (
        f"smbios --type 1 --get-string 7 --set told\nlinux /boot/vmlinuz {arguments} $told\ninitrd /boot/initrd\nboot\n"
    )


def write_disk(target: Path, root: Path, *, root_mib: int) -> None:
    """Write the disk image. Raises Failed (farm) where a tool is missing, or the folder does not fit."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="grub-") as text:
        part = Path(text)
        early = part / "early.cfg"
        early.write_text(_EARLY)
        core, efi, esp = part / "core.img", part / "bootx64.efi", part / "esp.img"
        _grub_image("i386-pc", core, early, ("biosdisk", *_MODULES))
        _grub_image("x86_64-efi", efi, early, _MODULES)
        _write_esp(esp, efi)
        with target.open("wb") as disk:
            disk.write(_first_sector(root_mib))
            disk.write(core.read_bytes())
            if disk.tell() > _ESP_AT_MIB << 20:
                raise Failed("farm", f"GRUB is too large for the gap: {disk.tell()} bytes")
            disk.seek(_ESP_AT_MIB << 20)
            disk.write(esp.read_bytes())
            disk.truncate((_ROOT_AT_MIB + root_mib) << 20)
    _write_root(target, root, root_mib)


def _grub_image(kind: str, target: Path, early: Path, modules: Sequence[str]) -> None:
    command = ["grub-mkimage", "-O", kind, "-p", "/boot/grub", "-c", str(early), "-o", str(target), *modules]
    _run(command, f"make GRUB for {kind}")


def _write_esp(target: Path, efi: Path) -> None:
    target.write_bytes(bytes(_ESP_MIB << 20))
    _run(["mkfs.vfat", "--invariant", str(target)], "make the EFI file system")
    _run(["mmd", "-i", str(target), "::/EFI", "::/EFI/BOOT"], "fill the EFI file system")
    _run(["mcopy", "-i", str(target), str(efi), "::/EFI/BOOT/BOOTX64.EFI"], "fill the EFI file system")


def _first_sector(root_mib: int) -> bytes:
    """GRUB's boot code, which loads what follows it, and the partition table."""
    code = (_GRUB / "i386-pc" / "boot.img").read_bytes()[:_BOOT_CODE_BYTES]
    partitions = _partition(_ESP_TYPE, _ESP_AT_MIB, _ESP_MIB) + _partition(_LINUX_TYPE, _ROOT_AT_MIB, root_mib)
    return code + struct.pack("<IH", _LABEL, 0) + partitions.ljust(64, b"\0") + b"\x55\xaa"


def _partition(kind: int, at_mib: int, mib: int) -> bytes:
    anywhere = b"\xfe\xff\xff"  # in cylinders, which nobody reads any more
    sectors = (1 << 20) // _SECTOR
    return struct.pack("<B3sB3sII", 0, anywhere, kind, anywhere, at_mib * sectors, mib * sectors)


def _write_root(target: Path, root: Path, root_mib: int) -> None:
    paths = [root, *root.rglob("*")]
    for path in paths:
        os.utime(path, times=(EPOCH_S, min(EPOCH_S, path.lstat().st_mtime)), follow_symlinks=False)
    options = f"offset={_ROOT_AT_MIB << 20},lazy_itable_init=0,root_owner=0:0,hash_seed={_UUID}"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", _UUID, "-E", options, "-d", str(root), str(target)]
    _run([*command, f"{root_mib}M"], "make the root file system")
    # of all that mke2fs copies nobody can set this on the folder's own file system
    changed = [f'set_inode_field "/{path.relative_to(root)}" ctime{part}' for path in paths for part in _CTIME]
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix="grub-") as script:
        script.write("\n".join([*changed, "set_super_value kbytes_written 0"]))
        script.flush()
        _run(["debugfs", "-w", "-f", script.name, f"{target}?offset={_ROOT_AT_MIB << 20}"], "set the files' times")


def _run(command: Sequence[str], purpose: str) -> None:
    try:
        done = subprocess.run(
            command, env={**os.environ, **REPRODUCIBLY}, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed("farm", f"cannot {purpose}: {error}") from None
    if done.returncode:
        raise Failed("farm", f"cannot {purpose}: {done.stderr.decode(errors='replace').strip()[-300:]}")
