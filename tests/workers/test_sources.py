"""Components that come as source: from a git commit, with a patch, built behind walls; and what is refused."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from scenarios.contract import Failed
from scenarios.crossing import PlannedBuild, revision_of
from tests.helpers.check_ins import FARM_HOME, example_lock
from tests.helpers.object_stores import storage_bed
from tests.helpers.releases import repository_of
from tests.helpers.repositories import Repository
from workers.builds import Workshop, resolve
from workers.objectstores.swift import SwiftStore

pytestmark = pytest.mark.machine

SLEEP = """--- a/swift/proxy/server.py
+++ b/swift/proxy/server.py
@@ -1,3 +1,4 @@
+import time; time.sleep(0)
 # Copyright (c) 2010-2012 OpenStack Foundation
 #
 # Licensed under the Apache License, Version 2.0 (the "License");
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir()
    (home / "venv").symlink_to(FARM_HOME / "venv")
    (home / "cache" / "pip").symlink_to(FARM_HOME / "cache" / "pip")
    for name in ("software", "builds"):
        (home / "cache" / name).symlink_to(FARM_HOME / "cache" / name)
    (home / "patches").mkdir()
    return Workshop(home, "sources", home / "session")


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, list[str]]:
    return repository_of(tmp_path_factory.mktemp("upstream") / "swift", "swift==2.35.0", "swift==2.38.3")


def planned(url: Path, commit: str, *, patch: str | None = None, lock: str | None = None) -> PlannedBuild:
    """As the farm plans a check-in of the component's own repository."""
    source: dict[str, Any] = {"git": str(url), "commit": commit, "patch": patch}
    recipe = {
        "stack": {"name": "swift", "deployer": "swift"},
        "component": [{"name": "swift", "source": source}],
        "lock": None if lock is None else "swift.lock",
    }
    return PlannedBuild(revision_of({"swift": commit}), "swift", ("subject",), str(url), commit, recipe, lock)


def test_a_check_in_of_the_component_itself_is_built_and_deployed(
    workshop: Workshop, swift: tuple[Repository, list[str]], tmp_path: Path
) -> None:
    repository, (older, newer) = swift
    first = resolve(planned(repository.path, older, lock=example_lock()), workshop)
    second = resolve(planned(repository.path, newer, lock=example_lock()), workshop)
    assert first.environment == second.environment
    assert first.resolved.code != second.resolved.code
    assert (second.code["swift"] / "bin" / "swift-proxy-server").is_file()
    with storage_bed(workshop.home, "sources", 8) as bed, bed.deploy(second) as deployment:
        store = SwiftStore(deployment, bed.observer, bed.payload)
        store.upload_single("it", size_mib=8)
        assert store.read_back_digest("it") == store.payload_digest(8)


def test_a_patch_makes_another_build(workshop: Workshop, swift: tuple[Repository, list[str]]) -> None:
    repository, (_, newer) = swift
    plain = resolve(planned(repository.path, newer, lock=example_lock()), workshop)
    digest = keep(workshop, SLEEP)
    patched = resolve(planned(repository.path, newer, patch=digest, lock=example_lock()), workshop)
    assert patched.resolved.code != plain.resolved.code
    assert "import time" in (patched.code["swift"] / "swift/proxy/server.py").read_text().splitlines()[0]
    assert "import time" not in (plain.code["swift"] / "swift/proxy/server.py").read_text().splitlines()[0]


@pytest.mark.parametrize(
    "text",
    [
        SLEEP.replace("2010-2012", "1910-1912"),
        SLEEP.replace("swift/proxy/server.py", "../../outside.py"),
        "--- /dev/null\n+++ b/.git/hooks/x\n@@ -0,0 +1 @@\n+x\n",
        "no patch at all",
    ],
)
def test_a_patch_that_does_not_fit_is_the_stacks_fault(
    workshop: Workshop, swift: tuple[Repository, list[str]], text: str
) -> None:
    repository, (_, newer) = swift
    with pytest.raises(Failed, match="the patch does not apply") as failed:
        resolve(planned(repository.path, newer, patch=keep(workshop, text), lock=example_lock()), workshop)
    assert failed.value.fault == "stack"


def keep(workshop: Workshop, text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    (workshop.home / "patches" / digest).write_text(text)
    return digest


SETUP = "from setuptools import setup\n{}\nsetup(name='swift', version='1', packages=['swift'], {})\n"


def component(folder: Path, before: str = "", more: str = "") -> PlannedBuild:
    repository = Repository(folder / "component")
    (folder / "component" / "swift").mkdir()
    (folder / "component" / "swift" / "__init__.py").write_text("")
    (folder / "component" / "setup.py").write_text(SETUP.format(before, more))
    repository.git("add", "--all")
    return planned(repository.path, repository.commit("a check-in"))


@pytest.mark.parametrize(
    ("before", "more", "told"),
    [
        (
            "raise ValueError('as bad as it gets')",
            "",
            "component 'swift' cannot be built .at: wheel.: .*as bad as it gets",
        ),
        ("", "install_requires=['x @ http://127.0.0.1/x.whl']", "requires 'x ?@ http://127.0.0.1/x.whl'"),
        ("", "install_requires=['no-such-package-of-the-farm==1']", "no-such-package-of-the-farm==1"),
    ],
)
def test_source_that_cannot_be_built_is_the_stacks_fault(
    workshop: Workshop, tmp_path: Path, before: str, more: str, told: str
) -> None:
    with pytest.raises(Failed, match=told) as failed:
        resolve(component(tmp_path, before, more), workshop)
    assert failed.value.fault == "stack"
    assert "\n" not in str(failed.value)


def test_a_build_script_sees_neither_the_farm_nor_a_network(workshop: Workshop, tmp_path: Path) -> None:
    secret = workshop.home / "secret"
    secret.write_text("kept")
    look = f"""
import os, socket
assert not os.path.exists({str(secret)!r}), 'the farm is seen'
assert [name for _, name in socket.if_nameindex()] == ['lo'], 'a network is seen'
assert os.getuid() != 0, 'it is root'
assert not os.environ.get('PIP_INDEX_URL'), 'the address of the index is seen'
"""
    build = resolve(component(tmp_path, look), workshop)
    assert (build.code["swift"] / "swift" / "__init__.py").is_file()


def test_a_commit_that_does_not_exist_is_the_stacks_fault(
    workshop: Workshop, swift: tuple[Repository, list[str]]
) -> None:
    with pytest.raises(Failed, match="has no commit") as failed:
        resolve(planned(swift[0].path, "0" * 40), workshop)
    assert failed.value.fault == "stack"
