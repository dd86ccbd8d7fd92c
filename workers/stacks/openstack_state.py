"""Databases and keys of a new deployment, made with the deployed revision's own code; runs inside the walls by itself.

`python3 openstack_state.py make job.json` makes them, and packs them into one file; `unpack` begins with such a file.
Making takes most of a minute and depends on the code alone, so it is done once for each build.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"
POSTGRES = "/services/usr/lib/postgresql/15/bin"
TRIES_S = 60.0


class State:
    """The job: {"state": folder, "sockets": folder, "databases": […], "admin": …, "service": …, "identity": url, …}."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.folder = Path(job["state"])

    def make(self) -> None:
        run(f"{POSTGRES}/initdb", "-D", f"{self.folder}/postgres", "-A", "trust", "-U", "stack", "--no-sync",
            "-E", "UTF8", "--locale=C", "--wal-segsize=2", "--no-instructions")  # fmt: skip
        server = subprocess.Popen(database_server(str(self.folder), self.job["sockets"]))
        try:
            self._create_databases()
            together(self._keystone, self._nova, self._placement, self._glance)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
        with tarfile.open(self.folder / "state.tar", "w") as archive:
            for name in ("postgres", "fernet", "credential"):
                archive.add(self.folder / name, name)

    def _create_databases(self) -> None:
        import psycopg2  # type: ignore[import-untyped]

        deadline = time.monotonic() + TRIES_S
        while True:
            try:
                connection = psycopg2.connect(host=self.job["sockets"], user="stack", dbname="postgres")
                break
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in self.job["databases"]:
                cursor.execute(f"CREATE DATABASE {name}")
        connection.close()

    def _keystone(self) -> None:
        for name in ("fernet", "credential"):
            (self.folder / name).mkdir(mode=0o700)
        manage("keystone", "db_sync")
        manage("keystone", "fernet_setup")
        urls = [
            word
            for kind in ("admin", "internal", "public")
            for word in (f"--bootstrap-{kind}-url", self.job["identity"])
        ]
        manage("keystone", "bootstrap", "--bootstrap-password", self.job["admin"],
               "--bootstrap-region-id", self.job["region"], *urls)  # fmt: skip
        run(PYTHON, __file__, "catalog", json.dumps(self.job))

    def _nova(self) -> None:
        manage("nova", "api_db", "sync")
        manage("nova", "cell_v2", "map_cell0", "--database_connection", self.job["cell0"])
        manage("nova", "db", "sync")
        manage("nova", "cell_v2", "create_cell", "--name", "cell1")

    def _placement(self) -> None:
        manage("placement", "db", "sync")

    def _glance(self) -> None:
        manage("glance", "db_sync")

    def unpack(self) -> None:
        with tarfile.open(self.job["template"]) as archive:
            archive.extractall(self.folder)
        for name in ("postgres", "fernet", "credential"):
            os.chmod(self.folder / name, 0o700)


class Catalog:
    """Users and endpoints, entered through the identity service's own API without a server around it."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        sys.argv = ["keystone"]
        from keystone.wsgi.api import application  # type: ignore[import-not-found]

        self.application = application
        user = {"name": "admin", "domain": {"id": "default"}, "password": job["admin"]}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        login = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        self.token = ""
        self.token = self._ask("POST", "/v3/auth/tokens", login).headers["X-Subject-Token"]

    def enter(self) -> None:
        project = self._post("projects", {"name": "service", "domain_id": "default"})
        listed = json.loads(self._ask("GET", "/v3/roles", None).body)["roles"]
        roles = {role["name"]: role["id"] for role in listed}
        for name in {"admin", "service"} - roles.keys():
            roles[name] = self._post("roles", {"name": name})
        for name in self.job["users"]:
            given = {"name": name, "password": self.job["service"], "domain_id": "default"}
            user = self._post("users", given)
            for role in ("admin", "service"):
                self._ask("PUT", f"/v3/projects/{project}/users/{user}/roles/{roles[role]}", None)
        for name, (kind, url) in self.job["endpoints"].items():
            service = self._post("services", {"name": name, "type": kind})
            for interface in ("public", "internal", "admin"):
                given = {"service_id": service, "interface": interface, "url": url, "region_id": self.job["region"]}
                self._post("endpoints", given)

    def _post(self, kind: str, content: dict[str, Any]) -> str:
        singular = kind.removesuffix("s")
        return str(json.loads(self._ask("POST", f"/v3/{kind}", {singular: content}).body)[singular]["id"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        from webob import Request  # type: ignore[import-untyped]

        request = Request.blank(path, method=method, headers={"X-Auth-Token": self.token})
        if body is not None:
            request.content_type, request.body = "application/json", json.dumps(body).encode()
        answer = request.get_response(self.application)
        if answer.status_int >= 300:
            raise SystemExit(f"keystone answers {method} {path} with {answer.status}: {answer.text[:300]}")
        return answer


def database_server(state: str, sockets: str) -> list[str]:
    """Nothing of it has to outlive the machine's next second."""
    settings = {
        "listen_addresses": "", "unix_socket_directories": sockets, "fsync": "off", "synchronous_commit": "off",
        "full_page_writes": "off", "max_connections": "300", "shared_buffers": "64MB", "jit": "off",
        "max_wal_size": "64MB", "min_wal_size": "4MB",
    }  # fmt: skip
    return [f"{POSTGRES}/postgres", "-D", f"{state}/postgres", *(f"--{k}={v}" for k, v in settings.items())]


def manage(service: str, *arguments: str) -> None:
    config = {"glance": "/etc/glance/glance-api.conf"}.get(service, f"/etc/{service}/{service}.conf")
    run(PYTHON, "-W", "ignore", f"/code/{service}/bin/{service}-manage", "--config-file", config, *arguments)


def run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        program = Path(next(word for word in command if word != PYTHON and word.startswith("/")))
        component = f"component '{program.parts[2]}': " if program.is_relative_to("/code") else ""
        words = " | ".join(done.stdout.strip().splitlines()[-3:])
        raise SystemExit(f"{component}{program.name} ended with {done.returncode}: {words}")


def together(*parts: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def call(part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001  told by the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=call, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def main(step: str, job: str) -> None:
    if step == "catalog":
        Catalog(json.loads(job)).enter()
    else:
        state = State(json.loads(Path(job).read_text(encoding="utf-8")))
        state.make() if step == "make" else state.unpack()


if __name__ == "__main__":
    main(*sys.argv[1:3])
