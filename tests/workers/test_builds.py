"""From a check-in to a build: real git, real packages from the index, errors in one line with whose fault it is."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.check_ins import FARM_HOME, HEAD, DeploymentRepository, example_lock, recipe
from workers.builds import Workshop, resolve


@pytest.fixture
def repository(tmp_path: Path) -> DeploymentRepository:
    return DeploymentRepository(tmp_path / "repository")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """In a FARM_HOME without builds, but with pip and its cache of downloads."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir(parents=True)
    (home / "venv").symlink_to(FARM_HOME / "venv")
    (home / "cache" / "pip").symlink_to(FARM_HOME / "cache" / "pip")
    (FARM_HOME / "cache" / "pip").mkdir(parents=True, exist_ok=True)
    return Workshop(home, "test", home / "session")


def test_the_example_becomes_a_build_and_damage_is_repaired(
    repository: DeploymentRepository, workshop: Workshop
) -> None:
    planned = repository.check_in({"stack.toml": recipe(), "lock.txt": example_lock()})
    build = resolve(planned, workshop)
    server = build.code["swift"] / "swift" / "proxy" / "server.py"
    original = server.read_bytes()
    assert (build.environment / "eventlet" / "__init__.py").is_file()
    assert not (build.environment / "swift").exists()
    pins = {line.split()[0] for line in build.resolved.lock.splitlines()}
    assert pins == {"swift==2.38.3", *example_lock().split()}
    assert all("--hash=sha256:" in line for line in build.resolved.lock.splitlines())

    server.write_bytes(b"raise SystemExit\n")
    again = resolve(planned, workshop)
    assert server.read_bytes() == original
    assert again.resolved == build.resolved


def test_check_ins_share_what_they_have_in_common(repository: DeploymentRepository, workshop: Workshop) -> None:
    texts = {"stack.toml": recipe(rest="[swift]\nreplicas = 2\n"), "lock.txt": example_lock()}
    first = resolve(repository.check_in(texts), workshop)
    second = resolve(repository.check_in({**texts, "stack.toml": recipe("swift==2.35.5")}), workshop)
    third = resolve(repository.check_in({**texts, "README": "changed"}), workshop)
    assert first.environment == second.environment
    assert first.code["swift"] != second.code["swift"]
    assert first.resolved.code != second.resolved.code
    assert third.resolved.code == first.resolved.code
    assert (first.recipe.swift.replicas, second.recipe.swift.replicas) == (2, 3)


def test_path_components_come_first_and_decide_the_identity(
    repository: DeploymentRepository, workshop: Workshop
) -> None:
    rest = '[[component]]\nname = "extra"\nsource = { path = "src/extra" }\n'
    texts = {"stack.toml": recipe(rest=rest), "lock.txt": example_lock(), "src/extra/mine.py": "A = 1\n"}
    first = resolve(repository.check_in(texts), workshop)
    second = resolve(repository.check_in({**texts, "src/extra/mine.py": "A = 2\n"}), workshop)
    assert list(first.code)[0] == "extra"
    assert (first.code["extra"] / "mine.py").read_text() == "A = 1\n"
    assert first.resolved.code != second.resolved.code


def without(package: str) -> str:
    return "".join(line + "\n" for line in example_lock().splitlines() if not line.startswith(package))


PATH_PART = '[[component]]\nname = "extra"\nsource = {{ path = "{}" }}\n'

