"""Buildbot's folders, ports and passwords under FARM_HOME, and the programs that run there.

    buildbot/master/           the master's basedir and database
    buildbot/worker-<cluster>/ a worker's basedir
    keys/worker-<cluster>      the worker's password, readable by us alone
    run/ports.json             the loopback ports in use, by their names in the settings

Knows nothing of Twisted, so that the command line stays quick.
"""

import importlib.metadata
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from farm.settings import CHECKOUT, Settings

PortName = Literal["site_port", "buildbot_port", "worker_port"]

LOOPBACK = "127.0.0.1"
_CREATE_TIMEOUT_S = 120.0
_BIN = Path(sys.executable).parent
_WORKER_TAC = """\
from pathlib import Path

from buildbot_worker.bot import Worker
from twisted.application import service
from twisted.python.log import FileLogObserver, ILogObserver
from twisted.python.logfile import LogFile

basedir = {basedir!r}
application = service.Application("buildbot-worker")
logfile = LogFile.fromFullPath(str(Path(basedir) / "twistd.log"), rotateLength=10_000_000, maxRotatedFiles=3)
application.setComponent(ILogObserver, FileLogObserver(logfile).emit)
worker = Worker(
    {host!r}, {port}, {name!r}, Path({password_file!r}).read_text(), basedir, keepalive=30, umask=0o077, maxdelay=2
)
worker.setServiceParent(application)
"""


class CannotPrepare(RuntimeError):
    """One line: what is in the way, and what to do."""


@dataclass(frozen=True)
class Program:
    """A process of the farm: how to run it. It stays in the foreground."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]


def claim_port(settings: Settings, name: PortName) -> int:
    """The port that the settings name, or a free one for 0 (the same as last time, if it still is free).

    Recorded in run/ports.json. Raises CannotPrepare when somebody else has it.
    """
    port = _choose_port(settings, name)
    _record_ports(settings, {name: port})
    return port


def known_port(settings: Settings, name: PortName) -> int:
    """The port that was claimed last; raises CannotPrepare when none was."""
    try:
        return _recorded_ports(settings)[name]
    except KeyError:
        raise CannotPrepare(f"no {name} was chosen yet: run 'farm up'") from None


def buildbot_database_url(settings: Settings) -> str:
    return f"sqlite:///{_master_dir(settings) / 'state.sqlite'}"


def worker_password(settings: Settings, cluster: str) -> str:
    """The password of the cluster's worker, made when first asked for."""
    path = _password_file(settings, cluster)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(secrets.token_urlsafe(32))
        part.rename(path)
    return path.read_text()


def prepare_master(settings: Settings, config: Path = CHECKOUT / "master.cfg") -> Program:
    """Make the master's folder and database, and claim its ports; again is no harm. Raises CannotPrepare."""
    names: tuple[PortName, ...] = ("buildbot_port", "worker_port")
    _record_ports(settings, {name: _choose_port(settings, name) for name in names})
    folder = _master_dir(settings)
    version = f"{importlib.metadata.version('buildbot')} {config}"
    stamp = folder / "prepared"
    if not stamp.exists() or stamp.read_text() != version:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "buildbot.tac").unlink(missing_ok=True)
        options = ("--quiet", "--log-count=3", f"--config={config}", f"--db={buildbot_database_url(settings)}")
        made = subprocess.run(
            (str(_BIN / "buildbot"), "create-master", *options, str(folder)),
            capture_output=True,
            text=True,
            timeout=_CREATE_TIMEOUT_S,
        )
        if made.returncode != 0:
            raise CannotPrepare(f"Buildbot's folder {folder} cannot be made: {_last_line(made.stdout + made.stderr)}")
        stamp.write_text(version)
    return _program(settings, "master", folder)


def prepare_worker(settings: Settings, cluster: str) -> Program:
    """Make the folder of a cluster's worker, which will look for the master that was prepared last."""
    folder = settings.home / "buildbot" / f"worker-{cluster}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    worker_password(settings, cluster)
    tac = _WORKER_TAC.format(
        basedir=str(folder),
        host=LOOPBACK,
        port=known_port(settings, "worker_port"),
        name=cluster,
        password_file=str(_password_file(settings, cluster)),
    )
    (folder / "buildbot.tac").write_text(tac)
    return _program(settings, f"worker-{cluster}", folder)


def _choose_port(settings: Settings, name: PortName) -> int:
    wanted = int(getattr(settings.farm.addresses, name))
    if wanted == 0:
        before = _recorded_ports(settings).get(name, 0)
        return before if before and _is_free(before) else _free_port()
    if not _is_free(wanted):
        raise CannotPrepare(f"port {wanted} is taken: choose another one (settings: addresses.{name}), or 0 for any")
    return wanted


def _record_ports(settings: Settings, ports: Mapping[str, int]) -> None:
    path = _ports_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**_recorded_ports(settings), **ports}))
    part.rename(path)


def _program(settings: Settings, name: str, folder: Path) -> Program:
    # no pid file: one that a killed process left could name a process of somebody else
    command = (
        str(_BIN / "twistd"),
        *("--nodaemon", "--no_save", "--pidfile=", "--python=buildbot.tac"),
    )
    return Program(name, command, folder, _environment(settings))


def _environment(settings: Settings) -> dict[str, str]:
    """What our processes see: a session's step inherits it, so nothing private may be in it."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TZ") if key in os.environ}
    file = {"SETTINGS": str(settings.file)} if settings.file else {}
    return {**kept, **file, "FARM_HOME": str(settings.home), "PYTHONPATH": str(CHECKOUT)}


def _master_dir(settings: Settings) -> Path:
    return settings.home / "buildbot" / "master"


def _password_file(settings: Settings, cluster: str) -> Path:
    return settings.home / "keys" / f"worker-{cluster}"


def _ports_file(settings: Settings) -> Path:
    return settings.home / "run" / "ports.json"


def _recorded_ports(settings: Settings) -> dict[str, int]:
    try:
        return dict(json.loads(_ports_file(settings).read_text()))
    except (OSError, ValueError):
        return {}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
