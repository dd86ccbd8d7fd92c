"""A component's source becomes a wheel: its own build scripts run, behind the sandbox' walls and without any network.

They see their source, a pinned toolchain and the system's compilers; what comes out is one file, which is read and
never run here.
"""

import email.parser
import hashlib
import os
import re
import zipfile
from pathlib import Path

from scenarios.contract import Failed
from workers import sandbox, walled_scripts
from workers.packages import Wheel, normal

TOOLCHAIN = ("pbr==7.0.1", "pip==25.0.1", "setuptools==80.9.0", "wheel==0.45.1")
TIMEOUT_S = 300.0
LIMIT_MIB = 256
_OUT = "/out"
_SCRIPT = f"""
echo {walled_scripts.STAGE}unpack
cp -r /source /tmp/source && cd /tmp || exit 1
echo {walled_scripts.STAGE}wheel
/usr/bin/python3 -m pip wheel --no-deps --no-build-isolation --no-index --no-cache-dir --disable-pip-version-check \\
	--wheel-dir /out /tmp/source || exit 1
"""
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,200}\.whl")
_NEED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9,._ -]*\])?\s*[^@\n]{0,200}")


def build(name: str, source: Path, toolchain: Path, target: Path, *, lease: str, run_dir: Path) -> None:
    """Build the wheel of `source` into the empty folder `target`. Raises Failed: stack when that does not work."""
    walls = sandbox.Walls(
        network_namespace=None,
        folders={"/source": source, "/toolchain": toolchain},
        texts={},
        disks={},
        writable=(_OUT,),
        environment={
            "PYTHONPATH": "/toolchain",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/tmp",
            "PBR_VERSION": "0.0.1",  # where there is no git to ask
            "SOURCE_DATE_EPOCH": "315532800",
        },
        processes=256,
        memory_mib=4096,
        scratch_mib=512,
    )
    failing = f"component {name!r} cannot be built"
    with walled_scripts.ended(failing, _SCRIPT, walls, timeout_s=TIMEOUT_S, lease=lease, run_dir=run_dir) as script:
        file, content = _take_out(name, script.sandbox)
    (target / file).write_bytes(content)


def _take_out(name: str, running: sandbox.Sandbox) -> tuple[str, bytes]:
    made = os.listdir(f"/proc/{running.pid}/root{_OUT}")
    if len(made) != 1 or not _FILE.fullmatch(made[0]):
        raise Failed("stack", f"component {name!r}: its build made {len(made)} files, not one wheel")
    content = running.read(f"{_OUT}/{made[0]}", LIMIT_MIB << 20)
    if content is None:
        raise Failed("stack", f"component {name!r}: what its build made is no file")
    return made[0], content


def read(name: str, folder: Path) -> Wheel:
    """The wheel that `build` has put into `folder`. Raises Failed (stack) where it is none, or needs an address."""
    (file,) = folder.iterdir()
    try:
        with zipfile.ZipFile(file) as packed:
            (path,) = [one for one in packed.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one)]
            told = email.parser.BytesParser().parsebytes(packed.read(path), headersonly=True)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        raise Failed("stack", f"component {name!r}: what its build made is no wheel: {error}") from None
    needs = [str(need) for need in told.get_all("Requires-Dist", [])]
    for need in needs:
        if not _NEED.fullmatch(need):
            raise Failed("stack", f"component {name!r} requires {need[:80]!r}: only packages of the index, by name")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Wheel(normal(str(told["Name"])), str(told["Version"]), sha256, file, tuple(sorted(needs)))
