"""A PostgreSQL server of the tests' own, from the packages that an OpenStack deployment keeps its state in.

It runs as an unprivileged user, listens on a socket in its folder alone, keeps nothing, and ends with the tests.
"""

import contextlib
import itertools
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from tests.helpers.local_clusters import FARM_HOME

_PROGRAMS = FARM_HOME / "cache" / "software" / "openstack" / "root" / "usr" / "lib" / "postgresql" / "15" / "bin"
_UNPRIVILEGED = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
_QUICKLY = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
_TIMEOUT_S = 120.0


@dataclass
class Postgres:
    """Databases of the server that listens in the folder `sockets`."""

    sockets: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, name: str) -> str:
        return f"postgresql://farm@/{name}?host={self.sockets}"

    def create(self, name: str, template: str = "template1") -> str:
        """The URL of a new database, which is like the template."""
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database with a name of its own, removed in the end whoever still uses it."""
        name = f"farm{next(self._numbers)}"
        yield self.create(name, template)
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        engine = create_engine(self.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                return self._run("SELECT 1")
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with nothing in it."""
    if not _PROGRAMS.is_dir():
        raise FileNotFoundError(f"no PostgreSQL in {_PROGRAMS}: run ./setup.sh --tests")
    # not below pytest's folder, which is closed to other users
    with tempfile.TemporaryDirectory(prefix="farm-postgres-") as folder:
        subprocess.run(["chown", "nobody:nogroup", folder], check=True)
        data = f"{folder}/data"
        made = ("initdb", "-D", data, "-A", "trust", "-U", "farm", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
        subprocess.run(
            [*_UNPRIVILEGED, _PROGRAMS / made[0], *made[1:]], check=True, stdout=subprocess.DEVNULL, timeout=_TIMEOUT_S
        )
        # told to end when the tests do, even by kill -9
        command = [
            *_UNPRIVILEGED,
            "--pdeathsig",
            "INT",
            str(_PROGRAMS / "postgres"),
            "-D",
            data,
            "-k",
            folder,
            *_QUICKLY,
        ]
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            postgres = Postgres(Path(folder))
            postgres.wait_until_ready()
            yield postgres
        finally:
            server.send_signal(2)  # it then waits for nobody
            server.wait(timeout=_TIMEOUT_S)
