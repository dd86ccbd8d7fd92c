"""QEMU as a component: an archive that holds the program with its firmware and modules, to be sent to hosts.

QEMU finds what belongs to it from where its program lies, so that any number of versions can lie side by side. From
source only what the guests need is built, with a compiler cache that outlives the sandbox (`CompilerCache`).
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from scenarios.recipe import VMM, VMM_PART
from workers import archives, compilers, sandbox, walled_scripts
from workers.archives import Archive
from workers.compilers import CompilerCache
from workers.debian import Apt

PROGRAM = "usr/bin/qemu-system-x86_64"
_ARCHIVE = "emulator.tar"
# what guests need: the program, its modules and its firmware
_KEPT = (
    PROGRAM,
    "usr/lib/x86_64-linux-gnu/qemu/*.so",
    "usr/share/qemu/*.bin",
    "usr/share/qemu/*.rom",
    "usr/share/seabios/*.bin",
)
_FIRMWARE = ("seabios",)

TOOLCHAIN = ("meson==1.5.0", "pip==25.0.1", "pycotap==1.3.1", "setuptools==80.9.0", "wheel==0.45.1")
TIMEOUT_S = 1200.0
_PROGRAM_LIMIT_MIB = 256
_SYSTEM = ("/usr/include", "/usr/share/pkgconfig", "/etc/alternatives")  # cc and awk are links into the last
_SCRIPT = f"""
echo {walled_scripts.STAGE}unpack
mkdir /tmp/bin /tmp/build && cp -r /source /tmp/source || exit 1
printf '#!/bin/sh\\nexec /usr/bin/python3 -m mesonbuild.mesonmain "$@"\\n' >/tmp/bin/meson && chmod 755 /tmp/bin/meson
for place in ui subprojects; do
	[ ! -d /part ] || {{ mkdir -p /tmp/source/$place && cp -rT /part /tmp/source/$place/{VMM_PART}; }} || exit 1
done
cd /tmp/build
echo {walled_scripts.STAGE}configure
../source/configure --prefix=/usr --firmwarepath=/usr/share/qemu --target-list=x86_64-softmmu \\
	--without-default-features --enable-tcg --enable-fdt=system --disable-docs --disable-install-blobs \\
	--disable-debug-info --disable-werror >/tmp/configure.log 2>&1 || {{ tail -n 25 /tmp/configure.log; exit 1; }}
echo {walled_scripts.STAGE}compile
ninja --quiet qemu-system-x86_64 && strip -o /out/program qemu-system-x86_64 || exit 1
tar --create --file /out/compiled --directory /compiled . || exit 1
"""


def of_package(pin: str, apt: Apt, target: Path) -> None:
    """Make the archive of a Debian package in the empty folder `target`."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        root = Path(folder)
        packages = apt.unpack(pin, _FIRMWARE, root)
        if not (root / PROGRAM).is_file():
            raise Failed("stack", f"component {VMM}: {pin} has no {PROGRAM}")
        archives.pack(root, target / _ARCHIVE, _KEPT)
    (target / "packages.txt").write_text("".join(f"{package.pin} sha256:{package.sha256}\n" for package in packages))


@dataclass(frozen=True)
class Sources:
    """What QEMU is built from; `part` is what its source lacks, and whether what is compiled may be kept."""

    tree: Path
    part: Path | None
    toolchain: Path
    compiled: CompilerCache
    keep: bool


def of_source(sources: Sources, target: Path, *, lease: str, run_dir: Path) -> None:
    """Make the archive of QEMU's source in the empty folder `target`. Raises Failed: stack when that does not work."""
    folders = {"/source": sources.tree, "/toolchain": sources.toolchain, "/kept": sources.compiled.folder}
    folders |= {folder: Path(folder) for folder in _SYSTEM}
    folders |= {} if sources.part is None else {"/part": sources.part}
    walls = sandbox.Walls(
        network_namespace=None,
        folders=folders,
        texts={},
        disks={},
        writable=("/out", "/compiled"),
        environment={
            "PATH": "/usr/lib/ccache:/tmp/bin:/usr/bin",
            "PYTHONPATH": "/toolchain",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/tmp",
            "CCACHE_DIR": "/tmp/ccache",
            "CCACHE_REMOTE_STORAGE": "file:/kept|read-only file:/compiled",
            "CCACHE_SLOPPINESS": "include_file_mtime,include_file_ctime",  # all files were written just now
        },
        processes=512,
        memory_mib=4096,
        scratch_mib=2048,
    )
    failing = f"component {VMM!r} cannot be built"
    with (
        walled_scripts.ended(failing, _SCRIPT, walls, timeout_s=TIMEOUT_S, lease=lease, run_dir=run_dir) as script,
        tempfile.TemporaryDirectory(dir=target) as folder,
    ):
        program = Path(folder, PROGRAM)
        program.parent.mkdir(parents=True)
        program.write_bytes(_taken(script.sandbox, "/out/program", _PROGRAM_LIMIT_MIB))
        firmware = Path(folder, "usr/share/qemu")
        firmware.mkdir(parents=True)
        for file in (*sources.tree.glob("pc-bios/*.bin"), *sources.tree.glob("pc-bios/*.rom")):
            shutil.copyfile(file, firmware / file.name)
        archives.pack(Path(folder), target / _ARCHIVE, _KEPT)
        if sources.keep:
            sources.compiled.add(_taken(script.sandbox, "/out/compiled", compilers.LIMIT_MIB))


def _taken(running: sandbox.Sandbox, inside: str, limit_mib: int) -> bytes:
    content = running.read(inside, limit_mib << 20)
    if not content:
        raise Failed("stack", f"component {VMM!r}: what its build made is no file")
    return content


def read(folder: Path) -> Archive:
    """What lies in a folder that was made here."""
    return archives.read(folder / _ARCHIVE)