BAD_CHECK_INS = {
    "no stack.toml": ({"README": ""}, "stack.toml cannot be read"),
    "not TOML": ({"stack.toml": "lock = "}, "stack.toml: not valid TOML"),
    "misspelt key": ({"stack.toml": recipe(rest="[swift]\nreplica = 3\n")}, "did you mean 'replicas'"),
    "no such version": (
        {"stack.toml": recipe("swift==2.38.999"), "lock.txt": example_lock()},
        "swift==2.38.999 (from versions: … ",
    ),
    "a port of ours": (
        {"stack.toml": recipe(rest="[swift.proxy]\nbind_port = 6200\n")},
        "swift.proxy.bind_port is the farm's to set",
    ),
    "a folder of ours": (
        {"stack.toml": recipe(rest=PATH_PART.format("src").replace("extra", "libraries")), "src/a.py": ""},
        "'libraries' is taken already",
    ),
    "lock contradicts": ({"stack.toml": recipe(), "lock.txt": example_lock() + "idna==3.9\n"}, "idna is pinned twice"),
    "lock with an option": ({"stack.toml": recipe(), "lock.txt": "--index-url http://127.0.0.1:1/\n"}, "lock.txt:1:"),
    "lock with an address": ({"stack.toml": recipe(), "lock.txt": "swift @ file:///tmp/x\n"}, "lock.txt:1:"),
    "no lock file": ({"stack.toml": recipe()}, "lock.txt cannot be read"),
    "no such folder": (
        {"stack.toml": recipe(rest=PATH_PART.format("src")), "lock.txt": example_lock()},
        "there is no folder 'src'",
    ),
    "folder outside": (
        {"stack.toml": recipe(rest=PATH_PART.format("../x")), "lock.txt": example_lock()},
        "must be a folder",
    ),
}


@pytest.mark.parametrize("case", BAD_CHECK_INS)
def test_a_bad_check_in_is_told_in_one_line(repository: DeploymentRepository, workshop: Workshop, case: str) -> None:
    texts, message = BAD_CHECK_INS[case]
    with pytest.raises(Failed) as caught:
        resolve(repository.check_in(texts), workshop)
    assert caught.value.fault == "stack", str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_LOCKS = {
    "no such package": (example_lock() + "no-such-package-of-the-farm==1\n", "lock.txt cannot be resolved: .*no-such"),
    "only source, which would have to run": (example_lock() + "netifaces==0.11.0\n", "netifaces==0.11.0"),
    "not complete": (without("greenlet"), "lock.txt is not complete: greenlet"),
    "contradicts the component": (without("eventlet") + "eventlet==0.20.0\n", "swift 2.38.3 depends on eventlet"),
}


@pytest.mark.parametrize("case", BAD_LOCKS)
def test_a_lock_that_cannot_be_resolved_is_never_the_stacks_fault(
    repository: DeploymentRepository, workshop: Workshop, case: str
) -> None:
    lock, message = BAD_LOCKS[case]
    with pytest.raises(Failed, match=message) as caught:
        resolve(repository.check_in({"stack.toml": recipe(), "lock.txt": lock}), workshop)
    assert caught.value.fault == "farm", str(caught.value)


class Outage(http.server.BaseHTTPRequestHandler):
    """An index that answers, but not with what was asked for: `/503/…` with that status, `/200/…` with a login page."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.end_headers()
        self.wfile.write(b"<html>please log in</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def outage() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Outage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize("index", ["refused", "503", "404", "200"])
def test_an_index_that_does_not_answer_is_the_farms_fault(
    repository: DeploymentRepository, tmp_path: Path, outage: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "venv").symlink_to(FARM_HOME / "venv")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    address = "http://127.0.0.1:1" if index == "refused" else f"{outage}/{index}"
    monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Failed, match="index does not answer") as caught:
        resolve(
            repository.check_in({"stack.toml": recipe(), "lock.txt": example_lock()}),
            Workshop(home, "test", home / "session"),
        )
    assert caught.value.fault == "farm"


def test_without_a_lock_the_first_resolution_stays(repository: DeploymentRepository, workshop: Workshop) -> None:
    build = resolve(repository.check_in({"stack.toml": recipe(head=HEAD.partition("\n")[2])}), workshop)
    stored = {path: path.stat().st_ino for path in (workshop.home / "cache" / "builds").glob("resolution-*")}
    again = resolve(repository.check_in({"note": "nothing else changed"}), workshop)
    assert again.resolved.lock == build.resolved.lock
    assert {path: path.stat().st_ino for path in (workshop.home / "cache" / "builds").glob("resolution-*")} == stored
