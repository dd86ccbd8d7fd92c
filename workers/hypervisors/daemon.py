"""A libvirtd that a session deploys beside a host's own: operations of its agent.

It has a mount namespace of its own, in which its programs, its state and its socket are in the places that Debian has
written into it. What is mounted later on the host's disk is seen in there too.
"""

import shutil
import subprocess
from pathlib import Path

from scenarios.contract import Failed
from workers.operations import operation

RUN_DIR = Path("/run/libvirt")  # the host's, in which each daemon of a session has a folder
_SETTINGS = ("libvirtd.conf", "qemu.conf")  # of the host: only the program is another
_END_TIMEOUT_S = 20.0
_WORDS = 3
_SCRIPT = """
for part in lib/x86_64-linux-gnu/libvirt lib/libvirt share/libvirt/cpu_map; do
	mount --bind "$1/$part" "/usr/$part"
done
mount --bind "$3" /var/cache/libvirt
for part in lib log; do mount --bind "$2/$part" "/var/$part/libvirt"; done
mount --bind "$2/etc" /etc/libvirt
mount --bind "$2/run" /run/libvirt
LD_LIBRARY_PATH=$1/lib/x86_64-linux-gnu exec "$1/sbin/libvirtd" -p /run/libvirt/libvirtd.pid
"""

_daemons: dict[str, subprocess.Popen[bytes]] = {}


@operation
def start(name: str, programs: str, knowledge: str) -> None:
    """Start the libvirtd below `programs`, with a folder called `name`; `knowledge` is one of what QEMUs can do."""
    folder = RUN_DIR / name
    for part in ("run", "etc", "lib", "log"):
        (folder / part).mkdir(parents=True)
    for settings in _SETTINGS:
        shutil.copyfile(Path("/etc/libvirt", settings), folder / "etc" / settings)
    known = RUN_DIR / knowledge
    known.mkdir(exist_ok=True)
    enter = ["unshare", "--mount", "--propagation=slave", "sh", "-euc", _SCRIPT, "libvirtd"]
    with (folder / "log" / "out").open("wb") as log:
        _daemons[name] = subprocess.Popen(
            [*enter, programs, str(folder), str(known)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@operation
def last_words(name: str) -> str:
    """What it said last, and whether it has ended."""
    said = [line for file in ("log/out", "log/libvirtd.log") for line in _lines(RUN_DIR / name / file)[-_WORDS:]]
    status = _daemons[name].poll()
    return " | ".join([*([] if status is None else [f"it ended with {status}"]), *said]) or "it says nothing"


@operation
def end(name: str) -> None:
    """End it, with its folder; its guests must have ended. Raises Failed (donor) when it does not end."""
    daemon = _daemons.pop(name, None)
    if daemon is not None:
        daemon.kill()
        try:
            daemon.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Failed("donor", f"libvirtd {daemon.pid} of {name} does not end") from None
    shutil.rmtree(RUN_DIR / name, ignore_errors=True)


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    except FileNotFoundError:
        return []
